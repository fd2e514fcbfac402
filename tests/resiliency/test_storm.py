"""Many clients while what they call is down: how much they add to its load, and how soon they are back."""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.resiliency import stats
from cloud_runtimes.spi import operation
from tests.support.policies_fakes import Answers, Fake, under
from tests.support.waiting import in_threads

CLIENTS = 50


class _Skipping(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """A selector for which waiting takes no time: it moves the clock on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
        return super().select(0)


@pytest.fixture
def skipping(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[Callable[[], float]], Coroutine[Any, Any, None]]], None]:
    """Run a coroutine in a loop whose time passes at once; it is given the clock."""

    def run(main: Callable[[Callable[[], float]], Coroutine[Any, Any, None]]) -> None:
        selector = _Skipping()
        loop = asyncio.SelectorEventLoop(selector)
        monkeypatch.setattr(loop, "time", lambda: selector.now)
        monkeypatch.setattr(operation, "monotonic", lambda: selector.now)
        try:
            loop.run_until_complete(main(lambda: selector.now))
        finally:
            loop.close()

    return run


RETRY = {"max_retries": 5, "duration": 0.05, "max_interval": 1}


@pytest.mark.promise("B7")
@pytest.mark.parametrize(("clients", "pause"), [(1, 0.1), (CLIENTS, 0.1), (CLIENTS, 1.0)])
def test_retries_add_a_tenth_at_most_while_all_fails(skipping: Any, figure: Any, clients: int, pause: float) -> None:
    """50 callers that call ten times or once a second; what they call is down from 20 s to 50 s."""
    answers = Answers()

    async def main(now: Callable[[], float]) -> None:
        down = {"attempts": 0, "calls": 0}

        def answer(op: Any) -> Any:
            if 20 <= now() < 50:
                down["attempts"] += 1
                return UnavailableError("down")
            return None

        answers.always = answer
        targets = {"state": {"retry": RETRY}}
        callers = [
            CloudRuntimesClient(runtime=Fake(answers), config={"resiliency": {"targets": targets}})
            for _ in range(clients)
        ]
        for client in callers:
            under(client, targets, now)

        async def caller(number: int) -> None:
            client = callers[number % len(callers)]
            await asyncio.sleep(random.Random(number).uniform(0, pause))
            while now() < 60:
                down["calls"] += 20 <= now() < 50
                try:
                    await client.state.get_async("orders", "k")
                except UnavailableError:
                    assert 20 <= now() < 51
                await asyncio.sleep(pause)

        await asyncio.gather(*(caller(number) for number in range(CLIENTS)))
        counted = [stats(client)["state.orders"] for client in callers]
        assert all(each.over_budget for each in counted)
        assert all(each.retries for each in counted)
        assert down["calls"] > 25 * CLIENTS / pause
        load = down["attempts"] / down["calls"]
        figure(
            f"retry storm, {CLIENTS} callers, {clients} clients, {1 / pause:g} calls/s each",
            f"{load:.3f} of the normal load (limit 1.1)",
        )
        assert 1.0 < load <= 1.1
        for client in callers:
            client.close()

    skipping(main)


def test_a_short_failure_is_bridged(skipping: Any) -> None:
    """A fifth of a second of 100 calls/s: each is tried again, since those of the seconds before went well."""
    answers = Answers()

    async def main(now: Callable[[], float]) -> None:
        answers.always = lambda op: UnavailableError("down") if 20 <= now() < 20.2 else None
        targets = {"state": {"retry": {"policy": "constant", "duration": 0.25}}}
        async with CloudRuntimesClient(runtime=Fake(answers), config={"resiliency": {"targets": targets}}) as client:
            under(client, targets, now)

            async def caller(number: int) -> None:
                await asyncio.sleep(number / 100)
                await client.state.get_async("orders", "k")

            await asyncio.gather(*(caller(number) for number in range(2500)))
            assert 19 <= stats(client)["state.orders"].retries <= 21

    skipping(main)


def test_in_part_of_an_outage_too(skipping: Any) -> None:
    """Half of all attempts fail, for long: retries live on what succeeds."""
    answers = Answers()

    async def main(now: Callable[[], float]) -> None:
        chance = random.Random(1)
        answers.always = lambda op: UnavailableError("down") if chance.random() < 0.5 else None
        targets = {"state": {"retry": RETRY}}
        async with CloudRuntimesClient(runtime=Fake(answers), config={"resiliency": {"targets": targets}}) as client:
            under(client, targets, now)
            for _ in range(2000):
                try:
                    await client.state.get_async("orders", "k")
                except UnavailableError:
                    pass
            counted = stats(client)["state.orders"]
        assert counted.calls == 2000
        assert 80 <= counted.retries <= 0.1 * counted.calls

    skipping(main)


@pytest.mark.promise("B7")
def test_a_breaker_spares_it_and_closes_within_one_interval_of_its_recovery(skipping: Any, figure: Any) -> None:
    answers = Answers()
    interval = 5.0

    async def main(now: Callable[[], float]) -> None:
        attempts = []
        served = []

        def answer(op: Any) -> Any:
            if 10 <= now() < 42.5:
                attempts.append(now())
                return UnavailableError("down")
            served.append(now())
            return None

        answers.always = answer
        breaker = {"consecutive_failures": 5, "timeout": interval}
        targets = {"state": {"retry": RETRY, "breaker": breaker}}
        async with CloudRuntimesClient(runtime=Fake(answers), config={"resiliency": {"targets": targets}}) as client:
            under(client, targets, now)

            async def caller(number: int) -> None:
                await asyncio.sleep(number / 500)
                while now() < 60:
                    try:
                        await client.state.get_async("orders", "k")
                    except UnavailableError:
                        pass
                    await asyncio.sleep(0.1)

            await asyncio.gather(*(caller(number) for number in range(CLIENTS)))
            counted = stats(client)["state.orders"]
        back = min(moment for moment in served if moment >= 42.5)
        assert back - 42.5 <= interval + 0.1
        figure("breaker: closed after recovery", f"{back - 42.5:.1f} s (interval {interval:g} s)")
        assert (counted.state, counted.refused > 10_000) == ("closed", True)
        assert 5 <= len(attempts) <= 5 + CLIENTS + 35 / interval, "its failures, and a probe each interval"
        in_a_second = sum(47.7 <= moment < 48.7 for moment in served)
        assert in_a_second >= CLIENTS * 9, "all are back"

    skipping(main)


@pytest.mark.timing
def test_threads_in_real_time() -> None:
    """50 threads, 0.5 s: the same rules under real clocks and real concurrency."""
    answers = Answers()
    down = threading.Event()
    down.set()
    attempts = []

    def answer(op: Any) -> Any:
        if down.is_set():
            attempts.append(1)
            return UnavailableError("down")
        return None

    answers.always = answer
    targets = {"state": {"retry": RETRY}, "state.guarded": {"breaker": {"timeout": 0.05}}}
    with CloudRuntimesClient(runtime=Fake(answers), config={"resiliency": {"targets": targets}}) as client:
        calls: list[int] = []
        end = time.monotonic() + 0.5

        def caller() -> None:
            count = 0
            while count < 5 or time.monotonic() < end:
                with pytest.raises(UnavailableError):
                    client.state.get("orders", "k")
                count += 1
                time.sleep(0.005)
            calls.append(count)

        in_threads(*[caller] * CLIENTS)
        assert len(calls) == CLIENTS
        counted = stats(client)["state.orders"]
        assert counted.calls == sum(calls) >= 250
        assert len(attempts) == counted.calls + counted.retries <= 1.1 * sum(calls)
        for _ in range(5):
            with pytest.raises(UnavailableError):
                client.state.get("guarded", "k")
        down.clear()
        while True:  # until a probe is let through
            try:
                assert client.state.get("guarded", "k") == 1
                break
            except UnavailableError:
                time.sleep(0.01)
        assert stats(client)["state.guarded"].state == "closed"
