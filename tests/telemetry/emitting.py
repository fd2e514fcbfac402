"""Spans by the thousand, counters that must be exact at any time, and what a receiver makes of requests."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cloud_runtimes.telemetry import SignalStats

__all__ = ["Received", "exact", "exact_at_any_time", "record"]


class Received:
    """The requests of a receiver, read by opentelemetry-proto."""

    requests: list[tuple[str, dict[str, Any], bytes]]

    def spans(self) -> list[Any]:
        """Return all spans received."""
        return self._of("trace", ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans")

    def logs(self) -> list[Any]:
        """Return all log records received."""
        return self._of("logs", ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records")

    def metrics(self) -> list[Any]:
        """Return all metrics received, in the order of their collection."""
        return self._of("metrics", ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics")

    def _of(self, signal: str, kind: Any, *levels: str) -> list[Any]:
        records: list[Any] = [kind.FromString(body) for path, _, body in list(self.requests) if signal in path]
        for level in levels:
            records = [each for above in records for each in getattr(above, level)]
        return records


def exact(stats: SignalStats) -> bool:
    return stats.recorded == stats.exported + sum(stats.dropped.values()) + stats.buffered


def record(telemetry: Any, count: int, **attributes: Any) -> None:
    tracer = telemetry.tracer("t")
    for _ in range(count):
        tracer.start_span("s", attributes=attributes).end()


def exact_at_any_time(telemetry: Any, each: int) -> None:
    """Record so many spans in each of four threads, whatever becomes of them, and look at the counters all the while."""
    ending = threading.Event()
    wrong: list[SignalStats] = []

    def watch() -> None:
        while not ending.is_set():
            stats = telemetry.stats().spans
            if not exact(stats):
                wrong.append(stats)

    watcher = threading.Thread(target=watch)
    emitters = [threading.Thread(target=record, args=(telemetry, each)) for _ in range(4)]
    for thread in (watcher, *emitters):
        thread.start()
    for thread in emitters:
        thread.join()
    telemetry.flush(60)
    ending.set()
    watcher.join()
    stats = telemetry.stats().spans
    assert not wrong
    assert (stats.recorded, stats.buffered) == (4 * each, 0)
    assert exact(stats)
