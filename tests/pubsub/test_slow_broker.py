"""What a publisher makes of a slow broker: events come, and few of them twice."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from cloud_runtimes.pubsub import sender
from cloud_runtimes.testing import Api
from cloud_runtimes.testing.suites._base import Call, Suite
from cloud_runtimes.testing.suites.pubsub import drain
from tests.support.harnesses.embedded import MemoryHarness
from tests.support.harnesses.rows import rows
from tests.support.slow_broker import SlowBroker


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
        monkeypatch.setattr(sender, "_TAKE_BYTES", 48_000)
        broker = SlowBroker(monkeypatch, call.plain("_driver"), rate, latency)
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
        assert all(left >= 1.8 * right for left, right in pairwise(late))
        assert len(broker.stored) <= 3 * count
        came = drain(api, call, len(broker.stored))
        assert sorted(event.id for event in came) == sorted(broker.stored)
        order = {event.id: event.data["n"] for event in came}
        assert [order[id] for id in dict.fromkeys(broker.stored)] == list(range(count))

    def test_a_broker_that_recovers_gets_more_again(
        self, call: Call, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = call.plain("_driver")
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
