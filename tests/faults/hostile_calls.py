"""A program that calls hostile servers, all at once, in both APIs: reads ``{"kind", "closed", "servers", "at_once"}`` from its input and writes what came of it, as JSON."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError

_URLS = {"nats": "nats://u:p@127.0.0.1:{}", "redis": "redis://127.0.0.1:{}", "etcd": "etcd://127.0.0.1:{}"}


def _client(kind: str, port: int, timeout: float) -> CloudRuntimesClient:
    config: dict[str, Any]
    if kind == "http":
        config = {"dapr": {"http_endpoint": f"http://127.0.0.1:{port}"}}
        return CloudRuntimesClient(app_id="suite", runtime="dapr", config=config, timeout=timeout)
    if kind == "rabbitmq":
        config = {"pubsub": {"bus": {"component": kind, "url": f"amqp://127.0.0.1:{port}"}}}
    else:
        config = {"state": {"s": {"component": kind, "url": _URLS[kind].format(port)}}}
    return CloudRuntimesClient(app_id="suite", runtime="capa", config=config, timeout=timeout)


def _call(client: CloudRuntimesClient, kind: str) -> None:
    if kind == "rabbitmq":
        client.pubsub.publish("bus", "topic", {"a": 1})
    else:
        client.state.get("s", "k")


async def _call_async(client: CloudRuntimesClient, kind: str) -> None:
    if kind == "rabbitmq":
        await client.pubsub.publish_async("bus", "topic", {"a": 1})
    else:
        await client.state.get_async("s", "k")


def _came(api: str, name: str, begun: float, error: BaseException | None) -> dict[str, Any]:
    return {
        "api": api,
        "name": name,
        "seconds": time.monotonic() - begun,
        "error": type(error).__name__,
        "ours": isinstance(error, CloudRuntimesError),
        "text": str(error),
    }


class _Turns:
    """The longest that a turn of a loop computed."""

    longest = 0.0

    def __init__(self) -> None:
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            begun = time.thread_time()
            try:
                run(handle)
            finally:
                self.longest = max(self.longest, time.thread_time() - begun)

        asyncio.Handle._run = timed  # type: ignore[method-assign]


def _most_memory() -> int:
    """Return the most bytes that this process has had; `resource` tells those of the process that started it."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def main() -> None:
    given = json.load(sys.stdin)
    kind, servers, at_once = given["kind"], given["servers"], given["at_once"]
    clients = {name: _client(kind, *server) for name, server in servers.items()}
    warm = _client(kind, given["closed"], 5.0)  # all modules are imported once it has failed
    with suppress(CloudRuntimesError):
        _call(warm, kind)
    with suppress(CloudRuntimesError):
        asyncio.run(_call_async(warm, kind))
    before = _most_memory()

    def one(name: str) -> dict[str, Any]:
        begun = time.monotonic()
        try:
            _call(clients[name], kind)
        except BaseException as error:
            return _came("sync", name, begun, error)
        return _came("sync", name, begun, None)

    async def one_async(name: str, limiter: asyncio.Semaphore) -> dict[str, Any]:
        async with limiter:
            begun, failed = time.monotonic(), None
            try:
                await _call_async(clients[name], kind)
            except BaseException as error:
                failed = error
            came = _came("async", name, begun, failed)
            await clients[name].close_async()  # which ends what it is flooded with
            return came

    async def all_async() -> list[dict[str, Any]]:
        limiter = asyncio.Semaphore(at_once)
        return await asyncio.gather(*[one_async(name, limiter) for name in clients])

    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(one, clients))
    for client in clients.values():
        client.close()
    clients = {name: _client(kind, *server) for name, server in servers.items()}
    turns = _Turns()
    results += asyncio.run(all_async())
    json.dump({"results": results, "turn": turns.longest, "grown": _most_memory() - before}, sys.stdout)


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    main()
