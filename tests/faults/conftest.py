"""A sidecar, a faulty way to it, and what looks for leaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import server
from cloud_runtimes.runtimes._sidecar.channel import Channel
from cloud_runtimes.runtimes.layotto.transport import LayottoTransport
from cloud_runtimes.testing import Api
from tests.faults.fault_harnesses import FAULTS, Beneath
from tests.support.fault_proxy import FaultProxy

_THEIRS = (
    "asyncio_", "cloud-runtimes-executor", "cloud-runtimes-poller", "cloud-runtimes-rpc-worker",
    "cloud-runtimes-scheduler", "cloud-runtimes-writer", "fake-layotto", "fault-proxy",
)  # fmt: skip
"""Threads of the sidecar, its application and the tests, which stay; those of the sidecar's subscriptions are to end with their streams."""


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Have connections that are asked whether they live asked often, and let them."""
    with pytest.MonkeyPatch.context() as patched:
        peers = dict(server._PEERS) | {"grpc.http2.min_ping_interval_without_data_ms": 50}
        patched.setattr(server, "_PEERS", tuple(peers.items()))
        for kind in (Channel, LayottoTransport):
            patched.setattr(kind, "connecting", 1.5)
            patched.setattr(kind, "keepalive", 1.0)
            patched.setattr(kind, "keepalive_answer", 1.0)
        yield


@pytest.fixture(scope="module", params=FAULTS)
def beneath(request: pytest.FixtureRequest, quick: None) -> Iterator[Beneath]:
    """A sidecar for all tests of a module."""
    harness = FAULTS[request.param]()
    yield harness
    harness.close()


@pytest.fixture
def proxy(beneath: Beneath) -> Iterator[FaultProxy]:
    with FaultProxy(beneath.port) as instance:
        yield instance


@pytest.fixture
def connect(beneath: Beneath, proxy: FaultProxy, api: Api) -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Return what makes clients of the sidecar behind the proxy. At the end nothing of them may be left: no task, thread or socket."""
    before = set(threading.enumerate())
    clients: list[CloudRuntimesClient] = []

    def make(**arguments: Any) -> CloudRuntimesClient:
        client = beneath.client(arguments.pop("port", proxy.port), **arguments)
        clients.append(client)
        return client

    yield make
    for client in clients:
        api.call(client, "close")
    beneath.forget()
    remaining: Any = None
    end = time.monotonic() + 15
    while time.monotonic() < end:
        threads = [each.name for each in set(threading.enumerate()) - before if not each.name.startswith(_THEIRS)]
        remaining = tasks(api), sorted(threads), proxy.sockets()
        if remaining == (0, [], 0):
            return
        api.pause(0.01)
    pytest.fail(f"left behind: {remaining[0]} tasks, threads {remaining[1]}, {remaining[2]} sockets")


def tasks(api: Api) -> int:
    """Return how many tasks the API's loop has."""
    if api.name == "sync":
        return 0

    async def count() -> int:
        import asyncio

        return len(asyncio.all_tasks()) - 1

    total: int = api.run(count())
    return total
