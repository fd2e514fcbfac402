"""A broker that is slow, before a driver that is not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cloud_runtimes.pubsub import _sending, sender
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.spi.pubsub import Failures, OutgoingBatch, PubSubDriver

__all__ = ["SlowBroker"]

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
        for module in (sender, _sending):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
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
        result = self._inner(Operation(_STORE, op.component, None), batch)
        self.now += min(needs, op.timeout)
        if needs > op.timeout:
            raise op.timed_out("a slow broker")
        return result
