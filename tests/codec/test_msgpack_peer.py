"""The short way through the ormsgpack package: it is taken, and where the package differs from the reference it is not. The msgpack package, which is neither, makes what is decoded."""

from __future__ import annotations

import builtins
import datetime
import gc
import importlib
import random
import signal
import struct
import subprocess
import sys
import sysconfig
import threading
from types import ModuleType
from typing import Any

import msgpack
import ormsgpack
import pytest
from silence import silence

from cloud_runtimes.errors import PayloadError

from .conftest import PEER, PYTHON

packs = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) or hasattr(builtins, "frozendict"),
    reason="not on this Python: the package's packer is left alone without a GIL, and where it would take a frozendict",
)


def nested(levels: int, make: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


EVENT: dict[str, Any] = {
    "id": "01J9ZQ4T8W3N5V6X7Y8Z9A0B1C",
    "status": 200,
    "error": None,
    "sampled": True,
    "ratio": 0.1,
    "text": "ł",
    "attributes": {"http.method": "GET", "sizes": [196, 199, 200, 212, 216, -1, 1 / 3, 1 / 7]},
    "text2": "x" * 300,
}


@pytest.fixture
def peer() -> ModuleType:
    module = importlib.import_module(PEER)
    assert module.backend() == f"ormsgpack {ormsgpack.__version__}"
    return module


@pytest.fixture
def reference() -> ModuleType:
    return importlib.import_module(PYTHON)


def outcome(function: Any, value: Any) -> tuple[str, Any]:
    try:
        return "result", function(value)
    except PayloadError as error:
        return "error", str(error)


def fail(*_: Any) -> Any:
    raise AssertionError("the reference was called")


@packs
@pytest.mark.parametrize(
    "value",
    [
        EVENT,
        {**EVENT, "data": b"\x00\xc8"},
        {**EVENT, "data": bytearray(b"abc")},
        {**EVENT, "data": memoryview(b"abc")},
        [EVENT] * 100,
        {"t": "x" * 10_000},
        list(range(5000)),
        [[]] * 1000,
        nested(100, lambda v: [v, "x" * 100]),
        {5: EVENT, None: 1, b"k": 2, 0.5: {True: 3}},
        dict.fromkeys(range(100), EVENT),
        {},
        [],
        "a",
        None,
        5,
    ],
    ids=lambda value: f"{type(value).__name__} {len(repr(value))}",
)
def test_the_reference_is_not_called(peer: ModuleType, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(peer, "_reference", fail)
    monkeypatch.setattr(peer.msgpack_read, "read", fail)
    monkeypatch.setattr(peer.msgpack_read, "decode_whole", fail)
    out = peer.encode(value)
    assert out == msgpack.packb(value)
    for data in (out, bytearray(out), memoryview(out)):
        assert peer.decode(data) == value
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 6000, tzinfo=datetime.UTC)
    back = peer.decode(msgpack.packb({"at": moment}, datetime=True))["at"]
    assert back == moment
    assert back.tzinfo is datetime.UTC


OWN: list[Any] = [
    ormsgpack.Ext(5, b""),
    ormsgpack.Ext(0, b"x"),
    ormsgpack.Ext(5, b"x" * 16),
    ormsgpack.Ext(5, b"x" * 255),
    ormsgpack.Ext(5, b"x" * 70_000),
    ormsgpack.Ext(-1, bytes(4)),
    ormsgpack.Fragment(b"\x01"),
    ormsgpack.Fragment(ormsgpack.packb(EVENT)),
    ormsgpack.Fragment(ormsgpack.packb("x" * 70_000)),
    msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(1, 5),
    memoryview(b"abc"),
    memoryview(b"x" * 300),
    memoryview(b"x" * 70_000),
    memoryview(b"abcd")[::2],
    memoryview(b"abcd").cast("H"),
]


@pytest.mark.parametrize("own", OWN, ids=lambda own: f"{type(own).__name__}")
def test_values_of_the_packages_and_memoryviews(peer: ModuleType, reference: ModuleType, own: Any) -> None:
    """Alone, as a value, in a list, as a key, beside little and beside much."""
    values: list[Any] = [own, {"a": own}, [own], {**EVENT, "z": own}, [EVENT] * 20 + [own], [b"", own], {1: own}]
    if own.__hash__ is not None and not (isinstance(own, memoryview) and own.format != "B"):
        values += [{own: 1}, {"a": {own: own}}]
    for value in values:
        assert outcome(peer.encode, value) == outcome(reference.encode, value)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: [v],
        lambda v: {"k": v},
        lambda v: {200: v},
        lambda v: [200, v, 0.1],
        lambda v: ["x" * 90, v],
        lambda v: [v, [], {}],
    ],
    ids=["list", "dict", "int key", "mixed", "long", "wide"],
)
@pytest.mark.parametrize("levels", [126, 127, 128, 129, 130, 500])
def test_depth(peer: ModuleType, reference: ModuleType, make: Any, levels: int) -> None:
    value = nested(levels, make)
    assert outcome(peer.encode, value) == outcome(reference.encode, value)
    packed = msgpack.packb(value)
    assert outcome(peer.decode, packed) == outcome(reference.decode, packed)


