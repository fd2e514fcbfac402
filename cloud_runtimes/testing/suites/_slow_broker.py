"""Conformance of the publisher before a broker that is slow; part of `PubSubSuite`."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from ...client import CloudRuntimesClient
from ...pubsub import sender
from ...spi.operation import Method, Operation
from ...spi.pubsub import Failures, OutgoingBatch, PubSubDriver
from ..faces import Face
from ._base import Call
from ._publisher import drain

__all__ = ["SlowBroker", "SlowBrokerTests"]

_STORE = Method("pubsub", "publish", repeatable=False)


class SlowBroker:
    """Stands before a driver as a broker that takes attempts as a whole. It stores what was too slow as well, after the publisher has given up waiting.

    It is a fake with a clock of its own, which the publisher reads too. So no test waits.

    Attributes:
        now, begun: seconds of that clock.
        attempts: (begin, bytes, whether it was in time).
        stored: ids of events, as they were stored.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        driver: PubSubDriver,
        rate: Callable[[float], float],
        latency: float = 0.0,
    ) -> None:
        self.now = self.begun = time.monotonic()
        self.attempts: list[tuple[float, int, bool]] = []
        self.stored: list[str] = []
        self._rate = rate
        self._latency = latency
        self._inner = driver.publish
        monkeypatch.setattr(driver, "publish", self._publish)
        monkeypatch.setattr(sender, "monotonic", lambda: self.now)
        inner = sender.Sender._wait

        def wait(waiting: sender.Sender, seconds: float | None) -> None:
            if seconds is None or seconds > 1.0:  # for events, which are real
                inner(waiting, seconds)
            else:  # for another attempt
                self.now += seconds

        monkeypatch.setattr(sender.Sender, "_wait", wait)

    def _publish(self, op: Operation, batch: OutgoingBatch, /) -> Failures:
        begun, size = self.now - self.begun, batch.size
        needs = self._latency + size / self._rate(begun)
        assert op.timeout is not None
        self.attempts.append((begun, size, needs <= op.timeout))
        self.stored += [record.id for record in batch]
        found = self._inner(Operation(_STORE, op.component, None), batch)
        self.now += min(needs, op.timeout)
        if needs > op.timeout:
            raise op.timed_out("a slow broker")
        return found


class SlowBrokerTests:
    """What a publisher makes of a slow broker: events come, and few of them twice."""

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
        self,
        call: Call,
        client: CloudRuntimesClient,
        face: Face,
        store: str,
        monkeypatch: pytest.MonkeyPatch,
        rate: Callable[[float], float],
        latency: float,
    ) -> None:
        monkeypatch.setattr(sender, "_TAKE_BYTES", 48_000)
        broker = SlowBroker(monkeypatch, client.pubsub._driver(store), rate, latency)
        count = 120
        with call.opened("publisher", "t", linger=60, batch_events=40) as publisher:
            for number in range(count):
                face.call(publisher, "send", {"n": number, "text": "x" * 900}, key=f"k{number % 3}")
            face.call(publisher, "flush")
            stats = publisher.stats()
            assert (stats.accepted, stats.delivered, stats.failed, stats.buffered) == (count, count, 0, 0)
        late = [size for _, size, in_time in broker.attempts if not in_time]
        # attempts are halved until they fit, and fit from then on
        assert len(late) <= 6
        assert all(left >= 1.8 * right for left, right in pairwise(late))
        assert len(broker.stored) <= 3 * count
        came = drain(face, call, len(broker.stored))
        assert sorted(event.id for event in came) == sorted(broker.stored)
        order = {event.id: event.data["n"] for event in came}
        assert [order[id] for id in dict.fromkeys(broker.stored)] == list(range(count))

    def test_a_broker_that_recovers_gets_more_again(
        self, call: Call, client: CloudRuntimesClient, face: Face, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = client.pubsub._driver(store)
        if driver.limits.events < 200:
            pytest.skip("a batch of 200 events is not declared")
        broker = SlowBroker(monkeypatch, driver, lambda at: 1_000 if at < 60 else 1_000_000)
        with call.opened("publisher", "t", linger=60) as publisher:
            for number in range(200):
                face.call(publisher, "send", {"n": number, "text": "x" * 900})
            face.call(publisher, "flush")
            assert publisher.stats().delivered == 200
        slow = [size for begun, size, in_time in broker.attempts if in_time and begun < 60]
        fast = [size for begun, size, _ in broker.attempts if begun >= 60]
        assert max(slow) < 10_000 < 50_000 < max(fast)
        assert len(fast) <= 8
