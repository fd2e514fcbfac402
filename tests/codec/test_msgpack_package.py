"""The fallback over the package `msgpack`: when one call of it does, and where it differs from our rules and must not show."""

from __future__ import annotations

import datetime
import gc
import importlib
import random
import struct
import subprocess
import sys
import sysconfig
import threading
from types import ModuleType
from typing import Any

import msgpack
import pytest

from cloud_runtimes.errors import PayloadError
from tests.codec.conftest import PYTHON
from tests.support import Rounds
from tests.support.alarms import alarms

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
def python() -> ModuleType:
    return importlib.import_module(PYTHON)


def nested(levels: int, make: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


def outcome(function: Any, value: Any) -> tuple[str, Any]:
    try:
        return "result", function(value)
    except PayloadError as error:
        return "error", str(error)


def fail(*_: Any) -> Any:
    raise AssertionError("the long way was taken")


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="without a GIL it encodes the long way")
def test_one_call_of_the_package_does(
    python: ModuleType, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for value in (
        EVENT,
        {**EVENT, "data": b"\x00\xc8"},
        {**EVENT, "data": bytearray(b"abc")},
        {**EVENT, "data": memoryview(b"abc")},
        [EVENT] * 10,
        {"t": "x" * 8000},
        [0] * 500,
        {str(i): [i] for i in range(200)},
        [[0] * 60] * 60,
        nested(100, lambda v: [v, "x" * 50]),
        {5: EVENT, None: 1, b"k": 2, 0.5: {True: 3}},
        {},
        [],
        "a",
        None,
        5,
    ):
        with subtests.test(value=value):
            monkeypatch.setattr(python, "converted", fail)
            monkeypatch.setattr(python, "_check", fail)
            out = python.encode(value)
            assert out == msgpack.packb(value)
            for data in (out, bytearray(out), memoryview(out)):
                assert python.decode(data) == value
            moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 6000, tzinfo=datetime.UTC)
            back = python.decode(msgpack.packb({"at": moment}, datetime=True))["at"]
            assert back == moment
            assert back.tzinfo is datetime.UTC


class Extension(msgpack.ExtType):
    """A tuple as well, and none of the package's own types."""


OWN: list[Any] = [
    msgpack.ExtType(5, b"x"),
    msgpack.ExtType(0, b""),
    msgpack.ExtType(127, b"x" * 70_000),
    tuple.__new__(msgpack.ExtType, (5, "no bytes")),
    Extension(5, b"x"),
    msgpack.Timestamp(1, 5),
    msgpack.Timestamp(-1, 999_999_999),
    memoryview(b"abc"),
    memoryview(b"x" * 70_000),
    memoryview(b"abcd")[::2],
    memoryview(b"abcd").cast("H"),
]


@pytest.mark.native_only
def test_values_of_the_package_and_memoryviews(twins: tuple[ModuleType, ModuleType], subtests: pytest.Subtests) -> None:
    """Alone, as a value, in a list, as a key, beside little and beside much, and beside what is converted."""
    for own in OWN:
        with subtests.test(own=own):
            native, python = twins
            values: list[Any] = [own, {"a": own}, [own], {**EVENT, "z": own}, [EVENT] * 20 + [own], [b"", own], (own,)]
            if not (isinstance(own, memoryview) and own.format != "B"):
                values += [{own: 1}, {"a": {own: own}}, ({own: 1},)]
            for value in values:
                assert outcome(python.encode, value) == outcome(native.encode, value)


def test_the_types_of_the_package_are_what_it_makes_of_them(impl: ModuleType) -> None:
    extension, moment = msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 5)
    for value in (extension, moment, [extension, moment], {extension: moment, moment: extension}):
        assert impl.encode(value) == msgpack.packb(value)
    assert impl.encode(({b"k": extension},)) == msgpack.packb([{b"k": extension}])
    assert impl.decode(impl.encode(moment)) == datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)
    with pytest.raises(PayloadError, match="extension type 5"):
        impl.decode(impl.encode(extension))


@pytest.mark.native_only
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
def test_depth(twins: tuple[ModuleType, ModuleType], make: Any, levels: int) -> None:
    native, python = twins
    value = nested(levels, make)
    assert outcome(python.encode, value) == outcome(native.encode, value)
    packed = msgpack.packb(value)
    assert outcome(python.decode, packed) == outcome(native.decode, packed)


@pytest.mark.native_only
@pytest.mark.parametrize("leaf", [[], {}, [1], {"a": 1}, 1, "x" * 300, b""], ids=repr)
@pytest.mark.parametrize("levels", [127, 128, 129])
def test_the_depth_of_what_is_long(twins: tuple[ModuleType, ModuleType], leaf: Any, levels: int) -> None:
    """With the deepest part first, last, and behind much that is wide."""
    native, python = twins
    deep = leaf
    for _ in range(levels):
        deep = {"k": deep}
    for value in (deep, {"a": deep, "b": ["x" * 5_000]}, ["x" * 20_000, [EVENT] * 50, deep], [[0] * 200, deep]):
        assert outcome(python.encode, value) == outcome(native.encode, value)
        packed = msgpack.packb(value)
        assert outcome(python.decode, packed) == outcome(native.decode, packed)