@pytest.mark.parametrize("leaf", [[], {}, [1], {"a": 1}, 1, "x" * 300, b""], ids=repr)
@pytest.mark.parametrize("levels", [127, 128, 129])
def test_the_depth_of_what_is_long(peer: ModuleType, reference: ModuleType, leaf: Any, levels: int) -> None:
    """Too long for its length to tell, with the deepest part first, last, and behind much that is wide."""
    deep = leaf
    for _ in range(levels):
        deep = {"k": deep}
    for value in (deep, {"a": deep, "b": ["x" * 20_000]}, ["x" * 20_000, [EVENT] * 50, deep]):
        assert outcome(peer.encode, value) == outcome(reference.encode, value)


def test_timestamps(peer: ModuleType, reference: ModuleType) -> None:
    """Each form around the limits of its parts, and of datetime's."""
    rng = random.Random(5)
    seconds = [
        0,
        59,
        60,
        -1,
        2**31,
        2**32 - 1,
        2**34 - 1,
        253402300799,
        253402300800,
        -62135596800,
        2**63 - 1,
        -(2**63),
    ]
    parts = [0, 999, 1000, 1500, 999_999_999, 10**9, 1_999_999_999, 2 * 10**9, 2**30 - 1, 2**32 - 1]
    read = 0
    for second in [each + shift for each in seconds for shift in (-1, 0, 1)]:
        for nanos in [*parts, *(rng.randrange(2**32) for _ in range(5))]:
            for data in (
                b"\xd6\xff" + struct.pack(">I", second % 2**32),
                b"\xd7\xff" + struct.pack(">Q", nanos % 2**30 << 34 | second % 2**34),
                b"\xc7\x0c\xff" + struct.pack(">Iq", nanos, (second + 2**63) % 2**64 - 2**63),
                b"\xc7\x08\xff" + rng.randbytes(8),
            ):
                for document in (data, b"\x92" + data * 2, b"\x81\xa1a" + data, b"\x81" + data + b"\x01", data[:-1]):
                    ours = outcome(peer.decode, document)
                    assert repr(ours) == repr(outcome(reference.decode, document))
                    read += ours[0] == "result"
    assert read > 1000


def test_what_follows_the_value(peer: ModuleType, reference: ModuleType) -> None:
    """The package does not look at it; whatever it is, it is refused, and nothing behind the document is read."""
    whole = peer.encode(EVENT)
    for more in (b"\x00", whole, b"\xc4\x10" + bytes(16), bytes(500)):
        ours = outcome(peer.decode, whole + more)
        assert ours == outcome(reference.decode, whole + more)
        assert ours[0] == "error"
    for longer in (
        b"\xc4\x12",
        b"\xc4\x02",
        b"\xda\x00\x01",
        b"\x92\x01",
        b"\xdd\x00\x00\x00\x02\x01",
        b"\x81",
        b"\xa1",
    ):
        for data in (longer, b"\x91" + longer, b"\x81\xa1a" + longer):
            ours = outcome(peer.decode, data)
            assert ours == outcome(reference.decode, data)
            assert ours[0] == "error"


