"""Overhead of the frame: a service call less a direct call of its driver, over a driver that returns a constant.

Each run counts the functions that it enters, which is the same on every machine. At full length it is timed as well:
slices of both are interleaved, in process time and without the garbage collector. The best slices are compared, the
medians are noted.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes._service import Service
from cloud_runtimes.client import SERVICES
from cloud_runtimes.resiliency.interceptor import PolicyInterceptor
from cloud_runtimes.resiliency.settings import load
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.telemetry.interceptor import SpanInterceptor
from cloud_runtimes.telemetry.interceptor import _Description as Description
from tests.support import Figure, Rounds
from tests.support.harnesses.state_fakes import DictStateRuntime
from tests.support.policies_fakes import ConstantState, no_file

T = TypeVar("T")

CALLS = 500
SLICES = 60

_METHOD = Method("state", "get", repeatable=True, writes=False)


@pytest.fixture
def constant() -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(runtime=DictStateRuntime(ConstantState, {}, Clocks()), app_id="test") as client:
        assert client.state.get("store", "k") == b"\x00"
        yield client


def drive(flow: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends, without a loop's own cost."""
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it suspended")


def timed(body: Callable[[], Any]) -> float:
    """Return nanoseconds for one of `CALLS` calls."""
    begin = time.process_time_ns()
    for _ in range(CALLS):
        body()
    return (time.process_time_ns() - begin) / CALLS


def difference(more: Callable[[], Any], less: Callable[[], Any]) -> tuple[float, float]:
    """Return the difference of the best slices and of the medians, in nanoseconds."""
    gc.collect()
    gc.disable()
    try:
        pairs = [(timed(more), timed(less)) for _ in range(SLICES)]
    finally:
        gc.enable()
    mine, other = zip(*pairs, strict=True)
    return min(mine) - min(other), statistics.median(mine) - statistics.median(other)


def entered(body: Callable[[], Any]) -> int:
    """Return how many functions, of Python and of C, a call of ``body`` enters."""
    count = 0

    def see(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    body()  # what the first call makes is no part of it
    before = sys.getprofile()
    sys.setprofile(see)
    try:
        body()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture
def costs(rounds: Rounds, figure: Figure) -> Callable[..., None]:
    """Hold what ``more`` costs over ``less`` to a number of functions and, at full length, to microseconds."""

    def hold(name: str, more: Callable[[], Any], less: Callable[[], Any], functions: int, limit: float) -> None:
        count = entered(more) - entered(less)
        figure(f"frame of {name}", f"enters {count} functions (limit {functions})")
        assert count <= functions
        if rounds(0, 1):
            best, median = difference(more, less)
            figure(f"time of the frame of {name}", f"{median / 1000:.2f} µs (best {best / 1000:.2f}; limit {limit:g})")
            assert best <= 1000 * limit

    return hold


def direct(client: CloudRuntimesClient) -> tuple[ConstantState, Operation]:
    """Return the driver, and an operation to call it with."""
    driver: Any = client.state._frame.driver("store")
    return driver, Operation(_METHOD, "store", 30.0)


def test_sync(constant: CloudRuntimesClient, costs: Callable[..., None]) -> None:
    driver, op = direct(constant)
    costs("a service call, sync", lambda: constant.state.get("store", "k"), lambda: driver.get(op, "k", None), 15, 2)


def test_async(constant: CloudRuntimesClient, costs: Callable[..., None]) -> None:
    driver, op = direct(constant)
    state = constant.state
    assert drive(state.get_async("store", "k")) == b"\x00"
    costs(
        "a service call, async",
        lambda: drive(state.get_async("store", "k")),
        lambda: drive(driver.get_async(op, "k", None)),
        15,
        3,
    )


def test_interceptors_that_there_are_not(constant: CloudRuntimesClient, costs: Callable[..., None]) -> None:
    state: Service = constant.state
    assert state._frame.interceptors == ()

    def off() -> None:
        if state._frame.interceptors:
            raise AssertionError("on")

    costs("interceptors that there are not", off, lambda: None, 0, 0.1)


def test_policies_that_are_on(constant: CloudRuntimesClient, costs: Callable[..., None]) -> None:
    driver, op = direct(constant)
    targets = {"state": {"timeout": 1, "breaker": {}}}
    policies = PolicyInterceptor(load({"targets": targets}, "the test", SERVICES, no_file))
    constant.state._frame.interceptors = (policies,)
    get = constant.state.get
    costs("a service call, sync, policies on", lambda: get("store", "k"), lambda: driver.get(op, "k", None), 65, 6)
    assert policies.stats()["state.store"].calls >= 2


@pytest.mark.native_only
def test_a_call_of_a_method_in_the_process(costs: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", ":memory:")
    with CloudRuntimesClient(app_id="here") as client:
        client.rpc.register_method("m", lambda number: number)
        assert client.rpc.invoke_method("here", "m", 1) == 1
        costs("RPC in the process, sync", lambda: client.rpc.invoke_method("here", "m", 1), lambda: None, 60, 10)


def test_spans_that_are_on_are_made(constant: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", ":memory:")
    seen: list[str] = []

    class Noted(SpanInterceptor):
        def _start(self, what: Description, links: Sequence[Any] = (), parent: Any = None) -> Any:
            seen.append(what.name)
            return super()._start(what, links, parent)

    constant.state._frame.interceptors = (
        Noted(constant.state._frame.drivers.get, constant.telemetry.tracer("t"), "test"),
    )
    constant.state.get("store", "k")
    drive(constant.state.get_async("store", "k"))
    constant.state.save("store", "k", b"")
    assert seen == ["state.get", "state.get", "state.save"]
    assert constant.telemetry.stats().spans.recorded == 3
