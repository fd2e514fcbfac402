"""From the buffers to the exporters: one thread that takes, sends, waits and counts.

Each signal has its own `Buffer`. The thread takes what is sealed, seals what is older than the signal's delay, and sends one batch at a time. It retries a batch for ``retry_timeout``, then it is dropped; meanwhile the buffer fills and drops what comes, so memory stays bounded. Nobody who records ever waits for it.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from .._core import fork
from .._core.backoff import Backoff
from .._core.heap import keep_freed
from .._core.logs import repeated
from .._core.threads import Background, Changes
from .._native import telemetry as kernel
from ..spi.telemetry import Exporter, RejectedError, RetryError
from ._meter import Meter
from ._wire import request
from .other_sdk import join_other
from .types import SignalStats

if TYPE_CHECKING:
    from .._service import ClientContext
    from ._spool import Spool

CHUNK_BYTES: Final = 1 << 20
_REJECTED, _UNREACHABLE, _EXPORT_ERROR, _CLOSED = map(
    kernel.CAUSES.index, ("rejected", "unreachable", "export_error", "closed")
)
_RETRIES: Final = Backoff(0.5, 10.0)
_PATIENCE: Final = 5.0
"""Seconds in which nothing was accepted, after which closing gives up: a program must not wait long for telemetry alone."""


class Pipeline:
    """Buffers, their thread, and their exporters, by signal. A delay is the seconds after which a record leaves that did not fill a chunk; of metrics those between two collections.

    `quiet` is entered around each export, so that instrumentations do not trace what sends their spans. What a `spool` takes is exported once it is stored. Records are `placed` where the configuration says where they go.
    """

    def __init__(
        self,
        exporters: Mapping[str, Exporter],
        delays: Mapping[str, float],
        resource: Callable[[], bytes],
        *,
        buffer_bytes: int,
        timeout: float,
        retry_timeout: float,
        spool: Spool | None = None,
        placed: bool = True,
    ) -> None:
        self.buffers = {
            signal: kernel.Buffer(
                buffer_bytes=buffer_bytes,
                # a collection is one batch if it can be
                chunk_bytes=min(exporter.batch_bytes * 7 // 8 if signal == "metrics" else CHUNK_BYTES, buffer_bytes),
                ready=self._ready,
            )
            for signal, exporter in exporters.items()
        }
        keep_freed(2 * CHUNK_BYTES)
        self.scopes: list[bytes] = []
        self.meters: list[Meter] = []
        self.quiet: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.spool = spool
        if spool is not None:
            spool.quiet = lambda: self.quiet()
            spool.start()
        self._make_resource = resource
        self.resource = resource()
        self._exporters = exporters
        self._delays = delays
        self._timeout = timeout
        self._retry_timeout = retry_timeout
        self._placed = placed
        self.closed = False
        self._begin()
        fork.register(self)

    def _begin(self) -> None:
        self._changes = Changes()  # wakes the thread
        self._done = Changes()  # wakes who flushes
        self._thread = Background(self._run, "cloud-runtimes-telemetry")
        self._due: dict[str, float] = {}
        self._wanted = self._flushed = 0
        self._lost = 0
        self._stopping = False

    def forked(self) -> None:
        """Begin empty in a forked child: the parent sends what it has."""
        self.resource = self._make_resource()
        for buffer in self.buffers.values():
            buffer.reset()
            if self.closed:
                buffer.close()
        for exporter in set(self._exporters.values()):
            exporter.forked()
        self._begin()
        for meter in self.meters:
            meter.forked()
        if not self.closed and any(meter.instruments for meter in self.meters):
            self._ready()  # nothing else would: measuring calls nobody

    def watch(self) -> None:
        """Begin to collect: there is an instrument."""
        if not self.closed:
            self._ready()

    # -- whoever records, flushes or closes --

    def _ready(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            return  # the interpreter ends: no more threads
        self._changes.announce()

    def is_sender(self) -> bool:
        """Return whether the caller runs in the thread that sends."""
        return self._thread.is_current() or (self.spool is not None and self.spool.is_sender())

    def stats(self, signal: str) -> SignalStats:
        """Return one snapshot of a signal's counters."""
        recorded, exported, dropped, buffered, size = self.buffers[signal].stats()
        causes = {cause: count for cause, count in zip(kernel.CAUSES, dropped, strict=True) if count}
        return SignalStats(recorded, exported, causes, buffered, size)

    def _dropped(self) -> int:
        return sum(sum(buffer.stats()[2]) for buffer in self.buffers.values())

    def _accepted(self) -> int:
        return sum(buffer.stats()[1] for buffer in self.buffers.values())

    def flush(self, timeout: float | None, patience: float | None = None) -> bool:
        """Send all that was recorded before; return whether it was accepted within ``timeout`` seconds.

        ``False`` is also the answer where something was dropped since the flush before, and where nothing is accepted for ``patience`` seconds.
        """
        if self.is_sender():
            return False
        end = None if timeout is None else time.monotonic() + timeout
        ends = self._wanted = self._wanted + 1
        if not self.meters and not any(buffer.stats()[3] for buffer in self.buffers.values()):
            self._flushed = max(self._flushed, ends)
        else:
            self._ready()
        while self._flushed < ends:
            ticket = self._done.ticket()
            if self._flushed >= ends:
                break
            if not self._thread.started or self._stopping:
                return False
            remaining = None if end is None else end - time.monotonic()
            if remaining is not None and remaining <= 0:
                return False
            accepted = self._accepted()
            if patience is not None:
                remaining = patience if remaining is None else min(remaining, patience)
            if not self._done.wait(ticket, remaining) and (patience is None or self._accepted() == accepted):
                return False
        dropped = self._dropped()
        lost, self._lost = dropped - self._lost, dropped
        return lost == 0

    def close(self, timeout: float | None) -> bool:
        """Take nothing more, send what there is within ``timeout`` seconds, drop and count the rest; give up where nothing is accepted for 5 s."""
        if self.closed:
            return True
        self.closed = True
        end = None if timeout is None else time.monotonic() + timeout
        for signal, buffer in self.buffers.items():
            if signal != "metrics":  # collected once more by the flush
                buffer.close()
        good = self.flush(timeout, _PATIENCE)
        self.buffers["metrics"].close()
        self._stopping = True
        if self.spool is not None:
            self.spool.close(None if end is None else max(0.0, end - time.monotonic()))
        if not good:
            for exporter in self._exporters.values():
                exporter.abort()
        self._changes.announce()
        if self._thread.join(0.1):
            self._drop_rest()
            for exporter in set(self._exporters.values()):
                exporter.close()
        return good

    def _drop_rest(self) -> None:
        for buffer in self.buffers.values():
            buffer.seal()
            for chunk in buffer.take(1 << 62):
                buffer.settle(chunk.count, len(chunk.body), chunk.count, _CLOSED)

    # -- the thread --

    def _run(self) -> None:
        while not self._stopping:
            ticket = self._changes.ticket()
            wanted = self._wanted
            now = time.monotonic()
            wait: float | None = None
            if self.meters:
                due = self._due.setdefault("collection", now + self._delays["metrics"])
                if wanted > self._flushed or due <= now:
                    self._collect()
                    due = self._due["collection"] = max(due, now) + self._delays["metrics"]
                wait = due - now
            for signal, buffer in self.buffers.items():
                buffered = buffer.stats()[3]
                if not buffered:
                    self._due.pop(signal, None)
                    continue
                due = self._due.setdefault(signal, now + (0 if signal == "metrics" else self._delays[signal]))
                if wanted > self._flushed or due <= now:
                    buffer.seal()
                    self._due.pop(signal, None)
                else:
                    wait = due - now if wait is None else min(wait, due - now)
            try:
                sent = self._send_all()
            except Exception as error:  # such as MemoryError: what was taken is counted, the next batch may do
                repeated("telemetry-sender", "telemetry: sending failed: %s: %s", type(error).__name__, error)
                sent = self._pause(1.0)
            if not sent and wanted == self._flushed:
                self._changes.wait(ticket, wait)
            if wanted > self._flushed:
                self._flushed = wanted
                self._done.announce()
        self._drop_rest()
        self._done.announce()

    def _collect(self) -> None:
        now = time.time_ns()
        for meter in list(self.meters):
            meter.collect(self.buffers["metrics"], now)

    def _send_all(self) -> bool:
        """Send what is sealed; return whether there was anything."""
        any_sent = False
        for signal, buffer in self.buffers.items():
            while not self._stopping and (chunks := buffer.take(self._room(signal))):
                any_sent = True
                count, size = sum(chunk.count for chunk in chunks), sum(len(chunk.body) for chunk in chunks)
                rejected, cause = count, _EXPORT_ERROR
                try:
                    if (other := join_other(placed=self._placed)) is not None:
                        self.quiet = other.quiet
                    body = request(self.resource, self.scopes, chunks)
                    del chunks
                    rejected, cause = self._send(signal, body, count)
                finally:
                    buffer.settle(count, size, rejected, cause)
        return any_sent

    def _room(self, signal: str) -> int:
        """Return how many bytes of records a batch may have beside what stands around them."""
        limit = self._exporters[signal].batch_bytes
        head = len(self.resource) + sum(len(scope) + 16 for scope in list(self.scopes)) + 32
        return max(limit // 2, limit - head)

    def _send(self, signal: str, body: bytes, count: int) -> tuple[int, int]:
        """Send one batch until it is accepted or given up; return how many were dropped, and why."""
        end = time.monotonic() + self._retry_timeout
        failures = 0
        exporter = self._exporters[signal]
        while True:
            try:
                if self.spool is not None and signal in self.spool.signals:
                    self.spool.store(signal, body, count)
                    return 0, _REJECTED
                with self.quiet():
                    refused = min(exporter.export(signal, body, self._timeout), count)
                if refused:
                    repeated(
                        "telemetry-partial", "telemetry: the endpoint rejected %d of %d %s", refused, count, signal
                    )
                return refused, _REJECTED
            except RetryError as error:
                failures += 1
                wait = error.after if error.after is not None else _RETRIES.after(failures)
                repeated(f"telemetry-retry-{signal}", "telemetry: %s cannot be sent: %s", signal, error)
                if time.monotonic() + wait >= end:
                    return count, _UNREACHABLE
                if not self._pause(wait):
                    return count, _CLOSED
            except RejectedError as error:
                repeated(f"telemetry-rejected-{signal}", "telemetry: %d %s were rejected: %s", count, signal, error)
                return count, _REJECTED
            except Exception as error:
                repeated(
                    f"telemetry-failed-{signal}",
                    "telemetry: the exporter failed, %d %s are dropped: %s: %s",
                    count,
                    signal,
                    type(error).__name__,
                    error,
                )
                return count, _EXPORT_ERROR

    def _pause(self, seconds: float) -> bool:
        """Wait between attempts; `False` where the pipeline closes."""
        end = time.monotonic() + seconds
        while not self._stopping:
            ticket = self._changes.ticket()
            remaining = end - time.monotonic()
            if remaining <= 0:
                return True
            if not self._stopping:
                self._changes.wait(ticket, remaining)
        return False


# -- the end of the process ---------------------------------------------------
# At exit a client that was not closed sends its records itself; here are those of clients that are gone.

_kept: list[tuple[Pipeline, weakref.ref[ClientContext]]] = []


def keep(pipeline: Pipeline, context: ClientContext) -> None:
    """Have what is in a pipeline sent at exit, also if its client is collected before: tracers outlive it."""
    _kept[:] = [entry for entry in _kept if not entry[0].closed]
    _kept.append((pipeline, weakref.ref(context)))


@atexit.register
def _send_orphans() -> None:
    for pipeline, context in _kept:
        if context() is None:
            pipeline.close(5.0)
