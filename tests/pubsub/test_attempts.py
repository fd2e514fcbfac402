"""Retries of a publisher, and how much it sends at once. The driver's answers are scripted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from cloud_runtimes.pubsub import DeliveryReport
from cloud_runtimes.pubsub._lanes import ATTEMPT, STALL, Window
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.pubsub import Failures, OutgoingBatch
from tests.support.slow_broker import SlowBroker

SOON = 10.0


class Scripted:
    """Answers each attempt by the next of ``script``, a function of its numbers; when there is none, all arrive.

    Attributes:
        attempts: data of the events of each.
        began: set by the first.
        gate: cleared, it holds an attempt back.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: CloudRuntimesClient) -> None:
        self.script: list[Callable[[list[int]], Mapping[int, CloudRuntimesError]]] = []
        self.attempts: list[list[int]] = []
        self.began, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        monkeypatch.setattr(client.pubsub._frame.driver("bus"), "publish", self._publish)

    def _publish(self, op: Operation, batch: OutgoingBatch) -> Failures:
        sent = [int(record.payload) for record in batch]
        self.attempts.append(sent)
        self.began.set()
        assert self.gate.wait(SOON)
        failed = self.script.pop(0)(sent) if self.script else {}
        return {index: failed[data] for index, data in enumerate(sent) if data in failed}


def fails(*numbers: int, error: type[CloudRuntimesError] = UnavailableError) -> Callable[[list[int]], Any]:
    """These events fail alone."""
    return lambda sent: {number: error("not this one") for number in numbers}


def refused(error: type[CloudRuntimesError]) -> Callable[[list[int]], Any]:
    """The attempt fails as a whole."""

    def answer(sent: list[int]) -> Any:
        raise error("not now")

    return answer


@pytest.fixture
def client() -> Iterator[CloudRuntimesClient]:
    config = {"capa": {"home": ":memory:attempts"}}
    with CloudRuntimesClient(app_id="app", runtime="capa", config=config) as app_client:
        yield app_client


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, client: CloudRuntimesClient) -> Scripted:
    return Scripted(monkeypatch, client)


def publish(
    client: CloudRuntimesClient, count: int, key: Callable[[int], str | None], **options: Any
) -> list[DeliveryReport]:
    """Publish numbers and return the reports."""
    reports: list[DeliveryReport] = []
    with client.pubsub.publisher("bus", "t", linger=60, on_delivery=reports.append, **options) as publisher:
        for number in range(count):
            publisher.send(number, key=key(number))
        publisher.flush()
        stats = publisher.stats()
        assert stats.accepted == count == stats.delivered + stats.failed
        assert stats.bytes == 0
    assert [report.first for report in reports] == [1] + [report.last + 1 for report in reports[:-1]]
    return reports


def test_only_what_did_not_arrive_is_sent_again(client: CloudRuntimesClient, broker: Scripted) -> None:
    broker.script = [fails(), fails(6, 9, 11), fails(11)]
    broker.gate.clear()
    with client.pubsub.publisher("bus", "t", linger=60, batch_events=4) as publisher:
        for number in range(12):
            publisher.send(number)
            if number == 3:
                assert broker.began.wait(SOON)
        broker.gate.set()
        publisher.flush()
    assert broker.attempts == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11], [6, 9, 11], [11]]


def test_the_order_of_a_key_is_kept(client: CloudRuntimesClient, broker: Scripted) -> None:
    broker.script = [fails(2)]
    publish(client, 10, lambda number: f"k{number % 2}")
    # those behind it had arrived; whoever keeps the last value of a key must not be left with an older one
    assert broker.attempts == [list(range(10)), [2, 4, 6, 8]]


def test_what_can_never_be_taken_fails_alone(client: CloudRuntimesClient, broker: Scripted) -> None:
    broker.script = [
        lambda sent: {1: InvalidArgumentError("never"), 3: UnavailableError("away")},
        fails(3, error=InvalidArgumentError),
    ]
    (report,) = publish(client, 5, lambda number: "k")
    assert broker.attempts == [list(range(5)), [3, 4]]
    assert [(event.sequence, type(event.error)) for event in report.failed] == [
        (2, InvalidArgumentError),
        (4, InvalidArgumentError),
    ]


