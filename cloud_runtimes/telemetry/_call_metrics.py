"""Metrics of calls and subscriptions, by OpenTelemetry's conventions where there are any, where ``[telemetry] instrument`` is set."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import TYPE_CHECKING, Any, Final

from ..spi.pubsub import Deliveries

if TYPE_CHECKING:
    from ..spi.pubsub import Delivery
    from ._meter import Meter

# of messaging and RPC metrics, such as "messaging.process.duration"
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_DURATIONS: Final = {
    "messaging.client.operation.duration": ("Time of publishing.", _BOUNDS),
    "rpc.client.call.duration": ("Time of calls.", _BOUNDS),
    "rpc.server.call.duration": ("Time of handlers of calls.", _BOUNDS),
    "db.client.operation.duration": ("Time of calls of databases.", (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)),
}
# of spans, but of no metric
_SINGLE: Final = ("messaging.batch.message_count", "db.operation.batch.size")
_AGES: Final = (*_BOUNDS, 30, 60, 300, 900, 3600, 14400, 86400)
_ANSWERS: Final = {"handled": "ack", "retried": "retry", "dropped": "drop"}


class CallMetrics:
    """Metrics of calls that have a convention; each is made when it is needed."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._made: dict[str, Any] = {}

    def record(
        self, name: str, attributes: dict[str, Any], seconds: float, error_type: str | None, sent: int = 0
    ) -> None:
        """Record how long a call took, and how many events it sent; the attributes of its span are used up."""
        for key in _SINGLE:
            attributes.pop(key, None)
        if error_type is not None:
            attributes["error.type"] = error_type
        duration = self._made.get(name)
        if duration is None:
            description, bounds = _DURATIONS[name]
            explicit = bounds if self._meter.explicit else None
            duration = self._made[name] = self._meter.histogram(name, "s", description, bounds=explicit)
        duration.record(seconds, attributes)
        if sent:
            counter = self._made.get("sent")
            if counter is None:
                name = "messaging.client.sent.messages"
                counter = self._made["sent"] = self._meter.counter(name, "{message}", "Events that were sent.")
            counter.add(sent, attributes)


class SubscriptionMetrics:
    """Metrics of one subscription; subscriptions of the same ``attributes`` add up.

    Attributes:
        processing: of spans and metrics of its handler.
    """

    def __init__(self, meter: Meter, attributes: dict[str, Any]) -> None:
        durations, ages = (_BOUNDS, _AGES) if meter.explicit else (None, None)
        self.processing = attributes
        self._durations = meter.histogram("messaging.process.duration", "s", "Time of handlers.", bounds=durations)
        self._duration = self._durations.bind(attributes)
        own = {name: value for name, value in attributes.items() if not name.startswith("messaging.operation.")}
        receiving = {**own, "messaging.operation.name": "receive", "messaging.operation.type": "receive"}
        received = meter.counter("messaging.client.consumed.messages", "{message}", "Events that came.")
        self._received = received.bind(receiving)
        self._age = meter.histogram("cloud_runtimes.pubsub.age", "s", "Age at delivery.", bounds=ages).bind(own)
        settled = meter.counter("cloud_runtimes.pubsub.settled", "{event}", "Answers.")
        again = meter.counter("cloud_runtimes.pubsub.redelivered", "{event}", "Deliveries that were not the first.")
        waiting = meter.up_down_counter("cloud_runtimes.pubsub.waiting", "{event}", "Events that wait for their key.")
        self._counters = {
            name: settled.bind({**own, "cloud_runtimes.pubsub.settlement": answer}) for name, answer in _ANSWERS.items()
        } | {"redelivered": again.bind(own), "waiting": waiting.bind(own)}
        self._told = dict.fromkeys(self._counters, 0)

    def __call__(self, stats: Any, deliveries: Sequence[Delivery]) -> None:
        """Tell what has changed, and the age of what came; no difference of clocks makes it negative."""
        for name, counter in self._counters.items():
            value = getattr(stats, name)
            if value != self._told[name]:
                counter.add(value - self._told[name])
                self._told[name] = value
        if not deliveries:
            return
        self._received.add(len(deliveries))
        groups = [records for records, _ in deliveries.groups] if isinstance(deliveries, Deliveries) else None
        now, record = time() * 1e6, self._age.record
        for records in groups or [[each.record for each in deliveries]]:
            for each in records:
                record(max(0.0, (now - each.time_us) / 1e6))

    def processed(self, seconds: float, error_type: str | None) -> None:
        """Record how long a handler took, and what type its error was of."""
        if error_type is None:
            self._duration.record(seconds)
        else:
            self._durations.record(seconds, {**self.processing, "error.type": error_type})
