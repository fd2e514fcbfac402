"""A file that is much larger than the memory that it takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import Figure, Rounds
from tests.support.objectstore import table

MIB = 1024 * 1024
LIMIT = 64 * MIB

_THROUGH = """
import asyncio
import hashlib
import json
import sys

from cloud_runtimes import CloudRuntimesClient

config, size, api = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
digests = [hashlib.sha256(), hashlib.sha256()]
piece = bytes(range(256)) * 4096


def peak():
    # that of getrusage begins with the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def chunks():
    for number in range(size // len(piece)):
        made = number.to_bytes(8, "big") + piece[8:]
        digests[0].update(made)
        yield made


def run(client):
    client.file.put_file("s", "warm", bytes(1024 * 1024))
    client.file.get_file("s", "warm")
    before = peak()
    assert client.file.put_file("s", "large", chunks()).size == size
    with client.file.open_file("s", "large") as file:
        for data in file.chunks():
            digests[1].update(data)
    return before


async def run_async(client):
    async def later():
        for each in chunks():
            yield each

    await client.file.put_file_async("s", "warm", bytes(1024 * 1024))
    await client.file.get_file_async("s", "warm")
    before = peak()
    assert (await client.file.put_file_async("s", "large", later())).size == size
    async with client.file.open_file("s", "large") as file:
        async for data in file.chunks():
            digests[1].update(data)
    return before


with CloudRuntimesClient(app_id="child", config=config, timeout=None) as client:
    before = run(client) if api == "sync" else asyncio.run(run_async(client))
    client.file.delete_file("s", "large")
assert digests[0].digest() == digests[1].digest()
print(peak() - before)
"""


@pytest.mark.process
@pytest.mark.parametrize("api", ["sync", pytest.param("async", marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_a_file(
    objectstore_url: str, bucket: str, api: str, rounds: Rounds, figure: Figure
) -> None:
    size = rounds(72, 5 * 1024) * MIB
    config = json.dumps({"file": {"s": table(objectstore_url, bucket)}})
    command = [sys.executable, "-c", _THROUGH, config, str(size), api]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    grown = int(done.stdout)
    assert grown < LIMIT
    figure(
        f"a file put into a bucket and read back ({api})",
        f"{size // MIB:,} MiB, the same bytes; memory grew by {grown / MIB:.0f} MiB, of {LIMIT // MIB} allowed",
    )
