"""The limits on decoding: the same in all kernels and in both formats, before anything is made, with the remedy in the error."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgpack as oracle
import orjson
import pytest

from cloud_runtimes.codec import Limits, _json_std, limits
from cloud_runtimes.errors import InvalidArgumentError, PayloadError
from tests.codec.conftest import codec_limits, load_native

Decode = Callable[[Any], Any]


def payload_kernel(name: str) -> ModuleType:
    from cloud_runtimes.codec import json

    module = importlib.import_module(f"cloud_runtimes._native.{name}")
    module.use(*json.reader())
    return module


@pytest.fixture(params=[pytest.param("native", marks=pytest.mark.native_only), "python", "standard library"])
def json(request: pytest.FixtureRequest) -> tuple[ModuleType | None, Decode]:
    """A kernel that reads JSON, and its function."""
    if request.param == "standard library":
        return None, _json_std.decode
    if request.param == "native":
        load_native()
    module = payload_kernel("_payload" if request.param == "native" else "payload_py")
    return module, module.decode_json


def nested(levels: int, opening: bytes, closing: bytes, inner: bytes = b"1") -> bytes:
    return opening * levels + inner + closing * levels


def same(one: Any, other: Any) -> bool:
    """`==` for what is too deep for it."""
    todo = [(one, other)]
    while todo:
        a, b = todo.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            if a.keys() != b.keys():
                return False
            todo += [(a[key], b[key]) for key in a]
        elif isinstance(a, list):
            if len(a) != len(b):
                return False
            todo += zip(a, b, strict=True)
        elif a != b:
            return False
    return True


def kernels(module: ModuleType | None) -> list[ModuleType]:
    return [] if module is None else [module]


def test_defaults() -> None:
    assert limits() == Limits(depth=128, items=1_000_000, bytes=64 * 1024 * 1024)


def test_what_is_set_stays_and_the_rest_too() -> None:
    with codec_limits():
        assert limits(depth=5) == Limits(5, 1_000_000, 64 * 1024 * 1024)
        assert limits(items=7, bytes=100) == Limits(5, 7, 100) == limits()
        for name, value in (("depth", 0), ("depth", 513), ("items", 0), ("bytes", -1), ("items", 1.5), ("depth", True)):
            with pytest.raises(InvalidArgumentError, match=rf"limits\({name}="):
                limits(**{"items": 9, name: value})  # type: ignore[arg-type]
        assert limits() == Limits(5, 7, 100)
    assert limits() == Limits(128, 1_000_000, 64 * 1024 * 1024)


@pytest.mark.parametrize("depth", [1, 2, 5, 127, 128, 129, 400, 512])
def test_depth_of_messagepack(impl: ModuleType, depth: int) -> None:
    with codec_limits(impl, depth=depth):
        for head in (b"\x91", b"\x81\xa0", b"\xdc\x00\x01", b"\x92\xc0"):
            impl.decode(head * depth + b"\xc0")
            impl.decode(head * (depth - 1) + b"\x90")
            for inner in (b"\xc0", b"\xc1", b"\x91", b"\xda\x24\x00" + b"x" * 0x2400):
                with pytest.raises(
                    PayloadError,
                    match=rf"deeper than {depth} containers \(at byte \d+\): allow it with .*limits\(depth",
                ):
                    impl.decode(head * (depth + 1) + inner)


@pytest.mark.parametrize("items", [1, 100, 8192, 8193, 20_000])
def test_items_of_messagepack(impl: ModuleType, items: int) -> None:
    """An element of an array is one, a key with its value is one."""
    wide = [0] * items
    halves = [dict.fromkeys(range(items // 2)), [None] * (items - items // 2 - 2)]
    with codec_limits(impl, items=items):
        assert impl.decode(oracle.packb(wide)) == wide
        for value in ([*wide, 0], [wide], {"a": wide}):
            with pytest.raises(
                PayloadError, match=rf"more than {items} items \(at byte \d+\): .*limits\(items=\.\.\.\)"
            ):
                impl.decode(oracle.packb(value))
        if items >= 100:
            assert impl.decode(oracle.packb(halves)) == halves


@pytest.mark.parametrize("size", [1, 300, 9000])
def test_bytes_of_messagepack(impl: ModuleType, size: int) -> None:
    with codec_limits(impl, bytes=size):
        good = oracle.packb(b"x" * (size - (2 if size < 258 else 3))) if size > 1 else b"\x01"
        for given in (good, bytearray(good), memoryview(good)):
            assert len(good) == size
            impl.decode(given)
        for given in (good + b"x", bytearray(good + b"x"), memoryview(good + b"x")):
            with pytest.raises(PayloadError, match=rf"more than {size} bytes: .*limits\(bytes=\.\.\.\)"):
                impl.decode(given)


FORMS: list[tuple[bytes, bytes]] = [
    (b"[", b"]"),
    (b'{"a":', b"}"),
    (b' [ "]\\"}", 1 , ', b",[ ] ] "),
    (b'{"' + b"{" * 70 + b'":[],"\\\\":', b"}"),
    (b'["' + "é".encode() * 40 + b'\\u00e9",', b"]"),
]


@pytest.mark.parametrize("form", FORMS, ids=["list", "dict", "spaces", "brackets in strings", "escapes"])
@pytest.mark.parametrize("depth", [3, 128, 129, 254, 512])
def test_depth_of_json(json: tuple[ModuleType | None, Decode], form: tuple[bytes, bytes], depth: int) -> None:
    module, decode = json
    # the third form has an empty list within each of its levels
    own = depth - 1 if b"[ ]" in form[1] or b":[]" in form[0] else depth
    with codec_limits(*kernels(module), depth=depth):
        good = nested(own, *form)
        for given in (good, bytearray(good), memoryview(good), good.decode()):
            assert same(decode(given), orjson.loads(good))
        # in a document that is long and wide as well
        long = b'[["' + b"x" * 70 + b'"],' * 1 + nested(own - 1, *form) + b"," + b"{}," * 3000 + b"1]"
        assert same(decode(long), orjson.loads(long))
        for bad in (nested(own + 1, *form), b"[" + b"[]," * 3000 + nested(own, *form) + b"]"):
            for given in (bad, bytearray(bad), memoryview(bad), bad.decode()):
                with pytest.raises(
                    PayloadError, match=rf"deeper than {depth} containers: allow it with .*limits\(depth"
                ):
                    decode(given)


@pytest.mark.parametrize("levels", [1025, 100_000, 1_000_000])
def test_bombs_of_json(json: tuple[ModuleType | None, Decode], levels: int) -> None:
    for bad in (b"[" * levels, b"[" * levels + b"]" * levels, b'{"a":' * levels):
        with pytest.raises(PayloadError, match="deeper than 128 containers"):
            json[1](bad)


@pytest.mark.parametrize("items", [1, 100, 5000])
def test_items_of_json(json: tuple[ModuleType | None, Decode], items: int) -> None:
    module, decode = json
    wide: Any = [0] * items
    texts = {str(i): ',[{",' for i in range(items)}
    mixed = [{}, [], [[]], {"a": [{}, ""]}, *[{"b": None}] * ((items - 8) // 2)]
    with codec_limits(*kernels(module), items=items):
        for value in (wide, texts, *([mixed] if items >= 100 else [])):
            for text in (orjson.dumps(value), orjson.dumps(value, option=orjson.OPT_INDENT_2)):
                assert decode(text) == value
        for value in ([*wide, 0], [wide], {"a": texts}, {**texts, "": 1}):
            for text in (orjson.dumps(value), orjson.dumps(value, option=orjson.OPT_INDENT_2)):
                if len(text) > 2 * items:  # with less than two bytes for each it cannot be
                    with pytest.raises(PayloadError, match=rf"more than {items} items: .*limits\(items=\.\.\.\)"):
                        decode(text)


def test_bytes_of_json(json: tuple[ModuleType | None, Decode]) -> None:
    module, decode = json
    with codec_limits(*kernels(module), bytes=10):
        for good in (b'"12345678"', bytearray(b'"12345678"'), memoryview(b'"12345678"'), '"ééxxxx"'):
            decode(good)
        for bad in (b'"123456789"', bytearray(b'"123456789"'), memoryview(b'"123456789"'), '"123456789"', '"ééééx"'):
            with pytest.raises(PayloadError, match=r"JSON of more than 10 bytes: .*limits\(bytes=\.\.\.\)"):
                decode(bad)


@pytest.mark.native_only
def test_the_deepest_needs_no_more_than_a_small_stack() -> None:
    """128 KiB is what a thread has on musl; beyond its stack a process dies."""
    load_native()
    code = (
        "import threading\n"
        "from cloud_runtimes import codec\n"
        "from cloud_runtimes.codec import json, msgpack\n"
        "from cloud_runtimes.errors import PayloadError\n"
        "codec.limits(depth=512)\n"
        "done = []\n"
        "def work():\n"
        "    for head in (b'\\x91', b'\\x81\\xa0'):\n"
        "        msgpack.decode(head * 512 + b'\\xc0')\n"
        "        msgpack.decode(head * 512 + b'\\xda\\x24\\x00' + b'x' * 0x2400)\n"
        "    json.decode(b'[' * 512 + b']' * 512)\n"
        "    done.append(1)\n"
        "msgpack.decode(b'\\x90'), json.decode(b'[]')\n"
        "threading.stack_size(131072)\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
        "assert done\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_services_keep_to_them() -> None:
    """The limits hold for payloads that a service decodes, and for the data of an event."""
    from cloud_runtimes.codec import cloudevents
    from cloud_runtimes.codec.payload import decode_payload

    event = cloudevents.encode({"a": [1, 2, 3, 4]}, "/s", "t")
    with codec_limits(items=4, depth=2):
        assert cloudevents.encode({"a": [1, 2, 3, 4]}, "/s", "t")  # what is encoded falls under none
        for read in (
            lambda: decode_payload(b"[1,2,3,4,5]", "application/json"),
            lambda: decode_payload(b"[1,2,3,4,5]", "application/json", type=list[int]),
            lambda: decode_payload(b"\x95\x01\x02\x03\x04\x05", "application/msgpack"),
            lambda: cloudevents.decode(event).data,
        ):
            with pytest.raises(PayloadError, match="more than 4 items"):
                read()


def test_a_forked_process_has_them_and_an_import_costs_nothing() -> None:
    code = (
        "import os, sys\n"
        "from cloud_runtimes import codec\n"
        "codec.limits(depth=3)\n"
        "assert 'orjson' not in sys.modules\n"
        "from cloud_runtimes.errors import PayloadError\n"
        "child = os.fork()\n"
        "for decode, deep in ((codec.json.decode, b'[[[[]]]]'), (codec.msgpack.decode, b'\\x91\\x91\\x91\\x90')):\n"
        "    try:\n"
        "        decode(deep)\n"
        "        os._exit(1)\n"
        "    except PayloadError:\n"
        "        pass\n"
        "os._exit(0 if child == 0 or os.waitpid(child, 0)[1] == 0 else 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
