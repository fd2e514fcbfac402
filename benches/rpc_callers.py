"""A POST with a small JSON body and its decoded answer, by each client that a user would take, at default settings."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cloud_runtimes import CloudRuntimesClient

DATA = {"key": "value", "number": 12, "list": [1, 2, 3]}
PREFIX = "/v1.0/invoke/bench/method"
"""The path that Dapr's SDK asks for, so that all ask for the same."""

Call = Callable[[], Any]
AsyncCall = Callable[[], Awaitable[Any]]


def _client(port: int) -> CloudRuntimesClient:
    address = f"http://127.0.0.1:{port}{PREFIX}"
    return CloudRuntimesClient(
        app_id="caller", config={"capa": {"home": ":memory:"}, "rpc": {"bench": {"address": address}}}
    )


@contextmanager
def ours(port: int) -> Iterator[Call]:
    with _client(port) as client:
        yield lambda: client.rpc.invoke_method("bench", "echo", DATA)


@contextmanager
def http_client(port: int) -> Iterator[Call]:
    """``http.client`` with a connection kept by each thread, as one would write it."""
    import threading

    local = threading.local()
    connections = []

    def call() -> Any:
        connection = getattr(local, "connection", None)
        if connection is None:
            connection = local.connection = http.client.HTTPConnection("127.0.0.1", port)
            connections.append(connection)
        connection.request("POST", f"{PREFIX}/echo", json.dumps(DATA), {"content-type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        return json.loads(response.read())

    yield call
    for each in connections:
        each.close()


@contextmanager
def httpx_sync(port: int) -> Iterator[Call]:
    import httpx2 as httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{port}{PREFIX}") as client:
        yield lambda: client.post("/echo", json=DATA).raise_for_status().json()


@contextmanager
def dapr(port: int) -> Iterator[Call]:
    """The Dapr SDK's sync invoke over HTTP, as its own documentation has it."""
    from dapr.clients import DaprClient
    from dapr.conf import settings

    settings.DAPR_HTTP_PORT = port
    body = json.dumps(DATA)

    with DaprClient() as client:

        def call() -> Any:
            answer = client.invoke_method("bench", "echo", data=body, content_type="application/json", http_verb="POST")
            return json.loads(answer.data)

        yield call


@contextmanager
def ours_async(port: int) -> Iterator[tuple[AsyncCall, Callable[[], Awaitable[None]]]]:
    client = _client(port)
    yield lambda: client.rpc.invoke_method_async("bench", "echo", DATA), client.close_async


@contextmanager
def aiohttp_async(port: int) -> Iterator[tuple[AsyncCall, Callable[[], Awaitable[None]]]]:
    import aiohttp

    sessions: list[aiohttp.ClientSession] = []
    address = f"http://127.0.0.1:{port}{PREFIX}/echo"

    async def call() -> Any:
        if not sessions:
            sessions.append(aiohttp.ClientSession())
        async with sessions[0].post(address, json=DATA) as response:
            assert response.status == 200
            return await response.json()

    async def close() -> None:
        for session in sessions:
            await session.close()

    yield call, close


@contextmanager
def httpx_async(port: int) -> Iterator[tuple[AsyncCall, Callable[[], Awaitable[None]]]]:
    import httpx2 as httpx

    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{PREFIX}")

    async def call() -> Any:
        return (await client.post("/echo", json=DATA)).raise_for_status().json()

    yield call, client.aclose


SYNC: dict[str, Any] = {"ours": ours, "http.client": http_client, "httpx2": httpx_sync, "dapr": dapr}
ASYNC: dict[str, Any] = {"ours": ours_async, "aiohttp": aiohttp_async, "httpx2": httpx_async}


class Loop:
    """A running loop for the async callers of one bench."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def run(self, flow: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(flow)

    def close(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
