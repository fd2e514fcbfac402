"""Spans by the thousand, and counters that must be exact at any time."""

from __future__ import annotations

import threading
from typing import Any

from cloud_runtimes.telemetry import SignalStats

__all__ = ["exact", "exact_at_any_time", "record"]


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
