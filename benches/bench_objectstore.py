"""Files in a bucket: put and get, beside obstore by hand and boto3.

The server is versitygw where ``OBJECTSTORE`` names one, else moto, which takes longer than any client.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from cloud_runtimes import CloudRuntimesClient
from tests.support.moto import serve
from tests.support.objectstore import buckets, s3, table

SIZES = {"361 B": (361, 100), "1 MiB": (1 << 20, 10), "256 MiB": (256 << 20, 1)}
"""Bytes, and calls of a slice."""
OBSTORE, BOTO = "obstore by hand", "boto3"
CLOCKS = {"wall clock": time.perf_counter, "client CPU": time.process_time}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ExitStack() as resources:
        yield os.environ.get("OBJECTSTORE") or resources.enter_context(serve()).url.replace("://", "://key:secret@")


@pytest.fixture(scope="module")
def bucket(url: str) -> str:
    return buckets(url)[0]


@pytest.fixture(scope="module")
def store(url: str, bucket: str) -> Any:
    settings = table(url, bucket)
    keys = {name: settings[name] for name in ("endpoint", "region", "access_key_id", "secret_access_key")}
    return S3Store(bucket, client_options={"allow_http": True, "timeout": "60s"}, **keys)


@pytest.fixture(scope="module")
def client(url: str, bucket: str) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(config={"file": {"s": table(url, bucket)}}, app_id="bench", timeout=60) as new_client:
        yield new_client


def content(length: int) -> bytes:
    """Return bytes of a length."""
    piece = random.randbytes(min(length, 1 << 20))
    return piece * (length // len(piece))


def times(count: int, call: Callable[[], Any]) -> Callable[[], None]:
    """Return a slice."""

    def run() -> None:
        for _ in range(count):
            call()

    return run


@pytest.mark.parametrize("size", SIZES)
def bench_put(
    beside: Any, note: Any, url: str, bucket: str, store: Any, client: CloudRuntimesClient, size: str
) -> None:
    """Bytes in memory become an object. obstore and boto3 choose by the size how."""
    length, count = SIZES[size]
    data, boto = content(length), s3(url)
    if length < 1000:
        server = boto.list_buckets()["ResponseMetadata"]["HTTPHeaders"].get("server", "unknown")
        note(f"the server: {server}; {os.getloadavg()[0]:.0f} other processes ran on {os.cpu_count()} cores")
    peers = {OBSTORE: times(count, lambda: obstore.put(store, "theirs", data))}
    if length < 1 << 28:
        peers[BOTO] = times(count, lambda: boto.put_object(Bucket=bucket, Key="boto", Body=data))
    beside(
        f"put {size}", times(count, lambda: client.file.put_file("s", "ours", data)), peers,
        goals={OBSTORE: 0.85}, per=count, slices=True, clocks=CLOCKS, unit="put",
    )  # fmt: skip
    assert client.file.get_file("s", "ours") == data


@pytest.mark.parametrize("size", SIZES)
def bench_get(beside: Any, url: str, bucket: str, store: Any, client: CloudRuntimesClient, size: str) -> None:
    """An object becomes `bytes`."""
    length, count = SIZES[size]
    data, boto = content(length), s3(url)
    client.file.put_file("s", "f", data)
    peers = {OBSTORE: times(count, lambda: obstore.get(store, "f").bytes().to_bytes())}
    if length < 1 << 28:
        peers[BOTO] = times(count, lambda: boto.get_object(Bucket=bucket, Key="f")["Body"].read())
    beside(
        f"get {size}", times(count, lambda: client.file.get_file("s", "f")), peers,
        goals={OBSTORE: 0.85}, per=count, slices=True, clocks=CLOCKS, unit="get",
    )  # fmt: skip
    assert client.file.get_file("s", "f") == data


@pytest.mark.parametrize("what", ["put", "get"])
def bench_async(beside: Any, store: Any, client: CloudRuntimesClient, what: str) -> None:
    """50 in flight."""
    data = random.randbytes(361)
    loop = asyncio.new_event_loop()

    async def ours() -> None:
        if what == "put":
            await asyncio.gather(*(client.file.put_file_async("s", f"ours-{n}", data) for n in range(50)))
        else:
            assert await asyncio.gather(*(client.file.get_file_async("s", "g") for n in range(50))) == [data] * 50

    async def got() -> bytes:
        return (await (await obstore.get_async(store, "g")).bytes_async()).to_bytes()

    async def theirs() -> None:
        if what == "put":
            await asyncio.gather(*(obstore.put_async(store, f"theirs-{n}", data) for n in range(50)))
        else:
            assert await asyncio.gather(*(got() for n in range(50))) == [data] * 50

    client.file.put_file("s", "g", data)
    beside(
        f"{what} 361 B, async, 50 in flight", lambda: loop.run_until_complete(ours()),
        {OBSTORE: lambda: loop.run_until_complete(theirs())}, goals={OBSTORE: 0.85},
        per=50, slices=True, clocks=CLOCKS, unit=what,
    )  # fmt: skip
    loop.close()
