"""etcd 3.4: values of 361 bytes, beside grpcio with the bytes of its messages made by hand, and aetcd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benches.engine_peers import EVENT
from benches.postgres_peers import in_flight, in_flight_async
from cloud_runtimes import CloudRuntimesClient
from tests.support import etcd

CALLS = 1000
FLIGHT = 50
KEY = b"key"
DATA = bytes(361)
# RangeRequest and PutRequest; their answers stay bytes
ASKED = {"get": ("Range", b"\x0a\x03key"), "save": ("Put", b"\x0a\x03key\x12\xe9\x02" + DATA)}


@pytest.fixture(scope="module")
def server() -> Iterator[etcd.EtcdServer]:
    with etcd.serve() as running:
        yield running


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    event_loop = asyncio.new_event_loop()
    yield event_loop
    event_loop.close()


def plain(data: bytes) -> bytes:
    return data


def by_hand(grpc: Any, port: int, name: str) -> Callable[[], Any]:
    """Return a call of grpcio's; the module says which API."""
    method, message = ASKED[name]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_unary(f"/etcdserverpb.KV/{method}", request_serializer=plain, response_deserializer=plain)
    return lambda: call(message, timeout=30)


async def client_of(port: int) -> Any:
    import aetcd

    client = aetcd.Client(host="127.0.0.1", port=port)
    await client.connect()
    return client


@pytest.mark.parametrize("flight", [1, FLIGHT])
@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize("name", ["get", "save"])
def bench_state(
    beside: Any, note: Any, server: etcd.EtcdServer, loop: asyncio.AbstractEventLoop, name: str, api: str, flight: int
) -> None:
    """A key that is there."""
    import grpc
    import grpc.aio

    note("aetcd has no sync API: the sync calls of ours stand beside its asynchronous ones.")
    aetcd = loop.run_until_complete(client_of(server.port))
    loop.run_until_complete(aetcd.put(KEY, DATA))
    values = (EVENT,) if name == "save" else ()
    with (
        CloudRuntimesClient(app_id="bench", config={"capa": {"home": server.url}}) as client,
        ThreadPoolExecutor(FLIGHT) as pool,
    ):
        client.state.save("store", "key", EVENT)
        method = getattr(client.state, name if api == "sync" else f"{name}_async")

        def runs(call: Callable[[], Any], kind: str = api) -> Callable[[], None]:
            if kind == "sync":
                return in_flight(call, CALLS, flight, pool)
            return in_flight_async(call, CALLS, flight, loop)

        async def connect() -> Callable[[], Any]:
            return by_hand(grpc.aio, server.port, name)

        hand = by_hand(grpc, server.port, name) if api == "sync" else loop.run_until_complete(connect())
        library = (lambda: aetcd.get(KEY)) if name == "get" else (lambda: aetcd.put(KEY, DATA))
        beside(
            f"state {name}, {api}, {'one caller' if flight == 1 else f'{flight} in flight'}",
            runs(lambda: method("store", "key", *values)),
            {"grpcio, bytes by hand": runs(hand), "aetcd": runs(library, "async")},
            goals={"grpcio, bytes by hand": 1} | ({"aetcd": 1.3} if api == "async" else {}),
            per=CALLS,
            slices=True,
        )
        assert client.state.get("store", "key") == EVENT
    loop.run_until_complete(aetcd.close())
