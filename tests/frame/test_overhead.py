"""What the frame costs: a service call less a direct call of its driver, over a driver that returns a constant.

Slices of both are interleaved, in process time and without the garbage collector, so that what else runs on the machine meets both; the best slices are compared, the medians are noted.
"""

from __future__ import annotations

import gc
import statistics
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
from tests.support.harnesses.state_fakes import DictStateRuntime
from tests.support.policies_fakes import ConstantState, no_file

pytestmark = pytest.mark.timing
T = TypeVar("T")

CALLS = 500
SLICES = 60
HEADROOM = 2.0
"""Of an assertion over the limit: a shared machine is no laboratory."""

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


def test_sync(constant: CloudRuntimesClient, figure: Callable[[str, str], None]) -> None:
    state = constant.state
    driver: ConstantState = state._driver("store")
    op = Operation(_METHOD, "store", 30.0)
    best, median = difference(lambda: state.get("store", "k"), lambda: driver.get(op, "k", None))
    figure("frame of a service call, sync", f"{median / 1000:.2f} µs (best {best / 1000:.2f}; limit 2)")
    assert best <= 2000 * HEADROOM


def test_async(constant: CloudRuntimesClient, figure: Callable[[str, str], None]) -> None:
    state = constant.state
    driver: ConstantState = state._driver("store")
    op = Operation(_METHOD, "store", 30.0)
    assert drive(state.get_async("store", "k")) == b"\x00"
    best, median = difference(
        lambda: drive(state.get_async("store", "k")), lambda: drive(driver.get_async(op, "k", None))
    )
    figure("frame of a service call, async", f"{median / 1000:.2f} µs (best {best / 1000:.2f}; limit 3)")
    assert best <= 3000 * HEADROOM


def test_interceptors_that_there_are_not(constant: CloudRuntimesClient, figure: Callable[[str, str], None]) -> None:
    state: Service = constant.state
    assert state._interceptors == ()

    def off() -> None:
        if state._interceptors:
            raise AssertionError("on")

    def nothing() -> None:
        pass

    best, median = difference(off, nothing)
    figure("interceptors of a service call, none", f"{median:.0f} ns (best {best:.0f}; limit 100)")
    assert best <= 100


def test_policies_that_are_on(constant: CloudRuntimesClient, figure: Callable[[str, str], None]) -> None:
    state = constant.state
    driver: ConstantState = state._driver("store")
    op = Operation(_METHOD, "store", 30.0)
    targets = {"state": {"timeout": 1, "breaker": {}}}
    policies = PolicyInterceptor(load({"targets": targets}, "the test", SERVICES, no_file))
    state._interceptors = (policies,)
    best, median = difference(lambda: state.get("store", "k"), lambda: driver.get(op, "k", None))
    figure("frame of a service call, sync, policies on", f"{median / 1000:.2f} µs (best {best / 1000:.2f}; limit 6)")
    assert best <= 6000 * HEADROOM
    assert policies.stats()["state.store"].calls > CALLS


def test_spans_that_are_on_are_made(constant: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", ":memory:")
    seen: list[str] = []

    class Noted(SpanInterceptor):
        def _start(self, what: Description, links: Sequence[Any] = (), parent: Any = None) -> Any:
            seen.append(what.name)
            return super()._start(what, links, parent)

    constant.state._interceptors = (Noted(constant.state._drivers.get, constant.telemetry.tracer("t"), "test"),)
    constant.state.get("store", "k")
    drive(constant.state.get_async("store", "k"))
    constant.state.save("store", "k", b"")
    assert seen == ["state.get", "state.get", "state.save"]
    assert constant.telemetry.stats().spans.recorded == 3