@pytest.mark.native_only
def test_timestamps(twins: tuple[ModuleType, ModuleType]) -> None:
    """Each form around the limits of its parts, and of datetime's."""
    native, python = twins
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
                    ours = outcome(python.decode, document)
                    assert repr(ours) == repr(outcome(native.decode, document))
                    read += ours[0] == "result"
    assert read > 1000


@pytest.mark.native_only
def test_random_values(twins: tuple[ModuleType, ModuleType], rounds: Rounds) -> None:
    """With values of the package here and there."""
    native, python = twins
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
        return rng.choice([*OWN, (1, 2), {1}, datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)])

    results = 0
    count = rounds(750, 30_000)
    for _ in range(count):
        original = value(0)
        ours = outcome(python.encode, original)
        assert ours == outcome(native.encode, original)
        if ours[0] == "result":
            results += 1
            assert repr(outcome(python.decode, ours[1])) == repr(outcome(native.decode, ours[1]))
    assert results > count / 6


@pytest.mark.native_only
def test_buffers_that_the_package_would_take(twins: tuple[ModuleType, ModuleType]) -> None:
    native, python = twins
    wide = b"".join(bytes([byte, 0]) for byte in b"\x92\x01\x02")
    for given in (memoryview(wide)[::2], memoryview(wide).cast("H"), "text", None, memoryview(b"\x92\x01\x02")[::-1]):
        assert outcome(python.decode, given) == outcome(native.decode, given)


def test_a_refusal_that_encodes_in_the_middle(python: ModuleType) -> None:
    """`__del__` may run where the package makes its error, half a value behind it: no packer is used twice."""
    results: list[Any] = []

    class Loud:
        def __del__(self) -> None:
            results.append(python.encode({"from": "inside"}))

    threshold = gc.get_threshold()
    try:
        gc.set_threshold(1, 1, 1)
        for _ in range(200):
            loud: Any = Loud()
            loud.me = loud
            del loud
            with pytest.raises(PayloadError):
                python.encode({"a": [1, "x" * 50, {"b": object()}]})
            assert python.encode(EVENT) == msgpack.packb(EVENT)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert len(results) == 200
    assert set(results) == {msgpack.packb({"from": "inside"})}


def test_signal_handlers_and_threads(python: ModuleType) -> None:
    inside: list[bytes] = []
    wrong: list[Any] = []
    expected = msgpack.packb(EVENT)

    def work() -> None:
        for _ in range(3000):
            if python.encode(EVENT) != expected or python.decode(expected) != EVENT:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with alarms(lambda: inside.append(python.encode(EVENT)), 0.0005):
        for thread in threads:
            thread.start()
        while not inside or any(thread.is_alive() for thread in threads):
            work()
    assert not wrong
    assert set(inside) == {expected}


def test_long_values_leave_no_memory_behind(python: ModuleType) -> None:
    python.encode("x" * 10_000_000)
    assert sum(map(sys.getsizeof, python._packers)) < 1_000_000
    python.encode(EVENT)
    assert len(python._packers) <= 8


def test_without_the_package() -> None:
    """Installed without dependencies, all but MessagePack works, and the error names what to install."""
    code = (
        "import sys\n"
        "sys.modules['msgpack'] = None\n"
        "import cloud_runtimes\n"
        "from cloud_runtimes.codec import json, msgpack\n"
        "from cloud_runtimes.errors import PayloadError\n"
        "assert 'msgpack is not installed' in cloud_runtimes.native_status().reason\n"
        "assert json.encode({'a': 1}) == b'{\"a\":1}'\n"
        "for call in (lambda: msgpack.encode(1), lambda: msgpack.decode(b'1')):\n"
        "    try:\n"
        "        call()\n"
        "        sys.exit('no error')\n"
        "    except (ImportError, PayloadError) as error:\n"
        "        assert 'pip install msgpack' in str(error), error\n"
    )
    run(code, CLOUD_RUNTIMES_NATIVE="off")


@pytest.mark.native_only
def test_the_compiled_kernel_does_not_load_it() -> None:
    run(
        "import sys\n"
        "from cloud_runtimes.codec import msgpack\n"
        "assert msgpack.decode(msgpack.encode({'a': (1, 2)})) == {'a': [1, 2]}\n"
        "assert 'msgpack' not in sys.modules\n",
        CLOUD_RUNTIMES_NATIVE="require",
    )


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
