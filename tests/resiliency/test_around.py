"""Policies and what goes through or past them: interrupts, handles, transactions, forks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InternalError, UnavailableError
from cloud_runtimes.resiliency import stats
from cloud_runtimes.telemetry.interceptor import SpanInterceptor
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.points import Interrupted
from tests.support.policies_fakes import Fake

CONSTANT = {"policy": "constant", "duration": 0.5, "max_retries": 3, "budget_reserve": 100}
BREAKER = {"consecutive_failures": 3, "timeout": "10s"}


def away(**options: Any) -> UnavailableError:
    return UnavailableError("away", **options)


# -- interrupts ----------------------------------------------------------------------


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupt_goes_through_and_says_nothing_about_the_target(
    ruled: Make, answers: Any, clock: Any, api: Api, interrupt: type[BaseException]
) -> None:
    client = ruled({"state": {"retry": CONSTANT, "breaker": BREAKER}})
    for _ in range(3):
        answers.script = [InternalError("x")]
        api.fails(InternalError)(client.state, "get", "orders", "k")
    clock.now += 10
    answers.script = [away(maybe_applied=True), interrupt()]
    with pytest.raises(UnavailableError):  # the probe, which opens it again
        api.call(client.state, "save", "orders", "k", 1)
    clock.now += 10
    error = api.fails(interrupt)(client.state, "save", "orders", "k", 1)
    assert getattr(error, "maybe_applied", None) is True
    assert stats(client)["state.orders"].state == "half open"
    assert api.call(client.state, "get", "orders", "k") == 1, "its place as a probe is free"
    assert stats(client)["state.orders"].state == "closed"


def test_an_interrupt_between_two_attempts(ruled: Make, answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    client = ruled({"state": {"retry": CONSTANT}})
    monkeypatch.setattr("cloud_runtimes.resiliency.interceptor.time.sleep", interrupted)
    answers.script = [away(maybe_applied=True)]
    with pytest.raises(KeyboardInterrupt) as caught:
        client.state.save("orders", "k", 1)
    assert getattr(caught.value, "maybe_applied", None) is True
    assert client.state.get("orders", "k") == 1


# what is swallowed by a finalizer the interpreter has a word about
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("probe", [False, True], ids=["repeated", "the probe"])
def test_an_interrupt_at_every_point(ruled: Make, answers: Any, clock: Any, probe: bool) -> None:
    """Nothing stays locked, what is said is true, and the target is called again as if nothing had been."""
    client = ruled({"state": {"timeout": 5, "retry": CONSTANT, "breaker": {**BREAKER, "consecutive_failures": 2}}})
    rules: Any = client._context.policies
    client.state.get("warm", "k")
    applied: set[str] = set()

    def apply(op: Any) -> Any:
        applied.add(op.component)

    def call(number: int) -> None:
        name = f"s{number}"
        if probe:
            client.state.save(name, "k", 1)
        else:
            answers.script = [away(), apply]
            client.state.save(name, "k", 1)

    def prepared(number: int) -> None:
        answers.script = [InternalError("x"), InternalError("x")]
        for _ in range(2):
            with pytest.raises(InternalError):
                client.state.get(f"s{number}", "k")
        clock.now += 10
        answers.script = [apply]

    number = 0
    outcomes = set()
    while True:
        number += 1
        if probe:
            prepared(number)
        run = Interrupted(number)
        run.run(partial(call, number))
        target = rules.target("state", f"s{number}")
        for lock in (rules._lock, target._lock, target.breaker._lock):
            assert lock.acquire(blocking=False), f"stays locked: {run.where}"
            lock.release()
        if run.error is not None:
            outcomes.add(getattr(run.error, "maybe_applied", False))
            assert getattr(run.error, "maybe_applied", False) or f"s{number}" not in applied, run.where
        answers.script = []
        clock.now += 10
        assert client.state.get(f"s{number}", "k") == 1, run.where
        assert target.breaker.state == "closed", run.where
        if run.points < number:
            break
    assert number > 50
    assert outcomes == {False, True}


def test_a_task_that_is_cancelled_between_attempts_ends(answers: Any) -> None:
    """In real time."""
    targets = {"state": {"retry": {"policy": "constant", "duration": 60}, "breaker": BREAKER}}

    async def run() -> None:
        client = CloudRuntimesClient(runtime=Fake(answers), config={"resiliency": {"targets": targets}}, timeout=None)
        async with client:
            answers.script = [away(maybe_applied=True)]
            task = asyncio.create_task(client.state.save_async("orders", "k", 1))
            while not answers.operations:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert getattr(caught.value, "maybe_applied", None) is True
            assert await client.state.get_async("orders", "k") == 1

    begin = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - begin < 30


# -- what is left alone ----------------------------------------------------------------


def test_a_call_has_one_span_with_an_event_for_each_retry(
    ruled: Make, answers: Any, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", ":memory:")
    client = ruled({"state": {"retry": CONSTANT}})
    seen: list[str] = []

    class Noted(SpanInterceptor):
        def _start(self, what: Any, links: Any = (), parent: Any = None) -> Any:
            seen.append(what.name)
            return super()._start(what, links, parent)

        def retrying(self, op: Any, error: Exception) -> None:
            seen.append(f"{type(error).__name__} {op.attempt}")
            super().retrying(op, error)

    client.state.get("orders", "k")
    noted = Noted(client.state._frame.drivers.get, client.telemetry.tracer("t"), "test")
    client.state._frame.interceptors = (noted, *client.state._frame.interceptors)
    answers.script = [away(), away()]
    api.call(client.state, "get", "orders", "k")
    assert seen == ["state.get", "UnavailableError 2", "UnavailableError 3"]


def test_without_the_table_there_are_no_rules(answers: Any) -> None:
    with CloudRuntimesClient(config={"capa": {"home": ":memory:plain"}}) as client:
        client.state.save("orders", "k", 1)
        assert client.state._frame.interceptors == ()
        assert stats(client) == {}


def test_handles_and_streams_keep_their_own_rules() -> None:
    policies: dict[str, Any] = {"default": {"breaker": {"consecutive_failures": 1}, "retry": {"budget_reserve": 0}}}
    policies |= {name: {"timeout": 0.001} for name in ("lock", "pubsub")}
    with CloudRuntimesClient(
        config={"capa": {"home": ":memory:handles"}, "resiliency": {"targets": policies}}
    ) as client:
        with client.pubsub.subscribe("bus", "t") as events, client.pubsub.publisher("bus", "t") as publisher:
            for number in range(3):
                publisher.send(number)
            publisher.flush()
            received: Iterator[Any] = iter(events)
            numbers = []
            for event in received:
                numbers.append(event.data)
                event.ack()
                if len(numbers) == 3:
                    break
        assert numbers == [0, 1, 2]
        lease = client.lock.try_lock("locks", "r")
        assert lease is not None
        lease.release()
        with client.lock.hold("locks", "r", wait=1):
            pass
        assert client.state.get("orders", "absent") is None
        assert set(stats(client)) == {"state.orders"}


def test_what_runs_in_a_transaction_is_part_of_it(tmp_path: Path) -> None:
    policies = {"database": {"retry": {"repeat": "all"}}}
    config = {"capa": {"home": str(tmp_path)}, "resiliency": {"targets": policies}}
    with CloudRuntimesClient(config=config) as client:
        client.database.execute("bank", "CREATE TABLE t (n INTEGER)")
        with client.database.transaction("bank") as transaction:
            transaction.execute("INSERT INTO t VALUES (1)")
            assert transaction.query("SELECT n FROM t") == [{"n": 1}]
        assert stats(client)["database.bank"].calls == 1


def test_a_forked_child_begins_anew(ruled: Make, answers: Any, clock: Any) -> None:
    client = ruled({"state": {"breaker": {"consecutive_failures": 1}}})
    answers.script = [InternalError("x")]
    with pytest.raises(InternalError):
        client.state.get("orders", "k")
    rules: Any = client._context.policies
    with rules._lock:  # as if another thread held it in the moment of the fork
        client._context.forked()
        rules.forked()
        assert rules.stats() == {}
        assert client.state.get("orders", "k") == 1
