"""Metrics of telemetry itself, by OpenTelemetry's conventions for SDKs, where ``[telemetry] instrument`` is set: from the counters of the buffers, so recording costs nothing more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._meter import Meter, Observation
    from .types import SignalStats

_COMPONENT: Final = {"otel.component.type": "cloud_runtimes", "otel.component.name": "cloud_runtimes/0"}
# the conventions name this one; the other causes of ours are their own
_ERRORS: Final = {"buffer_full": "queue_full"}
# why a record never came to the exporter
_BEFORE: Final = frozenset({"buffer_full", "too_large", "failed", "invalid"})
_NOUNS: Final = {"traces": "span", "logs": "log", "metrics": "metric_data_point"}
_UNITS: Final = {"traces": "{span}", "logs": "{log_record}", "metrics": "{data_point}"}


def measure_itself(meter: Meter, stats: Callable[[str], SignalStats]) -> None:
    """Observe what became of records, and how many wait.

    Args:
        meter: whose instruments these are.
        stats: counters of a signal.
    """
    for signal, noun in _NOUNS.items():
        read, unit = partial(stats, signal), _UNITS[signal]
        exported = f"otel.sdk.exporter.{noun}.exported"
        meter.observable_counter(exported, partial(_exported, read), unit, "Records whose export has finished.")
        if signal != "metrics":
            processor = f"otel.sdk.processor.{noun}"
            meter.observable_counter(
                f"{processor}.processed", partial(_processed, read), unit, "Records that left the buffer."
            )
            meter.observable_up_down_counter(
                f"{processor}.queue.size", partial(_waiting, read), unit, "Records in the buffer."
            )


def _failed(stats: SignalStats, *, before: bool) -> list[tuple[int, dict[str, str]]]:
    return [
        (count, {**_COMPONENT, "error.type": _ERRORS.get(cause, cause)})
        for cause, count in stats.dropped.items()
        if (cause in _BEFORE) is before
    ]


def _exported(read: Callable[[], SignalStats]) -> list[Observation]:
    stats = read()
    return [(stats.exported, _COMPONENT), *_failed(stats, before=False)]


def _processed(read: Callable[[], SignalStats]) -> list[Observation]:
    stats = read()
    failed = _failed(stats, before=True)
    left = stats.recorded - stats.buffered - sum(count for count, _ in failed)
    return [(left, _COMPONENT), *failed]


def _waiting(read: Callable[[], SignalStats]) -> list[Observation]:
    return [(read().buffered, _COMPONENT)]
