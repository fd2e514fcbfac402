"""The calls that an application makes of a Dapr sidecar, by our runtime `dapr` and by the official SDK, and slices of them that keep each call's time."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from benches.dapr_servers import bus
from benches.rpc_callers import DATA, Loop
from cloud_runtimes import CloudRuntimesClient

__all__ = ["CALLS", "Slice", "async_calls", "sync_calls"]

Call = Callable[[], Any]
CALLS = ("state get", "state save", "publish", "invoke over HTTP")
TEXT = json.dumps(DATA)


class Slice:
    """So many calls, ``flight`` at a time, as one call of a bench; their times are kept."""

    def __init__(self, call: Call, count: int, flight: int, loop: Loop | None, pool: ThreadPoolExecutor) -> None:
        self._call = call
        self._count = count
        self._flight = flight
        self._loop = loop
        self._pool = pool
        self.taken: list[float] = []
        self.seconds: list[float] = []

    def __call__(self) -> None:
        began = time.perf_counter()
        if self._loop is not None:
            self._loop.run(self._together())
        elif self._flight == 1:
            self._some(self._count)
        else:
            list(self._pool.map(self._some, [self._count // self._flight] * self._flight))
        self.seconds.append(time.perf_counter() - began)

    def _some(self, count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            self._call()
            self.taken.append(time.perf_counter() - began)

    async def _some_async(self, count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await self._call()
            self.taken.append(time.perf_counter() - began)

    async def _together(self) -> None:
        await asyncio.gather(*(self._some_async(self._count // self._flight) for _ in range(self._flight)))

    def summary(self) -> str:
        """Return p50, p99 and calls a second of all slices."""
        taken = sorted(self.taken)
        p50, p99 = (taken[math.ceil(len(taken) * share) - 1] * 1000 for share in (0.5, 0.99))
        return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(taken) / sum(self.seconds):,.0f} calls a second"


def _point(http: str, grpc: str) -> None:
    """Have the SDK, whose settings are the process's, find the sidecar."""
    from dapr.conf import settings

    settings.DAPR_HTTP_PORT = urlsplit(http).port
    settings.DAPR_GRPC_PORT = int(grpc.rpartition(":")[2])


@contextmanager
def sync_calls(http: str, grpc: str) -> Iterator[dict[str, dict[str, Call]]]:
    """Return the calls of each client, by client and name."""
    from dapr.clients import DaprClient

    _point(http, grpc)
    with ExitStack() as stack:
        sdk = stack.enter_context(DaprClient())
        ours = {name: stack.enter_context(client) for name, client in _clients(http, grpc).items()}
        ours["ours"].state.save("store", "key", DATA)
        calls: dict[str, dict[str, Call]] = {
            "SDK": {
                "state get": lambda: json.loads(sdk.get_state("store", "key").data),
                "state save": lambda: sdk.save_state("store", "key", TEXT),
                "publish": lambda: sdk.publish_event(bus(), "topic", TEXT, data_content_type="application/json"),
                "invoke over HTTP": lambda: json.loads(
                    sdk.invoke_method("app", "echo", data=TEXT, content_type="application/json", http_verb="POST").data
                ),
            }
        }
        for name, client in ours.items():
            calls[name] = _ours(client, "")
        yield calls


@contextmanager
def async_calls(http: str, grpc: str, loop: Loop) -> Iterator[dict[str, dict[str, Call]]]:
    """Return the asynchronous calls of each client, by client and name."""
    from dapr.aio.clients import DaprClient

    _point(http, grpc)

    async def make() -> Any:
        return DaprClient()

    sdk = loop.run(make())

    async def decoded(call: Awaitable[Any]) -> Any:
        return json.loads((await call).data)

    ours = _clients(http, grpc)
    calls: dict[str, dict[str, Call]] = {
        "SDK": {
            "state get": lambda: decoded(sdk.get_state("store", "key")),
            "state save": lambda: sdk.save_state("store", "key", TEXT),
            "publish": lambda: sdk.publish_event(bus(), "topic", TEXT, data_content_type="application/json"),
            "invoke over HTTP": lambda: decoded(
                sdk.invoke_method("app", "echo", data=TEXT, content_type="application/json", http_verb="POST")
            ),
        }
    }
    for name, client in ours.items():
        calls[name] = _ours(client, "_async")
    try:
        yield calls
    finally:
        loop.run(sdk.close())
        for client in ours.values():
            loop.run(client.close_async())


def _clients(http: str, grpc: str) -> dict[str, CloudRuntimesClient]:
    """Return a client that knows both addresses, as those do that ``dapr run`` starts, and one that knows gRPC's alone."""
    both = {"dapr": {"grpc_endpoint": f"grpc://{grpc}"}}
    return {
        "ours": CloudRuntimesClient(http, config=both, app_id="app"),
        "gRPC": CloudRuntimesClient(f"grpc://{grpc}", app_id="app"),
    }


def _ours(client: CloudRuntimesClient, api: str) -> dict[str, Call]:
    get, save = getattr(client.state, f"get{api}"), getattr(client.state, f"save{api}")
    publish, invoke = getattr(client.pubsub, f"publish{api}"), getattr(client.rpc, f"invoke_method{api}")
    return {
        "state get": lambda: get("store", "key"),
        "state save": lambda: save("store", "key", DATA),
        "publish": lambda: publish(bus(), "topic", DATA),
        "invoke over HTTP": lambda: invoke("app", "echo", DATA),
    }
