"""JSON and MessagePack that are not, and at their edges: one outcome in both kernels."""

from __future__ import annotations

import datetime
import importlib
import random
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import orjson
import pytest

from cloud_runtimes.codec import json as codec
from cloud_runtimes.errors import PayloadError
from tests.codec.conftest import load_native
from tests.support import Rounds

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


@pytest.mark.promise("G1")
@pytest.mark.parametrize(("data", "value"), EDGES, ids=lambda v: repr(v)[:30])
def test_edges(decode: Decode, data: bytes, value: Any) -> None:
    for given in forms(data):
        result = decode(given)
        assert result == value
        assert type(result) is type(value)


@pytest.mark.promise("G1")
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


@pytest.mark.promise("G5")
def test_numbers_about_the_largest(decode: Decode, rounds: Rounds) -> None:
    """Decoding refuses only numbers that round to infinity, however they are written."""
    rng = random.Random(12)
    edge = 2**1024 - 2**970  # the least that rounds to infinity
    tokens = [
        str(edge),
        str(edge - 1),
        f"{edge}.0",
        f"{edge - 1}.9",
        "0e999999999999999999999",
        "0.0e400",
        "-0.000e+999",
    ]
    tokens += [
        "1e308",
        "1e309",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "-1.8E+308",
        "1e-99999999999999999999",
    ]
    tokens += ["1e99999999999999999999", f"0.{'0' * 400}1e708", f"0.{'0' * 400}1e709", f"0.{'0' * 400}1e710"]
    for _ in range(rounds(2_000, 200_000)):
        digits = rng.choice([str(edge), "17976931348623158" + str(rng.getrandbits(40)), str(rng.getrandbits(60))])
        digits = digits[: rng.randrange(1, len(digits) + 1)] + "0" * rng.choice([0, 0, 3, 310])
        point = rng.randrange(len(digits) + 1)
        whole, part = digits[:point] or "0", digits[point:]
        zeros = "0" * rng.choice([0, 0, 2, 320])
        about = 309 - (point if point else -len(zeros)) + rng.randrange(-2, 3)
        tokens.append(
            rng.choice(["", "-"])
            + (whole.lstrip("0") or "0")
            + (f".{zeros if not point else ''}{part}" if part else "")
            + rng.choice(["", f"e{about}", f"E{about:+}", f"e{'-' if about < 0 else ''}000{abs(about)}"])
        )
    seen = set()
    for token in tokens:
        value = float(token)
        finite = abs(value) != float("inf")
        seen.add(finite)
        for given in (token.encode(), SPACES + token.encode()):
            if finite:
                assert float(decode(given)) == value, token
            else:
                with pytest.raises(PayloadError, match="JSON"):
                    decode(given)
    assert seen == {True, False}


@pytest.mark.promise("G5")
def test_surrogates_as_orjson_says(decode: Decode, rounds: Rounds) -> None:
    rng = random.Random(13)
    pieces = [
        b"\\ud800", b"\\uDBFF", b"\\udc00", b"\\uDFff", b"\\ud83d\\ude00", b"\\u0041", b"\\ud7ff", b"\\ue000",
        b"\\\\",
    ]  # fmt: skip
    pieces += [b'\\"', b"u", b"d800", b"\\n", "\u00e9".encode(), b"plain text of some length"]
    seen = set()
    for _ in range(rounds(3_000, 300_000)):
        text = b'"' + b"".join(rng.choices(pieces, k=rng.randrange(1, 6))) + b'"'
        expected = outcome(orjson.loads, text)
        seen.add(expected == "refused")
        for given in (text, b"[" + SPACES + b"3," + text + b",4]"):
            result = outcome(decode, given)
            assert result == (expected if given is text or expected == "refused" else f"[3, {expected}, 4]"), text
    assert seen == {True, False}


SEEDS = [
    b'{"a":[1.5,true,null,"\\u00e9\xc3\xa9",-0,1E+2],"b":{"c":-2,"d":"\\\\\\"[{"},"e":[[],{},[{}]],"f":false}',
    b'[{"id":"x","tags":["a","b",""],"n":18446744073709551616,"t":" \\t"} , [ 0.1e-5 ,\n\r\t"\xf0\x9f\x98\x80"] ]',
]


def test_truncated_and_mutated_as_orjson_says(decode: Decode, rounds: Rounds) -> None:
    """The looks that are taken first, at limits, grammar and brackets, refuse nothing that orjson takes, nor take what it refuses."""
    rng = random.Random(11)
    pieces = [
        b'"', b"\\", b"[", b"]", b"{", b"}", b",", b":", b"0", b"-", b".", b"e", b"\\u", b"\xe9", b" ", b"null",
        b"\x00",
    ]  # fmt: skip
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
            result = outcome(decode, given)
            assert result == outcome(orjson.loads, given), bytes(data)
        taken += result != "refused"
    assert taken > 100


# -- messagePack that is not: bombs, rubbish, and a good value cut off at every byte

