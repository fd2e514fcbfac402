"""Limits of what decoding allocates, in both kernels.

**Refused** MessagePack takes at most twice its length and 1 MiB. So does refused JSON that is beyond a limit or cut
off. (orjson reads the rest into a tree of its own, up to nine times as large as the document.)

**Accepted** MessagePack takes at most 80 bytes an item (an element of an array, or a key with its value), and 1 MiB.
This holds for None, bool, numbers, short texts, lists and empty maps: CPython's own objects. Measured on CPython
3.11: 8 for None and small ints, 40 for a float, 56 for an int of 64 bits, 64 to 80 for an empty list, 72 for a text
of four letters or an empty dict.

Longer text adds its length, up to four times where it has characters beyond the first plane. Entries of a dict take
more, and no decoder can change that: 106 each in one large dict, 200 to 264 for a dict of a single entry with its
content. The test says 180 an item.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.errors import PayloadError
from tests.codec import allocation
from tests.codec.conftest import PYTHON, load_native

MIB = 1 << 20
KERNELS = [
    pytest.param("cloud_runtimes._native._msgpack", id="native", marks=pytest.mark.native_only),
    pytest.param(PYTHON, id="python"),
]
READERS = [
    pytest.param("cloud_runtimes._native._payload", id="native", marks=pytest.mark.native_only),
    pytest.param("cloud_runtimes._native.payload_py", id="python"),
]
# bytes an item, where CPython's own objects take more than 80
MORE = {"small maps": 180, "one map": 180}


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(allocation.__file__).parent,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(module: str, function: str, table: str) -> list[dict[str, Any]]:
    if not module.endswith("_py"):
        load_native()
    results = [json.loads(line) for line in run(allocation.__file__, module, function, table).splitlines()]
    assert [each["name"] for each in results] == list(getattr(allocation, table))
    return results


@pytest.mark.parametrize("module", KERNELS)
def test_messagepack(module: str, figure: Any, subtests: pytest.Subtests) -> None:
    refused(measured(module, "decode", "BAD"), subtests)
    for one in measured(module, "decode", "GOOD"):
        name = one["name"]
        with subtests.test(name=name):
            assert one["accepted"]
            each = one["grown"] / one["items"]
            figure(f"memory of decoded MessagePack, {name}, {module.rpartition('.')[2]}", f"{each:.0f} B an item")
            assert one["grown"] <= MORE.get(name, 80) * one["items"] + MIB


@pytest.mark.parametrize("module", READERS)
def test_json(module: str, subtests: pytest.Subtests) -> None:
    refused(measured(module, "decode_json", "JSON"), subtests)


def refused(results: list[dict[str, Any]], subtests: pytest.Subtests) -> None:
    for one in results:
        with subtests.test(name=one["name"]):
            assert not one["accepted"]
            assert one["grown"] <= 2 * one["bytes"] + MIB


def asked_for(impl: Any, data: bytes, match: str | None = None) -> None:
    """Memory that is asked for and not touched counts as well: through Python's allocators, which the kernels use."""
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match=match):
            impl.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 2 * len(data) + MIB


def test_what_is_asked_for(impl: Any, subtests: pytest.Subtests) -> None:
    for name, make in allocation.BAD.items():
        with subtests.test(name=name):
            asked_for(impl, make()[:300_000])


def test_short_input_that_ends_badly(impl: Any, subtests: pytest.Subtests) -> None:
    """Below the size from which input is checked first, the most that it can become is less than 1 MiB."""
    for unit in (b"\x90", b"\x80", b"\x81\0\xc0", b"\x81\xa1a\xc0", b"\xc4\0", b"\xa2ab", b"\xdc\0\0", b"\x92\x90\x90"):
        for size in (1000, 8192, 8193):
            with subtests.test(unit=unit, size=size):
                count = (size - 4) // len(unit)
                asked_for(impl, b"\xdc" + (count + 1).to_bytes(2, "big") + unit * count + b"\xc1", match="0xC1")


def test_the_process_measures() -> None:
    """A decoder that keeps ten times its input is seen."""
    program = """
import allocation
kept = []
print(*allocation.peak(lambda data: kept.append(data * 10) or 1, b"x" * (1 << 20)))
"""
    grown, accepted = run("-c", program).split()
    assert accepted == "True"
    assert int(grown) >= 9 * MIB
