"""Many callers at once, calls cancelled at every step, and requests that chance wrote."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import DeadlineExceededError, InternalError, ResourceExhaustedError, UnavailableError
from cloud_runtimes.rpc import RpcServer
from cloud_runtimes.testing import Api
from tests.rpc.http_peers import Raw
from tests.support import Rounds
from tests.support.waiting import longer


def _pools(client: CloudRuntimesClient) -> list[Any]:
    """The async pools that the registry's driver of a client uses."""
    driver: Any = client.rpc._frame.driver("there")
    return list(driver._store._component.peers._async._pools.values())


@pytest.mark.promise("E7")
def test_threads_and_loops_share_one_client(server: RpcServer, caller: CloudRuntimesClient) -> None:
    wrong: list[Any] = []

    def sync(number: int) -> None:
        for n in range(30):
            value = [number, n]
            if caller.rpc.invoke_method("there", "echo" if n % 2 else "echo-async", value) != value:
                wrong.append(value)

    async def one(number: int, n: int) -> None:
        value = [number, n]
        if await caller.rpc.invoke_method_async("there", "echo-async", value) != value:
            wrong.append(value)

    async def many(number: int) -> None:
        for _ in range(3):
            await asyncio.gather(*(one(number, n) for n in range(20)))

    threads = [threading.Thread(target=sync, args=(n,)) for n in range(12)]
    threads += [threading.Thread(target=lambda n=n: asyncio.run(many(n))) for n in (100, 200)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_more_calls_than_connections(server: RpcServer, caller: CloudRuntimesClient) -> None:
    async def main() -> None:
        calls = [caller.rpc.invoke_method_async("there", "echo-async", n) for n in range(250)]
        assert await asyncio.gather(*calls) == list(range(250))
        [pool] = _pools(caller)
        assert sum(map(len, pool._idle.values())) <= 100
        assert {slots._value for slots in pool._slots.values()} == {100}

    asyncio.run(main())


def test_large_bodies(server: RpcServer, caller: CloudRuntimesClient, api: Api) -> None:
    data = random.Random(1).randbytes(15 * 1024 * 1024)
    assert api.call(caller.rpc, "invoke_method", "there", "echo", data) == data
    pieces = [data[offset : offset + 1_000_000] for offset in range(0, len(data), 1_000_000)]
    assert api.call(caller.rpc, "invoke_method", "there", "echo", iter(pieces)) == data
    with pytest.raises((ResourceExhaustedError, UnavailableError)):  # a reset may overtake the answer
        api.call(caller.rpc, "invoke_method", "there", "echo", bytes(17 * 1024 * 1024))


@pytest.mark.parametrize("error", [OSError("mine"), TimeoutError("mine"), KeyError("mine")])
def test_a_stream_that_fails_says_so(
    server: RpcServer, caller: CloudRuntimesClient, api: Api, error: Exception
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise error

    begin = time.monotonic()
    with pytest.raises(InternalError, match="mine") as caught:
        api.call(caller.rpc, "invoke_method", "there", "echo", pieces())
    assert type(caught.value.__cause__) is type(error)
    assert caught.value.maybe_applied
    assert time.monotonic() - begin < 5


def test_a_stream_that_never_goes_on(server: RpcServer, caller: CloudRuntimesClient) -> None:
    begun: list[None] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        begun.append(None)
        await asyncio.sleep(60)

    async def main() -> None:
        for timeout in longer(lambda: begun):
            with pytest.raises(DeadlineExceededError) as caught:
                await caller.rpc.invoke_method_async("there", "echo", pieces(), timeout=timeout)
        assert caught.value.maybe_applied

    asyncio.run(main())


@pytest.mark.promise("E6")
def test_a_call_cancelled_at_every_step(server: RpcServer, caller: CloudRuntimesClient) -> None:
    async def main() -> None:
        assert await caller.rpc.invoke_method_async("there", "count") == 1
        outcomes: list[bool] = []
        for warm in (True, False):
            for step in range(60):
                if not warm:  # on a new connection, with its proof
                    for pool in _pools(caller):
                        pool.close()
                        pool.closed = False
                task = asyncio.ensure_future(caller.rpc.invoke_method_async("there", "count"))
                for _ in range(step):
                    await asyncio.sleep(0 if step < 40 else 0.0003)
                task.cancel()
                try:
                    await task
                    outcomes.append(True)
                except asyncio.CancelledError as error:
                    outcomes.append(getattr(error, "maybe_applied", False))
        ran = await caller.rpc.invoke_method_async("there", "count")
        assert ran - 2 <= sum(outcomes)  # whatever said that it was not applied was not
        assert False in outcomes
        [pool] = _pools(caller)
        assert {slots._value for slots in pool._slots.values()} == {100}
        assert sum(map(len, pool._idle.values())) <= 3

    asyncio.run(main())


@pytest.mark.promise("C5")
def test_nothing_leaks(server: RpcServer, home: Path, apart: None, rounds: Rounds) -> None:
    def descriptors() -> tuple[int, int]:
        """Count the descriptors of the store and all others. The store keeps as many readers as ever ran at once."""
        links = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # that of the listing
                links.append(os.readlink(f"/proc/self/fd/{name}"))
        store = sum(link.startswith(str(home.resolve())) for link in links)
        return store, len(links) - store

    async def cycle() -> None:
        async with CloudRuntimesClient(app_id="suite", config={"capa": {"home": str(home)}}) as client:
            assert client.rpc.invoke_method("there", "echo", 1) == 1
            assert await client.rpc.invoke_method_async("there", "echo-async", 2) == 2

    asyncio.run(cycle())
    time.sleep(0.2)
    (store, others), threads = descriptors(), threading.active_count()
    for _ in range(rounds(20, 500)):
        asyncio.run(cycle())
    end = time.monotonic() + 30
    while (descriptors()[1] > others or threading.active_count() > threads) and time.monotonic() < end:
        time.sleep(0.05)
    assert descriptors()[1] <= others
    assert descriptors()[0] <= store + 8  # two a reader
    assert threading.active_count() <= threads


def test_requests_that_chance_wrote(
    raw: Callable[[], Raw], token: str, caller: CloudRuntimesClient, rounds: Rounds
) -> None:
    chance = random.Random(20240917)
    good = (
        f"POST /echo?a=b HTTP/1.1\r\nhost: a\r\n{token}content-type: application/json\r\n"
        "content-length: 7\r\nconnection: close\r\n\r\n[1,2,3]"
    ).encode()
    for _ in range(rounds(300, 5000)):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            offset = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[offset] = chance.randrange(256)
            elif kind == 1:
                del data[offset : offset + chance.randint(1, 5)]
            elif kind == 2:
                data[offset:offset] = chance.choice(
                    [b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"transfer-encoding: chunked\r\n"]
                )
            else:
                data[offset:offset] = data[: chance.randint(1, 40)]
        connection = raw()
        connection.socket.settimeout(30)
        connection.send(bytes(data))
        connection.socket.shutdown(1)  # what is not whole will never be
        answer = connection.everything()
        connection.socket.close()
        assert b"HTTP/1.1 500" not in answer, bytes(data)
    assert caller.rpc.invoke_method("there", "echo", 1) == 1