UTC = datetime.UTC


@pytest.mark.promise("G4")
@pytest.mark.parametrize(
    "data", ["ddffffffff", "dfffffffff", "df80000000", "dbffffffff", "c6ffffffff", "c9ffffffff", "dcffff", "deffff"]
)
def test_length_bombs(impl: ModuleType, data: str) -> None:
    for prefix in ("", "91", "9201", "81a161"):
        with pytest.raises(PayloadError, match="at byte"):
            impl.decode(bytes.fromhex(prefix + data))
        with pytest.raises(PayloadError, match="at byte"):
            impl.decode(bytes.fromhex(prefix + data) + b"\x01" * 1000)


@pytest.mark.promise("G4")
@pytest.mark.native_only
def test_nested_promises_reserve_nothing() -> None:
    """Each of 100 heads promises all that is left: a list sized for each would take 100 times 8 bytes for every byte."""
    import tracemalloc

    native = pytest.importorskip("cloud_runtimes._native._msgpack")
    size = 2_000_000
    for tail in (b"\xc1", b"\x91"):
        data = b"".join(b"\xdd" + (size - 5 * i - 600).to_bytes(4, "big") for i in range(100)) + b"\x80" * size + tail
        tracemalloc.start()
        with pytest.raises(PayloadError):
            native.decode(data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < len(data) // 10


BAD: list[tuple[str, str]] = [
    ("", "ends where a value should begin"),
    ("c1", "0xC1"),
    ("91c1", r"0xC1 is never used \(at byte 1\)"),
    ("0001", r"1 bytes follow the value \(at byte 1\)"),
    ("a1ff", "not valid UTF-8"),
    ("a3eda080", "not valid UTF-8"),
    ("819001", r"cannot be a key \(at byte 1\)"),
    ("818001", "cannot be a key"),
    ("d40500", "extension type 5"),
    ("d480" + "00", "extension type -128"),
    ("d4ff00", "timestamp of 1 bytes"),
    ("d8ff" + "00" * 16, "timestamp of 16 bytes"),
    ("c700ff", "timestamp of 0 bytes"),
    ("d7ffee6b280000000000", "1000000000 nanoseconds"),
    ("c70cffffffffff0000000000000000", "4294967295 nanoseconds"),
    ("c70cff00000000" + "7fffffffffffffff", "outside the years"),
    ("c70cff00000000" + "fffffff1886e08ff", "outside the years"),
    ("c70cff00000000" + "0000003afff44180", "outside the years"),
]


@pytest.mark.parametrize(("data", "match"), BAD)
def test_bad_input(impl: ModuleType, data: str, match: str) -> None:
    with pytest.raises(PayloadError, match=match):
        impl.decode(bytes.fromhex(data))
    # and the same beyond the size from which input is checked before anything is made
    if data not in ("", "0001"):
        with pytest.raises(PayloadError, match=match.split(" \\(")[0]):
            impl.decode(bytes.fromhex("dc2001") + b"\x01" * 0x2000 + bytes.fromhex(data))


def test_no_other_extension_is_known(impl: ModuleType) -> None:
    for code in set(range(-128, 128)) - {-1}:
        for data in (b"\xd6" + struct.pack("b", code) + bytes(4), b"\xc7\x04" + struct.pack("b", code) + bytes(4)):
            with pytest.raises(PayloadError, match=f"extension type {code} "):
                impl.decode(data)


def test_truncated_anywhere(impl: ModuleType) -> None:
    value = {
        "a": [1, -1, 1000, -1000, 2**40, -(2**40), 1.5, None, True],
        "b": b"x" * 300,
        "c": "é" * 20,
        "d": {"e": "f" * 300},
    }
    value["t"] = [
        datetime.datetime(year, 1, 1, 0, 0, 0, micro, tzinfo=UTC) for year in (1, 2000, 2200) for micro in (0, 5)
    ]
    data = impl.encode(value)
    for end in range(len(data)):
        with pytest.raises(PayloadError, match="at byte"):
            impl.decode(data[:end])
    for extra in (b"\x00", b"\xc1", b"\x90"):
        with pytest.raises(PayloadError, match="follow"):
            impl.decode(data + extra)


def test_buffers(impl: ModuleType) -> None:
    data = impl.encode({"a": b"xyz"})
    for view in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
        assert impl.decode(view) == {"a": b"xyz"}
    wide = b"".join(bytes([byte, 0]) for byte in data)
    for bad in (memoryview(wide)[::2], "text", 5, None):
        with pytest.raises(PayloadError, match="give contiguous bytes"):
            impl.decode(bad)


@pytest.mark.promise("G4")
def test_a_million_levels(impl: ModuleType) -> None:
    for level in (b"\x91", b"\x81\xa0", b"\xdd\x00\x00\x00\x01"):
        with pytest.raises(PayloadError, match="deeper than 128"):
            impl.decode(level * 1_000_000 + b"\xc0")
