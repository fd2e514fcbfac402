"""The spool of telemetry: batches lie on this machine first, and one process of the home sends them on.

That is the process that has locked a file beside the spool, which the system releases when it dies. It sends one request of
a signal at a time, of the oldest batches, for as long as that takes. After an outage batches leave a few times as fast as they
came, so that no flood meets the collector.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from .._core import fork
from .._core.backoff import Backoff
from .._core.logs import repeated
from .._core.os_files import BINARY
from .._core.os_locks import try_lock
from .._core.threads import Background, Changes
from ..errors import ClosedError, CloudRuntimesError, ResourceExhaustedError, UnavailableError, UnsupportedError
from ..spi.operation import Method, Operation
from ..spi.relay import OTLP, SPOOL, SpoolLog, SpoolSettings, Waiting, relay_name
from ..spi.telemetry import Exporter, RejectedError, RetryError
from .settings import SIGNALS
from .types import SignalSpool, TelemetrySpool

if TYPE_CHECKING:
    from .._service import ClientContext

_STORE: Final = Method("telemetry", "store", repeatable=False)
_FORWARD: Final = Method("telemetry", "forward", repeatable=False)
_TIMEOUT: Final = 10.0
_LOOK: Final = 1.0
"""Seconds between two looks for the lock, and for what other processes stored."""
_FASTER: Final = 4.0
"""How many times as fast as they came batches are sent after an outage."""
_GAP: Final = 1.0
"""Seconds between two batches, at most."""
_EXPIRE: Final = 10.0
"""Seconds between two looks for what is too old."""
_RETRIES: Final = Backoff(0.5, 10.0)
_CLOSING: Final = 10.0
"""Seconds for which it goes on at most while its client closes."""
_PATIENCE: Final = 2.0
"""Seconds in which the collector took nothing, after which closing gives up: nothing is lost by it."""


@dataclass
class _Line:
    """Sending of one signal.

    Attributes:
        due: when the next request may be sent.
        failures: of attempts, in a row.
        alone: how many batches are sent one by one, since the collector rejected them together.
        came_ms: when the last batch that was sent had been stored.
    """

    signal: str
    target: Exporter
    due: float = 0.0
    failures: int = 0
    alone: int = 0
    came_ms: int | None = None


class Spool:
    """See the module.

    Args:
        context: of the client.
        targets: the exporters, by signal.
        settings: of the spool.
        timeout: seconds for one attempt to send.

    Attributes:
        signals: that it takes.
        quiet: is entered around each export; see `Pipeline`.
    """

    def __init__(
        self, context: ClientContext, targets: Mapping[str, Exporter], settings: SpoolSettings, timeout: float
    ) -> None:
        self.signals = targets.keys()
        self.quiet: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._context = weakref.ref(context)  # a pipeline outlives its client
        self._targets = targets
        self._settings = settings
        self._timeout = timeout
        self._file = -1
        self._logs = self._open()
        self._begin()
        fork.register(self)

    def _begin(self) -> None:
        self._changes = Changes()
        self._thread = Background(self._run, "cloud-runtimes-telemetry-spool")
        self._lines = [_Line(signal, target) for signal, target in self._targets.items()]
        self._expire_at = 0.0
        self._sent = 0
        self._locked = self._closing = False

    def forked(self) -> None:
        """Begin anew in a forked child: the lock is the parent's."""
        self._close_file()
        self._begin()

    def revived(self) -> None:
        """Have logs of its own in a forked child, before its client may close."""
        self._reopen()

    def _open(self) -> dict[str, SpoolLog]:
        """Return the logs of all signals, without I/O."""
        if (context := self._context()) is None:
            raise ClosedError("the client of this telemetry is gone")
        runtime = context.runtime()
        logs = {signal: runtime.relay("telemetry", signal, relay_name(SPOOL, OTLP, signal)) for signal in SIGNALS}
        if None in logs.values():
            raise UnsupportedError(
                f"[telemetry] spool needs a store on this machine, which the runtime {runtime.name} does not have: remove "
                "it, or use the runtime capa"
            )
        return cast("dict[str, SpoolLog]", logs)

    def _reopen(self) -> None:
        """Give up the lock, and open the logs again, whose files may be others by now."""
        self._close_file()
        with suppress(CloudRuntimesError):  # the next call tells
            self._logs = self._open()

    def _close_file(self) -> None:
        file, self._file, self._locked = self._file, -1, False
        if file >= 0:
            os.close(file)

    # -- whoever stores, asks or closes --

    def is_sender(self) -> bool:
        """Return whether the caller runs in the thread that sends."""
        return self._thread.is_current()

    def start(self) -> None:
        """Have what waits sent from now on."""
        with suppress(RuntimeError):  # the interpreter ends: no more threads
            self._thread.start()

    def store(self, signal: str, body: bytes, count: int) -> None:
        """Store a batch of so many records.

        Raises:
            RetryError: it may be stored later.
            ResourceExhaustedError: there is no room.
        """
        try:
            # without a deadline: what may have been stored would be stored again
            self._logs[signal].append(Operation(_STORE, "telemetry", None), zlib.compress(body, 1), count)
        except ResourceExhaustedError as error:
            message = (
                f"the spool has no room for {signal}: the collector takes too little, or is away; raise max_bytes of "
                '[telemetry] spool, or set on_full = "drop_oldest"'
            )
            if self._settings.on_full == "block":
                raise RetryError(message) from error
            raise ResourceExhaustedError(message) from error
        except UnavailableError as error:
            with suppress(CloudRuntimesError):  # the files may be others by now
                self._logs = self._open()
            raise RetryError(str(error)) from error
        self._changes.announce()
        self.start()

    def stats(self, op: Operation) -> TelemetrySpool:
        """Count what waits, and what was sent so far."""
        return TelemetrySpool(*(SignalSpool.of(self._logs[signal].backlog(op)) for signal in SIGNALS))

    def close(self, timeout: float | None) -> None:
        """Send on as long as the collector takes something, within ``timeout`` seconds; leave the rest to other processes."""
        end = monotonic() + min(_CLOSING, _CLOSING if timeout is None else timeout)
        self._closing = True
        self._changes.announce()
        sent = -1
        over = self._thread.join(0.05)
        while not over and sent != self._sent and (remaining := end - monotonic()) > 0:
            sent = self._sent
            over = self._thread.join(0.0 if any(line.failures for line in self._lines) else min(_PATIENCE, remaining))
        if not over:
            for target in set(self._targets.values()):
                target.abort()
            self._thread.join(0.2)

    # -- the thread --

    def _run(self) -> None:
        while True:
            ticket = self._changes.ticket()
            closing = self._closing
            try:
                pause = self._round()
            except Exception as error:
                message = "telemetry: what waits in the spool is not sent at the moment: %s: %s"
                repeated("telemetry-spool", message, type(error).__name__, error)
                self._reopen()
                pause = None
            if closing and pause is None:
                break
            self._changes.wait(ticket, _LOOK if pause is None else pause)
        self._close_file()

    def _round(self) -> float | None:
        """Send what is due; return for how long to wait then, ``None``: there is nothing more to send for now."""
        if not self._lock():
            return None
        if monotonic() >= self._expire_at:
            self._expire_at = monotonic() + _EXPIRE
            for log in self._logs.values():
                log.expire(_operation(), self._settings.max_age)
        pauses = [self._send_oldest(line) for line in self._lines]
        return min((pause for pause in pauses if pause is not None), default=None)

    def _lock(self) -> bool:
        """Become the only process that sends, unless another is."""
        if self._file < 0:
            try:
                path = self._logs["traces"].lock_path  # one for all signals
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o600)
            except FileNotFoundError:  # no home, so nothing waits
                return False
        self._locked = self._locked or try_lock(self._file)
        return self._locked

    def _send_oldest(self, line: _Line) -> float | None:
        """Send the oldest batches of a signal if they are due; return the seconds until the next ones, ``None``: none are to be sent for now."""
        wait = line.due - monotonic()
        if wait > 0 and (line.failures or not self._closing):
            return None if line.failures else wait
        signal, log, limit = line.signal, self._logs[line.signal], line.target.batch_bytes
        waiting, _ = log.waiting(_operation(), None, 1 if line.alone else limit // 4, ())
        if not waiting:
            return None
        try:
            sent, body = _joined(waiting, limit)
            with self.quiet():
                rejected = line.target.export(signal, body, self._timeout)
            reason = "by partial success"
        except (RejectedError, zlib.error) as error:
            if len(waiting) > 1:  # others may do
                line.alone = len(waiting)
                return 0.0
            sent, rejected, reason = waiting, waiting[0].events, str(error)
        except Exception as error:
            line.failures += 1
            after = error.after if isinstance(error, RetryError) else None
            line.due = monotonic() + (_RETRIES.after(line.failures) if after is None else after)
            repeated(f"telemetry-retry-{signal}", "telemetry: %s wait in the spool: %s", signal, error)
            return None
        events = sum(each.events for each in sent)
        rejected = min(rejected, events)
        if rejected:
            message = "telemetry: %d of %d %s were rejected: %s"
            repeated(f"telemetry-rejected-{signal}", message, rejected, events, signal, reason)
        log.settle(_operation(), sent, events - rejected, rejected)
        self._sent += 1
        line.failures, line.alone = 0, max(0, line.alone - 1)
        came = sent[-1].created_ms or 0
        pause = 0.0 if line.came_ms is None else min(max(0.0, (came - line.came_ms) / 1000 / _FASTER), _GAP)
        line.came_ms, line.due = came, monotonic() + pause
        return pause


def _joined(waiting: Sequence[Waiting], limit: int) -> tuple[Sequence[Waiting], bytes]:
    """Return the first batches, and one request of them: messages of protobuf behind each other are one."""
    bodies: list[bytes] = []
    for each in waiting:
        body = zlib.decompress(each.frame)
        limit -= len(body)
        if bodies and limit < 0:
            break
        bodies.append(body)
    return waiting[: len(bodies)], b"".join(bodies)


def _operation() -> Operation:
    return Operation(_FORWARD, "telemetry", _TIMEOUT)