def test_random_values(peer: ModuleType, reference: ModuleType) -> None:
    """With values of the package here and there, and bytes that look like them everywhere."""
    rng = random.Random(3)
    looks = [196, 199, 200, 212, 0xC8C8, -1, 1 / 3, "ł" * 3, "ח" * 5, b"\xc8\x01\x00\x05", float("nan"), 2**63 + 0xC7]

    def value(depth: int) -> Any:
        kind = rng.randrange(11)
        if depth > 5 or kind < 5:
            return rng.choice(looks)
        if kind < 7:
            return [value(depth + 1) for _ in range(rng.choice([0, 1, 3, 20]))]
        if kind < 10:
            return {rng.choice(["k", "l", i, b"m"]): value(depth + 1) for i in range(rng.choice([0, 2, 18]))}
        return rng.choice([*OWN[:9], (1, 2), {1}, datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)])

    results = 0
    for _ in range(3000):
        made = value(0)
        ours = outcome(peer.encode, made)
        assert ours == outcome(reference.encode, made)
        if ours[0] == "result":
            results += 1
            assert repr(peer.decode(ours[1])) == repr(reference.decode(ours[1]))
    assert results > 500


def test_buffers_that_the_package_would_take(peer: ModuleType, reference: ModuleType) -> None:
    wide = b"".join(bytes([byte, 0]) for byte in b"\x92\x01\x02")
    for given in (memoryview(wide)[::2], memoryview(wide).cast("H"), "text", None, memoryview(b"\x92\x01\x02")[::-1]):
        assert outcome(peer.decode, given) == outcome(reference.decode, given)


def test_a_refusal_that_encodes_in_the_middle(peer: ModuleType) -> None:
    """`__del__` may run where the package makes its error, half a value behind it: no packer is used twice."""
    results: list[Any] = []

    class Loud:
        def __del__(self) -> None:
            results.append(peer.encode({"from": "inside"}))

    threshold = gc.get_threshold()
    try:
        gc.set_threshold(1, 1, 1)
        for _ in range(200):
            loud: Any = Loud()
            loud.me = loud
            del loud
            with pytest.raises(PayloadError):
                peer.encode({"a": [1, "x" * 50, {"b": object()}]})
            assert peer.encode(EVENT) == msgpack.packb(EVENT)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert len(results) == 200
    assert set(results) == {msgpack.packb({"from": "inside"})}


def test_signal_handlers_and_threads(peer: ModuleType) -> None:
    inside: list[bytes] = []
    wrong: list[Any] = []
    expected = msgpack.packb(EVENT)

    def work() -> None:
        for _ in range(3000):
            if peer.encode(EVENT) != expected or peer.decode(expected) != EVENT:
                wrong.append(1)

    old = signal.signal(signal.SIGALRM, lambda *_: inside.append(peer.encode(EVENT)))
    threads = [threading.Thread(target=work) for _ in range(4)]
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for thread in threads:
            thread.start()
        while not inside or any(thread.is_alive() for thread in threads):
            work()
    finally:
        silence(old)
        for thread in threads:
            thread.join(60)
    assert not wrong
    assert set(inside) == {expected}


def test_the_package_is_imported_on_first_use_only() -> None:
    code = (
        "import sys, cloud_runtimes, cloud_runtimes.codec.json\n"
        "assert 'ormsgpack' not in sys.modules\n"
        "from cloud_runtimes.codec import msgpack\n"
        "assert 'ormsgpack' not in sys.modules\n"
        "msgpack.decode(msgpack.encode({'a': 1}))\n"
        "assert 'ormsgpack' in sys.modules\n"
        "assert 'MessagePack by ormsgpack' in cloud_runtimes.native_status().reason\n"
    )
    run(code, CLOUD_RUNTIMES_NATIVE="off")


@pytest.mark.parametrize("how", ["not installed", "too old"])
def test_without_the_package(how: str) -> None:
    """Not installed, or one that is unsafe: the reference alone, and the status says so."""
    make = "None" if how == "not installed" else "types.SimpleNamespace(__version__='1.12.0')"
    code = (
        "import sys, types, cloud_runtimes\n"
        f"sys.modules['ormsgpack'] = {make}\n"
        "from cloud_runtimes.codec import msgpack\n"
        "assert msgpack.decode(msgpack.encode({'a': [1, 0.5]})) == {'a': [1, 0.5]}\n"
        "assert msgpack.decode(msgpack.encode({'a': ['x' * 10_000]})) == {'a': ['x' * 10_000]}\n"
        f"assert {how!r} in cloud_runtimes.native_status().reason\n"
    )
    run(code, CLOUD_RUNTIMES_NATIVE="off")


def test_without_orjson(peer: ModuleType, reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_dumps", peer._no_dumps)
    for value in (EVENT, {1: EVENT}, {"a": OWN[7]}, [b"x"], nested(129, lambda v: [v])):
        assert outcome(peer.encode, value) == outcome(reference.encode, value)


def run(code: str, **environment: str) -> None:
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
