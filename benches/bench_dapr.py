"""Dapr: our runtime and the official SDK over one sidecar

The sidecar is ours, on SQLite in memory, or with the variable ``DAPRD`` the real one that it names, in memory; it is a process of its own before an application in another one. Both clients know both of its addresses, as under ``dapr run``; ours with gRPC alone is shown beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from benches.dapr_callers import CALLS, Slice, async_calls, sync_calls
from benches.dapr_servers import beside_application, kind
from benches.rpc_callers import DATA, Loop
from cloud_runtimes import CloudRuntimesClient
from tests.support.running import Addresses

FLIGHT = 50
COUNT = 200
"""Calls of a slice."""
GOALS = {"state get": 1.0, "state save": 1.0, "publish": 1.0, "invoke over HTTP": 1.0}
SYNC_INVOKE = 3.0


class Clients(NamedTuple):
    """The calls by API, client and name, and what runs them."""

    calls: dict[str, dict[str, dict[str, Any]]]
    loop: Loop
    pool: ThreadPoolExecutor

    def slice(self, api: str, client: str, name: str, flight: int) -> Slice:
        loop = self.loop if api == "async" else None
        return Slice(self.calls[api][client][name], COUNT, flight, loop, self.pool)


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with beside_application(tmp_path_factory.mktemp("sidecar")) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def clients(sidecar: Addresses) -> Iterator[Clients]:
    pytest.importorskip("dapr")
    loop = Loop()
    with ThreadPoolExecutor(FLIGHT) as pool:
        with sync_calls(sidecar.http, sidecar.grpc) as plain:
            with async_calls(sidecar.http, sidecar.grpc, loop) as asynchronous:
                yield Clients({"sync": plain, "async": asynchronous}, loop, pool)
    loop.close()


@pytest.mark.parametrize("flight", [1, FLIGHT])
@pytest.mark.parametrize("api", ["sync", "async"])
@pytest.mark.parametrize("name", CALLS)
def bench_call(
    clients: Clients, beside: Callable[..., Any], note: Callable[[str], None], name: str, api: str, flight: int
) -> None:
    goal = SYNC_INVOKE if (name, api) == ("invoke over HTTP", "sync") else GOALS[name]
    what = f"{name}, {api}, {'one caller' if flight == 1 else f'{flight} in flight'}"
    ours = clients.slice(api, "ours", name, flight)
    peers = {"SDK": clients.slice(api, "SDK", name, flight)}
    if name != "invoke over HTTP":
        peers["ours over gRPC"] = clients.slice(api, "gRPC", name, flight)
    for each in (ours, *peers.values()):  # what is loaded or connected by the first calls is no part of it
        each()
        each.taken.clear()
        each.seconds.clear()
    beside(what, ours, peers, goals={"SDK": goal}, per=COUNT, slices=True)
    note(f"{what}, by the sidecar {kind()}: ours {ours.summary()}; SDK {peers['SDK'].summary()}")


def bench_invoke_of_the_caller(clients: Clients, beside: Callable[..., Any]) -> None:
    """Processor time of the caller for a call, without that of sidecar and application."""
    name = "invoke over HTTP"
    ours, sdk = (clients.calls["sync"][each][name] for each in ("ours", "SDK"))
    assert ours() == sdk() == DATA
    beside(f"{name}, sync, processor time of the caller", ours, {"SDK": sdk}, goals={"SDK": SYNC_INVOKE})


def bench_rpc_in_process(sidecar: Addresses, beside: Callable[..., Any]) -> None:
    with CloudRuntimesClient(app_id="bench", config={"capa": {"home": ":memory:"}}) as here:
        here.rpc.register_method("echo", lambda data: data)
        with CloudRuntimesClient(sidecar.http, app_id="app") as client:
            _inside(
                beside,
                "RPC in the process",
                lambda: here.rpc.invoke_method("bench", "echo", DATA),
                lambda: client.rpc.invoke_method("app", "echo", DATA),
                50,
            )


def bench_state_in_process(sidecar: Addresses, beside: Callable[..., Any], tmp_path: Any) -> None:
    with CloudRuntimesClient(app_id="bench", config={"capa": {"home": str(tmp_path)}}) as here:
        here.state.save("store", "key", DATA)
        with CloudRuntimesClient(sidecar.http, app_id="app") as client:
            client.state.save("store", "key", DATA)
            _inside(
                beside,
                "state.get in the process, from a file",
                lambda: here.state.get("store", "key"),
                lambda: client.state.get("store", "key"),
                10,
            )


def _inside(beside: Callable[..., Any], what: str, ours: Any, over: Any, goal: float) -> None:
    assert ours() == over() == DATA
    pool: Any = None
    fast, slow = Slice(ours, 50 * COUNT, 1, None, pool), Slice(over, COUNT, 1, None, pool)
    for each in (fast, slow):
        each()
    name = "over our sidecar on loopback HTTP"
    beside(what, fast, {name: slow}, goals={name: goal}, per=50 * COUNT, each={name: COUNT}, slices=True)
