"""MessagePack that is not: bombs, rubbish, and a good value cut off at every byte."""

from __future__ import annotations

import datetime
import struct
from types import ModuleType

import pytest

from cloud_runtimes.errors import PayloadError

UTC = datetime.UTC


@pytest.mark.parametrize(
    "data", ["ddffffffff", "dfffffffff", "df80000000", "dbffffffff", "c6ffffffff", "c9ffffffff", "dcffff", "deffff"]
)
def test_length_bombs(impl: ModuleType, data: str) -> None:
    for prefix in ("", "91", "9201", "81a161"):
        with pytest.raises(PayloadError, match="at byte"):
            impl.decode(bytes.fromhex(prefix + data))
        with pytest.raises(PayloadError, match="at byte"):
            impl.decode(bytes.fromhex(prefix + data) + b"\x01" * 1000)


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


def test_a_million_levels(impl: ModuleType) -> None:
    for level in (b"\x91", b"\x81\xa0", b"\xdd\x00\x00\x00\x01"):
        with pytest.raises(PayloadError, match="deeper than 128"):
            impl.decode(level * 1_000_000 + b"\xc0")