def test_an_event_that_fails_alone_has_no_longer_than_its_time(client: CloudRuntimesClient, broker: Scripted) -> None:
    broker.script = [fails(0)] * 1000
    (report,) = publish(client, 3, lambda number: "k", delivery_timeout=0.3)
    # those of its key have arrived each time, which is no progress
    assert [event.sequence for event in report.failed] == [1, 2, 3]
    assert 2 < len(broker.attempts) < 100


def test_what_is_too_much_at_once_is_halved(client: CloudRuntimesClient, broker: Scripted) -> None:
    def at_most_three(sent: list[int]) -> Any:
        if len(sent) > 3:
            raise ResourceExhaustedError("too much at once")
        return {}

    broker.script = [at_most_three] * 100
    publish(client, 20, lambda number: None)
    taken = [sent for sent in broker.attempts if len(sent) <= 3]
    assert [number for sent in taken for number in sent] == list(range(20))
    assert len(broker.attempts) < 30


def test_an_event_alone_gets_more_time(
    client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = SlowBroker(monkeypatch, client.pubsub._frame.driver("bus"), lambda at: 100.0)
    with caplog.at_level(logging.WARNING), client.pubsub.publisher("bus", "t", linger=60) as publisher:
        publisher.send(b"x" * 2_500)  # it takes longer than 25 s
        publisher.send(b"y" * 2_500)
        publisher.flush()
    assert publisher.stats().delivered == 2
    assert len(broker.stored) < 10
    assert "took 0 of 2 events in 2 s" in caplog.text
    assert "send more slowly, or raise delivery_timeout" in caplog.text


def test_a_broker_too_slow_for_delivery_timeout(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = SlowBroker(monkeypatch, client.pubsub._frame.driver("bus"), lambda at: 1.0)
    reports: list[DeliveryReport] = []
    with client.pubsub.publisher("bus", "t", on_delivery=reports.append, delivery_timeout=20) as publisher:
        publisher.send(1)
        publisher.flush()
        stats = publisher.stats()
    assert (stats.accepted, stats.delivered, stats.failed, stats.buffered) == (1, 0, 1, 0)
    assert "delivery_timeout" in str(reports[0].failed[0].error)
    assert 20 <= broker.now - broker.begun < 25


def test_close_tells_that_it_did_not_wait(
    client: CloudRuntimesClient, broker: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hanging(sent: list[int]) -> Any:
        begun.set()
        assert gate.wait(SOON)
        return {}

    monkeypatch.setattr("cloud_runtimes.pubsub.sender.ATTEMPT", 0.01)
    broker.script = [hanging]
    publisher = client.pubsub.publisher("bus", "t", linger=0)
    publisher.send(1)
    assert begun.wait(SOON)
    with pytest.raises(DeadlineExceededError, match=r"close: 1 events to bus/t are not settled"):
        publisher.close(timeout=0.01)
    gate.set()
    publisher.close()
    assert publisher.stats().delivered == 1


def test_the_window_follows_what_the_broker_takes() -> None:
    window = Window(1000)
    window.ran_out(1000, 0, alone=False)
    assert (window.size, window.seconds) == (500, 2 * ATTEMPT)
    for _ in range(20):
        window.ran_out(window.size, 0, alone=False)
    assert window.seconds == 4 * ATTEMPT
    window.ran_out(100, 0, alone=True)
    assert window.seconds == 8 * ATTEMPT
    window.ran_out(800, 300, alone=False)
    assert (window.size, window.seconds) == (300, 8 * ATTEMPT)
    window.took(300, 5.0)  # slow enough
    assert (window.size, window.seconds) == (300, 15.0)
    window.took(10, 0.1)  # a small one says little of a large one
    assert (window.size, window.seconds) == (300, STALL)
    for size in (300, 600, 1000):
        window.took(size, 0.1)
    assert (window.size, window.seconds) == (1000, STALL)
    window.took(10, 0.1)
    assert window.size == 1000
