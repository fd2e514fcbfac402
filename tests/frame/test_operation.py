"""A call: its deadline, its retries, and the meaning of its failure."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._core import backoff
from cloud_runtimes._core.arguments import CLIENT_TIMEOUT, check_timeout
from cloud_runtimes._service import base
from cloud_runtimes.errors import (
    BulkError,
    ConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.spi import operation
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.state import StateItem
from cloud_runtimes.testing import Api

READ = Method("state", "get", repeatable=True, writes=False)
ONCE = Method("state", "transaction", repeatable=False)


def away(**options: Any) -> UnavailableError:
    return UnavailableError("away", **options)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock of operations; call it to let time pass."""
    current = [1000.0]
    monkeypatch.setattr(operation, "monotonic", lambda: current[0])

    def advance(seconds: float) -> None:
        current[0] += seconds

    return advance


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, now: Callable[[float], None]) -> list[float]:
    """The waits between attempts, which take no time here; each the longest that jitter allows."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now(seconds)

    async def sleep_async(seconds: float) -> None:
        sleep(seconds)

    monkeypatch.setattr(backoff, "_chance", types.SimpleNamespace(uniform=lambda low, high: high))
    monkeypatch.setattr(base, "time", types.SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(asyncio, "sleep", sleep_async)
    return waits


# -- timeouts and deadlines ---------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, 0.0, float("nan"), float("inf"), -float("inf"), True, "5", [], b"1"])
def test_bad_timeouts(timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout must be"):
        check_timeout(timeout)


def test_timeouts() -> None:
    assert check_timeout(CLIENT_TIMEOUT, 7.0) == 7.0
    assert check_timeout(CLIENT_TIMEOUT) is None
    assert check_timeout(None, 7.0) is None
    assert check_timeout(3, 7.0) == 3
    # told by identity: somebody's own nan is no default
    with pytest.raises(InvalidArgumentError):
        check_timeout(float("nan"), 7.0)
    assert repr(CLIENT_TIMEOUT) == "<the client's timeout>"


def test_remaining(now: Callable[[float], None]) -> None:
    op = Operation(READ, "store", 5.0)
    assert op.remaining() == 5.0
    now(2.0)
    assert op.remaining() == 3.0
    now(4.0)
    assert op.remaining() == 0.0
    unlimited = Operation(READ, "store", None)
    now(1e9)
    assert unlimited.remaining() is None


def test_what_a_late_call_says() -> None:
    error = Operation(READ, "store", 2.5).timed_out("the lock", maybe_applied=True)
    assert type(error) is DeadlineExceededError
    for word in ("state.get", "2.5 s", "'store'", "the lock", "timeout="):
        assert word in str(error)
    assert error.maybe_applied
    assert not error.retryable


# -- the decision -------------------------------------------------------------


def test_backoff_doubles_within_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 2

    monkeypatch.setattr(backoff, "_chance", types.SimpleNamespace(uniform=uniform))
    op = Operation(READ, "store", None)
    delays = [op.failed(away(), "r"), op.failed(away(), "r")]
    assert asked == [(0, pytest.approx(0.1)), (0, pytest.approx(0.2))]
    assert delays == [high / 2 for _, high in asked]
    assert op.attempt == 3
    with pytest.raises(UnavailableError):
        op.failed(away(), "r")
    assert op.attempt == 3


def test_real_jitter_stays_within_its_bounds() -> None:
    delays = [Operation(READ, "store", None).failed(away(), "r") for _ in range(300)]
    assert all(0 <= delay <= 0.1 for delay in delays)
    assert max(delays) - min(delays) > 0.05, "callers that failed together come back together"


@pytest.mark.parametrize("error", [ConflictError("x"), NotFoundError("x"), InternalError("x"), ValueError("x")])
def test_what_is_not_transient_is_not_repeated(error: Exception) -> None:
    op = Operation(READ, "store", None)
    with pytest.raises(Exception, match="x"):
        op.failed(error, "r")
    assert op.attempt == 1


def test_retryable_is_the_errors_own_word() -> None:
    assert Operation(READ, "store", None).failed(ResourceExhaustedError("x", retryable=True), "r") >= 0
    with pytest.raises(UnavailableError):
        Operation(READ, "store", None).failed(away(retryable=False), "r")


def test_what_may_not_be_repeated_is_not() -> None:
    with pytest.raises(UnavailableError):
        Operation(ONCE, "store", None).failed(away(), "r")


def test_no_attempt_begins_after_the_deadline(slept: list[float], now: Callable[[float], None]) -> None:
    op = Operation(READ, "store", 0.25)
    assert op.failed(away(), "r") == pytest.approx(0.1)
    now(0.1)
    with pytest.raises(UnavailableError):  # 0.15 s are left, and 0.2 s would be waited
        op.failed(away(), "r")


def test_an_error_is_wrapped_once() -> None:
    op = Operation(READ, "store", None)
    native = KeyError("gone")
    with pytest.raises(InternalError, match=r"state\.get on 'store' failed: KeyError: 'gone'") as caught:
        op.failed(native, "dict")
    assert caught.value.__cause__ is native
    assert (caught.value.service, caught.value.operation) == ("state", "get")
    assert (caught.value.component, caught.value.runtime) == ("store", "dict")
    ours = ConflictError("stale", component="another")
    with pytest.raises(ConflictError) as again:
        op.failed(ours, "dict")
    assert again.value is ours
    assert ours.component == "another", "what is known already stands"
    assert ours.runtime == "dict"


# -- through the service ------------------------------------------------------


def test_a_read_is_tried_three_times(scripted: CloudRuntimesClient, runtime: Any, slept: list[float], api: Api) -> None:
    runtime.state.script = [away(), away()]
    assert api.call(scripted.state, "get", "store", "k") == 1
    assert runtime.state.attempts == [1, 2, 3]
    assert slept == [pytest.approx(0.1), pytest.approx(0.2)]
    assert len(set(map(id, runtime.state.operations))) == 1, "one operation, one deadline"
    runtime.state.attempts.clear()
    last = away()
    runtime.state.script = [away(), away(), last, "never asked for"]
    error = api.fails(UnavailableError)(scripted.state, "get", "store", "k")
    assert error is last
    assert runtime.state.attempts == [1, 2, 3]
    assert runtime.state.script == ["never asked for"]


@pytest.mark.parametrize(
    ("name", "args", "options", "attempts"),
    [
        ("get", ("k",), {}, 2),
        ("get_item", ("k",), {}, 2),
        ("get_bulk", (["k"],), {}, 2),
        ("save", ("k", 1), {}, 2),
        ("save", ("k", 1), {"ttl": 5}, 2),
        ("save", ("k", 1), {"concurrency": "last-write"}, 2),
        ("save", ("k", 1), {"etag": "e1"}, 1),
        ("save", ("k", 1), {"concurrency": "first-write"}, 1),
        ("save", ("k", 1), {"fence": 1}, 1),
        ("save_bulk", ({"a": 1, "b": 2},), {}, 2),
        ("save_bulk", ([StateItem(key="a", value=1), StateItem(key="b", value=2, etag="e1")],), {}, 1),
        ("delete", ("k",), {}, 2),
        ("delete", ("k",), {"etag": "e1"}, 1),
        ("delete", ("k",), {"fence": 1}, 1),
        ("delete_bulk", (["k"],), {}, 2),
    ],
)
def test_conditional_writes_are_sent_once(
    scripted: CloudRuntimesClient,
    runtime: Any,
    slept: list[float],
    api: Api,
    name: str,
    args: Any,
    options: Any,
    attempts: int,
) -> None:
    # the first attempt may have been applied: a condition would then fail by the caller's own write
    runtime.state.script = [away(maybe_applied=True)]
    if attempts == 1:
        api.fails(UnavailableError)(scripted.state, name, "store", *args, **options)
    else:
        api.call(scripted.state, name, "store", *args, **options)
    assert len(runtime.state.attempts) == attempts
    assert len(slept) == attempts - 1


def test_a_transaction_is_sent_once(scripted: CloudRuntimesClient, runtime: Any, slept: list[float], api: Api) -> None:
    runtime.state.script = [away()]

    with pytest.raises(UnavailableError), api.opened(scripted.state.transaction("store")) as tx:
        tx.save("k", 1)
    assert runtime.state.attempts == [1]
    assert slept == []


def test_retries_stay_within_the_timeout(
    scripted: CloudRuntimesClient, runtime: Any, slept: list[float], api: Api
) -> None:
    runtime.state.script = [away(), away()]
    api.fails(UnavailableError)(scripted.state, "get", "store", "k", timeout=0.25)
    assert runtime.state.attempts == [1, 2]
    assert slept == [pytest.approx(0.1)]


def test_an_earlier_attempt_is_remembered(
    scripted: CloudRuntimesClient, runtime: Any, slept: list[float], api: Api
) -> None:
    runtime.state.script = [away(maybe_applied=True), ConflictError("full of something else")]
    error = api.fails(ConflictError)(scripted.state, "save", "store", "k", 1)
    assert error.maybe_applied, "the first attempt may have been applied"


def test_the_timeout_given_wins(scripted: CloudRuntimesClient, runtime: Any, api: Api) -> None:
    api.call(scripted.state, "get", "store", "k")
    api.call(scripted.state, "get", "store", "k", timeout=2.5)
    api.call(scripted.state, "get", "store", "k", timeout=None)
    assert [op.timeout for op in runtime.state.operations] == [30.0, 2.5, None]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5"])
def test_a_bad_timeout_comes_before_the_driver(
    scripted: CloudRuntimesClient, runtime: Any, api: Api, timeout: Any
) -> None:
    for name, args in (("get", ("k",)), ("save", ("k", 1)), ("delete", ("k",)), ("get_bulk", (["k"],))):
        api.fails(InvalidArgumentError, match="timeout")(scripted.state, name, "store", *args, timeout=timeout)
    with pytest.raises(InvalidArgumentError, match="timeout"):
        scripted.state.transaction("store", timeout=timeout)
    assert runtime.state.operations == []


def test_failures_of_single_items_are_not_retried(
    scripted: CloudRuntimesClient, runtime: Any, slept: list[float], api: Api
) -> None:
    runtime.state.script = [{1: away()}]
    error = api.fails(BulkError)(scripted.state, "save_bulk", "store", {"a": 1, "b": 2})
    assert list(error.failed) == ["b"]
    assert error.retryable
    assert runtime.state.attempts == [1]
