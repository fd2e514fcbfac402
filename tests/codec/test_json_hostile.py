"""JSON that is not, and JSON at its edges: one outcome in both kernels, below and above the size from which a document is looked at first."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from cloud_runtimes.codec import json as codec
from cloud_runtimes.errors import PayloadError

from .conftest import load_native

Decode = Callable[[Any], Any]
SPACES = b" " * 131_072  # from here on a document is looked at first
EDGES: list[tuple[bytes, Any]] = [
    (b"9223372036854775807", 2**63 - 1),
    (b"9223372036854775808", 2**63),
    (b"-9223372036854775808", -(2**63)),
    (b"-9223372036854775809", -(2.0**63)),
    (b"18446744073709551615", 2**64 - 1),
    (b"18446744073709551616", 2.0**64),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'{"a":1,"\\u0061":{"b":[],"b":3}}', {"a": {"b": 3}}),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b"[[[]],{}]", [[[]], {}]),
    (b'["[[[{{{,,,","\\"]","\\\\"]', ["[[[{{{,,,", '"]', "\\"]),
    (b" [ ] ", []),
]
REFUSED = [
    b"",
    b"NaN",
    b"[1,NaN]",
    b"Infinity",
    b"-",
    b"1e999",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'{"\\ud800":1}',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b"[" * 1_000_000,
    b'{"a":' * 200_000,
    b"[" * 129 + b"]" * 129,
    b"[]]",
    b"[[]",
    b"[}",
    b'{"a":1]',
    b"[1,]",
    b"[,1]",
    b'{"a"}',
    b"1 2",
    b"[1]x",
    b'"a',
    b'["a\\"]',
    b"\xef\xbb\xbf1",
    b"01",
    b"1.",
]


@pytest.fixture(params=[pytest.param("_payload", marks=pytest.mark.native_only), "payload_py"])
def decode(request: pytest.FixtureRequest) -> Decode:
    """Of one of the kernels."""
    if request.param == "_payload":
        load_native()
    module = importlib.import_module(f"cloud_runtimes._native.{request.param}")
    module.use(*codec.reader())
    result: Decode = module.decode_json
    return result


def forms(data: bytes) -> list[Any]:
    given: list[Any] = [data, bytearray(data), memoryview(data), SPACES + data, data + SPACES]
    try:
        given += [data.decode(), (SPACES + data).decode()]
    except UnicodeDecodeError:
        pass
    return given


@pytest.mark.parametrize(("data", "value"), EDGES, ids=lambda v: repr(v)[:30])
def test_edges(decode: Decode, data: bytes, value: Any) -> None:
    for given in forms(data):
        found = decode(given)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("data", REFUSED, ids=lambda v: repr(v)[:24])
def test_refused(decode: Decode, data: bytes) -> None:
    for given in forms(data):
        with pytest.raises(PayloadError, match="JSON"):
            decode(given)


def test_other_things(decode: Decode) -> None:
    for given in (None, 5, [b"1"], memoryview(b"1 2 ")[::2], "\ud800"):
        with pytest.raises(PayloadError, match="not JSON"):
            decode(given)


def outcome(function: Decode, data: bytes) -> Any:
    try:
        return repr(function(data))
    except (PayloadError, orjson.JSONDecodeError):
        return "refused"


SEEDS = [
    b'{"a":[1.5,true,null,"\\u00e9\xc3\xa9",-0,1E+2],"b":{"c":-2,"d":"\\\\\\"[{"},"e":[[],{},[{}]],"f":false}',
    b'[{"id":"x","tags":["a","b",""],"n":18446744073709551616,"t":" \\t"} , [ 0.1e-5 ,\n\r\t"\xf0\x9f\x98\x80"] ]',
]


def test_truncated_and_mutated_as_orjson_says(decode: Decode, rounds: Callable[[int, int], int]) -> None:
    """The looks that are taken first, at limits, grammar and brackets, refuse nothing that orjson takes, nor take what it refuses."""
    rng = random.Random(11)
    pieces = [
        b'"',
        b"\\",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"0",
        b"-",
        b".",
        b"e",
        b"\\u",
        b"\xe9",
        b" ",
        b"null",
        b"\x00",
    ]
    taken = 0
    for seed in SEEDS:
        for end in range(len(seed)):
            for data in (seed[:end], SPACES + seed[:end]):
                assert outcome(decode, data) == outcome(orjson.loads, data)
    for _ in range(rounds(1500, 50_000)):
        data = bytearray(rng.choice(SEEDS))
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.choice([0, 1, 1, 2])] = rng.choice([*pieces, b""])
        for given in (bytes(data), SPACES + data):
            found = outcome(decode, given)
            assert found == outcome(orjson.loads, given), bytes(data)
        taken += found != "refused"
    assert taken > 100
