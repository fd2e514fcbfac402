"""Batches in flight, sources that push, and slow brokers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events as kernel
from cloud_runtimes.errors import ClosedError, CloudRuntimesError, InvalidArgumentError, UnavailableError
from cloud_runtimes.pubsub import PublisherStats, _sending, sender
from cloud_runtimes.spi.pubsub import BatchLimits, Delivery
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites._base import Call, Suite
from cloud_runtimes.testing.suites.pubsub import drain
from tests.support import Figure, Rounds
from tests.support.fake_broker import AcknowledgingBroker, AsyncBroker, FakeBroker, FakeRuntime, PushingBroker
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rows import rows
from tests.support.slow_broker import SlowBroker
from tests.support.waiting import until

SOON = 30.0
KINDS = [FakeBroker, AcknowledgingBroker]


def publish(broker: FakeBroker, count: int, keys: int | None) -> tuple[float, PublisherStats]:
    """Publish numbers; return the seconds from the first batch to the last acknowledgement."""
    with CloudRuntimesClient(runtime=FakeRuntime(broker), app_id="app") as client:
        with client.pubsub.publisher("bus", "t", linger=60, batch_events=count) as publisher:
            for number in range(count):
                publisher.send(number, key=None if keys is None else f"k{number % keys}")
            begun = time.perf_counter()
            publisher.flush()
            return time.perf_counter() - begun, publisher.stats()


def record(number: int) -> Any:
    body = kernel.build_frame("app", "t", "t", (kernel.encode_record(b"%d" % number, "application/json"),))
    return kernel.Frame(body)[0]


@pytest.mark.parametrize("keys", [None, 1000], ids=["no keys", "1000 keys"])
@pytest.mark.parametrize("kind", KINDS)
def test_eight_batches_in_flight_are_six_times_as_fast(
    kind: type[FakeBroker], keys: int | None, rounds: Rounds, figure: Figure
) -> None:
    seconds = []
    for in_flight in (1, 8):
        broker = kind(BatchLimits(events=10, in_flight=in_flight), latency=0.005)
        if in_flight == 1 and kind is AcknowledgingBroker:
            broker = FakeBroker(broker.limits, latency=0.005)
        took, stats = publish(broker, 2000, keys)
        assert stats.delivered == 2000 == len(broker.stored)
        assert broker.peak == in_flight
        seconds.append(took)
    ratio = seconds[0] / seconds[1]
    figure(f"8 batches in flight, {kind.__name__}, keys: {keys}", f"{ratio:.1f} times one")
    if rounds(0, 1):
        assert ratio >= 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_flight", [2, 8])
def test_the_order_of_a_key_holds_through_failures(kind: type[FakeBroker], in_flight: int) -> None:
    rng = random.Random(3)
    broker = kind(BatchLimits(events=20, in_flight=in_flight), latency=0.001)
    failed = 0

    def fails(id: str) -> CloudRuntimesError | None:
        nonlocal failed
        if rng.random() < 0.02:
            failed += 1
            return UnavailableError("away")
        return None

    broker.fails = fails
    _, stats = publish(broker, 3000, 40)
    assert stats.delivered == 3000
    assert failed > 20
    last: dict[Any, int] = {}
    first: dict[Any, list[int]] = {}
    for key, number in broker.stored:
        last[key] = number
        if number not in (seen := first.setdefault(key, [])):
            seen.append(number)
    assert last == {f"k{key}": 2960 + key for key in range(40)}
    assert sum(map(len, first.values())) == 3000


@pytest.mark.parametrize("kind", KINDS)
def test_batches_that_fail_as_a_whole_keep_the_order(kind: type[FakeBroker]) -> None:
    broker = kind(BatchLimits(events=20, in_flight=8), latency=0.001)
    inner = broker.store
    calls = 0

    def store(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        return dict.fromkeys(range(len(batch)), UnavailableError("away")) if calls % 3 == 0 else inner(batch)

    broker.store = store  # type: ignore[method-assign]
    _, stats = publish(broker, 2000, 16)
    assert stats.delivered == 2000 == len(broker.stored)  # nothing twice
    for key in range(16):
        assert [number for of, number in broker.stored if of == f"k{key}"] == list(range(key, 2000, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_never_be_taken_fails_alone(kind: type[FakeBroker]) -> None:
    broker = kind(BatchLimits(events=20, in_flight=4))
    broker.fails = lambda id: InvalidArgumentError("never") if rng.random() < 0.01 else None
    rng = random.Random(4)
    with CloudRuntimesClient(runtime=FakeRuntime(broker), app_id="app") as client:
        reports: list[Any] = []
        with client.pubsub.publisher("bus", "t", on_delivery=reports.append, batch_events=100) as publisher:
            for number in range(1000):
                publisher.send(number, key=str(number % 7))
            publisher.flush()
            stats = publisher.stats()
    assert stats.failed == sum(len(report.failed) for report in reports) > 0
    assert stats.delivered == 1000 - stats.failed == len(broker.stored)
    assert [report.first for report in reports] == [1] + [report.last + 1 for report in reports[:-1]]


def test_a_driver_that_raises_when_it_begins() -> None:
    class Raising(FakeBroker):
        calls = 0

        def begin(self, op: Any, batch: Any, /) -> Any:
            self.calls += 1
            if self.calls < 5:
                raise UnavailableError("not connected")
            return super().begin(op, batch)

    broker = Raising(BatchLimits(events=20, in_flight=2))
    _, stats = publish(broker, 100, 3)
    assert stats.delivered == 100 == len(broker.stored)


# -- sources -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PushingBroker, AsyncBroker])
def test_an_idle_subscription_is_not_polled(kind: type[PushingBroker], api: Api) -> None:
    broker = kind()
    with CloudRuntimesClient(runtime=FakeRuntime(broker), app_id="app") as client:
        with api.opened(api.call(client.pubsub, "subscribe", "bus", "t")) as sub:
            until(lambda: broker.source.polls)
            time.sleep(1.0)
            assert broker.source.polls == 1
            broker.source.push(Delivery(record(7), 7, None))
            event = api.call(sub, "receive", SOON)
            assert event.data == 7
            event.ack()
            until(lambda: broker.settled)
            assert broker.settled == [(7, "ack")]
            time.sleep(0.2)
            before = broker.source.polls
            time.sleep(0.5)
            assert broker.source.polls == before


@pytest.mark.parametrize("kind", [PushingBroker, AsyncBroker])
def test_a_source_that_pushes(kind: type[PushingBroker], api: Api) -> None:
    broker = kind()
    with CloudRuntimesClient(runtime=FakeRuntime(broker), app_id="app") as client:
        got: list[int] = []
        done = threading.Event()

        def handle(event: Any) -> None:
            got.append(event.data)
            if event.data == 13:
                raise ValueError("unlucky")
            if len(got) == 500:
                done.set()

        with api.opened(api.call(client.pubsub, "subscribe", "bus", "t", handle, max_in_flight=10)):
            for number in range(500):
                broker.source.push(Delivery(record(number), number, None))
            assert done.wait(SOON)
    assert got == list(range(500))
    assert sorted(broker.settled) == [(number, "retry" if number == 13 else "ack") for number in range(500)]


def test_an_asyncio_source_needs_no_thread() -> None:
    broker = AsyncBroker()
    with CloudRuntimesClient(runtime=FakeRuntime(broker), app_id="app") as client:
        before = set(threading.enumerate())
        with client.pubsub.subscribe("bus", "t"), client.pubsub.subscribe("bus", "u"):
            until(lambda: broker.source.threads)
            assert broker.source.threads == {"cloud-runtimes-loop"}
            assert [thread.name for thread in set(threading.enumerate()) - before] == ["cloud-runtimes-loop"]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("kind", [PushingBroker, AsyncBroker])
def test_leaving_a_group_that_fails_ends_and_is_told_while_the_client_is_open(
    kind: type[PushingBroker], closed: bool, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """At exit, where a handler that does not end outlives its client, nothing is told."""
    broker = kind()
    with CloudRuntimesClient(runtime=FakeRuntime(broker), app_id="app") as client:
        sub = api.call(client.pubsub, "subscribe", "bus", "t")

        def fails(settled: Any) -> Any:
            if closed:
                raise ClosedError("home.db is closed: its last client has closed it")
            raise UnavailableError("the broker went away")

        broker.source.close = fails  # type: ignore[method-assign]
        api.call(sub, "close")
        runner = sub._fetcher._runner
        assert runner.join(SOON)
        if kind is AsyncBroker and not closed:
            assert runner._future.exception() is None
    assert ("leaving the group failed: the broker went away" in caplog.text) is not closed
    assert ("leaving the group failed" in caplog.text) is not closed


# -- what a publisher makes of a slow broker: events come, and few of them twice


class TestSlowBroker(Suite):
    service = "pubsub"
    harness = rows({MemoryHarness.name: MemoryHarness})

    @pytest.mark.parametrize(
        ("rate", "latency"),
        [
            pytest.param(lambda at: 10_000, 0.0, id="slow"),
            pytest.param(lambda at: 1_000, 0.0, id="very slow"),
            pytest.param(lambda at: 1_000_000 if at < 0.01 else 4_000, 0.0, id="falling"),
            pytest.param(lambda at: 1_000 if at < 20 else 1_000_000, 0.0, id="recovering"),
            pytest.param(lambda at: 1_000_000, 3.0, id="far"),
        ],
    )
    def test_a_slow_broker(
        self, call: Call, api: Api, monkeypatch: pytest.MonkeyPatch, rate: Callable[[float], float], latency: float
    ) -> None:
        for module in (sender, _sending):
            monkeypatch.setattr(module, "TAKE_BYTES", 48_000)
        broker = SlowBroker(monkeypatch, call.driver(), rate, latency)
        count = 120
        with call.opened("publisher", "t", linger=60, batch_events=40) as publisher:
            for number in range(count):
                api.call(publisher, "send", {"n": number, "text": "x" * 900}, key=f"k{number % 3}")
            api.call(publisher, "flush")
            stats = publisher.stats()
            assert (stats.accepted, stats.delivered, stats.failed, stats.buffered) == (count, count, 0, 0)
        late = [size for _, size, in_time in broker.attempts if not in_time]
        # attempts are halved until they fit, and fit from then on
        assert len(late) <= 6
        assert all(earlier >= 1.8 * right for earlier, right in pairwise(late))
        assert len(broker.stored) <= 3 * count
        came = drain(api, call, len(broker.stored))
        assert sorted(event.id for event in came) == sorted(broker.stored)
        order = {event.id: event.data["n"] for event in came}
        assert [order[id] for id in dict.fromkeys(broker.stored)] == list(range(count))

    def test_a_broker_that_recovers_gets_more_again(
        self, call: Call, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = call.driver()
        if driver.limits.events < 200:
            pytest.skip("a batch of 200 events is not declared")
        broker = SlowBroker(monkeypatch, driver, lambda at: 1_000 if at < 60 else 1_000_000)
        with call.opened("publisher", "t", linger=60) as publisher:
            for number in range(200):
                api.call(publisher, "send", {"n": number, "text": "x" * 900})
            api.call(publisher, "flush")
            assert publisher.stats().delivered == 200
        slow = [size for begun, size, in_time in broker.attempts if in_time and begun < 60]
        fast = [size for begun, size, _ in broker.attempts if begun >= 60]
        assert max(slow) < 10_000 < 50_000 < max(fast)
        assert len(fast) <= 8
