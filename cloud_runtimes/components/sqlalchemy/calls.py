"""One call of a database that can be interrupted until it commits, and how a database is interrupted."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from ..._core.threads import Background, Changes, Mutex
from ...errors import ClosedError
from ...spi.operation import Operation

__all__ = ["Call", "Interrupter", "SqliteInterrupter", "Watch", "WatchedInterrupter"]

_GRACE: Final = 1.0
"""Seconds between asking a server to cancel and cutting its connection."""
_AGAIN: Final = 0.05
"""Seconds after which a server is asked again: one that has not begun the statement yet takes no notice."""
_TICK: Final = 10_000
"""Instructions of SQLite's machine between two looks: about half a millisecond."""


class Call:
    """What is known of one call by the thread that runs it and by whoever waits for it.

    Attributes:
        op: the operation.
        committing: whether it has passed the point behind which it may be applied.
        connecting: whether a connection is being made for it; a driver that is cancelled then may drop it without closing it.
        reason: why it was stopped.
        abandon: what is still to be done once its caller has given up; may come at any time, and again.
    """

    __slots__ = (
        "_claimed",
        "_lock",
        "_next",
        "_stopped",
        "_working",
        "abandon",
        "committing",
        "connecting",
        "op",
        "reason",
    )

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.committing = False
        self.connecting = False
        self.reason = "given up by its caller"
        self.abandon: Callable[[Call], None] | None = None
        self._claimed = False
        self._working = False
        self._stopped = False
        self._next: Call | None = None
        self._lock = Mutex()

    def follow(self, other: Call) -> None:
        """Have ``other``, a later part of the same call, be stopped with this one."""
        with self._lock:
            self._next = other
            if self._stopped:
                other.stop()

    def claim(self, *, working: bool = False) -> bool:
        """Tell whether the caller is the first to come: the thread that begins the work (``working``), or whoever gave up before."""
        with self._lock:
            if not self._claimed:
                self._claimed, self._working = True, working
                return True
            return False

    def is_forgone(self) -> bool:
        """See to it that nobody begins the work, and tell whether nobody has."""
        with self._lock:
            self._claimed = True
            return not self._working

    def stop(self) -> bool:
        """Have it end soon; tells whether it may have been applied. Once it has answered no, nothing is committed."""
        with self._lock:
            self._stopped = True
            return self.committing or (self._next is not None and self._next.stop())

    @property
    def is_stopped(self) -> bool:
        """Whether nobody waits for it any longer."""
        return self._stopped

    def is_due(self) -> bool:
        """Tell whether it must end."""
        deadline = self.op.deadline
        return not self.committing and (self._stopped or (deadline is not None and monotonic() >= deadline))

    def check(self) -> None:
        """Raise where it must end."""
        if self._stopped:
            raise ClosedError(self.reason)
        if self.is_due():
            raise self.op.timed_out("the database")

    def end(self) -> bool:
        """Pass the point behind which stopping it comes too late; ``True``."""
        with self._lock:
            self.check()
            return True

    def commit(self) -> None:
        """Pass the point behind which it may be applied."""
        with self._lock:
            self.check()
            self.committing = self.op.method.writes or self.op.method.name == "commit"


class Interrupter:
    """How work on one connection is interrupted; this one cannot."""

    def begin(self, call: Call) -> None:
        """The connection works for ``call`` from now on."""

    def end(self, call: Call) -> bool:
        """It no longer does; tells whether it was interrupted, after which nobody else may have the connection."""
        return False


class SqliteInterrupter(Interrupter):
    """SQLite asks every so often whether to go on (sqlite.org/c3ref/progress_handler.html)."""

    def __init__(self, connection: Any) -> None:
        self._call: Call | None = None
        connection.set_progress_handler(self._tick, _TICK)

    def begin(self, call: Call) -> None:
        self._call = call

    def end(self, call: Call) -> bool:
        self._call = None
        return False

    def _tick(self) -> int:
        call = self._call
        return int(call is not None and call.is_due())


class WatchedInterrupter(Interrupter):
    """A server is asked by another thread to cancel; one that does not answer has its connection cut."""

    def __init__(self, watch: Watch, connection: Any) -> None:
        self._watch = watch
        self._connection = connection
        self._lock = Mutex()
        self._call: Call | None = None
        self._fired = 0.0

    def begin(self, call: Call) -> None:
        self._call = call
        self._watch.add(call, self)

    def end(self, call: Call) -> bool:
        self._watch.remove(call)
        with self._lock:
            self._call = None
            fired, self._fired = self._fired, 0.0
            return fired > 0.0

    def fire(self, call: Call) -> float | None:
        """Interrupt; returns the seconds after which to come again."""
        with self._lock:
            if self._call is not call:
                return None
            now = monotonic()
            self._fired = self._fired or now
            left = self._fired + _GRACE - now
            if left <= 0.0 or call.committing:  # a commit cannot be taken back, but its answer may never come
                self._cut()
                return None
            try:
                cancel = getattr(self._connection, "cancel_safe", None)
                if cancel is None or inspect.iscoroutinefunction(cancel):
                    self._connection.cancel()
                else:
                    cancel(timeout=left)
            except Exception:  # it cannot be reached
                self._cut()
                return None
            return _AGAIN

    def _cut(self) -> None:
        try:
            copy = socket.socket(fileno=os.dup(self._connection.fileno()))
        except Exception:
            return  # closed already, or no socket that we know of
        try:
            copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            copy.close()


@dataclass(slots=True)
class _Watched:
    """A call that is watched; ``at``: when it is to be interrupted, or interrupted again."""

    interrupter: WatchedInterrupter
    at: float | None
    fired: bool = False


class Watch:
    """The thread that interrupts calls whose time is up; started by the first call that has a limit."""

    def __init__(self) -> None:
        self._calls: dict[Call, _Watched] = {}
        self._changes = Changes()
        self._thread = Background(self._run, "cloud-runtimes-watch")
        self._closed = False

    def add(self, call: Call, interrupter: WatchedInterrupter) -> None:
        """Watch a call."""
        self._calls[call] = _Watched(interrupter, call.op.deadline)
        self._changes.announce()
        self._thread.start()

    def remove(self, call: Call) -> None:
        """Watch it no longer."""
        self._calls.pop(call, None)

    def wake(self) -> None:
        """A call was stopped: look at once."""
        self._changes.announce()

    def _run(self) -> None:
        while not self._closed:
            ticket = self._changes.ticket()
            self._changes.wait(ticket, self._look())

    def _look(self) -> float | None:
        """Interrupt what is due; returns the seconds to the next look, ``None``: when something changes.

        In a frame of its own: one that waits would keep the last call it saw, and with it a transaction that nobody else refers to.
        """
        now, earliest = monotonic(), float("inf")
        for call, watched in list(self._calls.items()):
            if call.is_stopped and not call.committing and not watched.fired:
                watched.at = now
            if watched.at is not None and watched.at <= now:
                watched.fired = True
                again = watched.interrupter.fire(call)
                watched.at = None if again is None else monotonic() + again
            if watched.at is not None:
                earliest = min(earliest, watched.at)
        return None if earliest == float("inf") else max(0.001, earliest - monotonic())

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._changes.announce()
