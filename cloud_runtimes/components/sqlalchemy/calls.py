"""A call that can be stopped until it commits, and the thread that interrupts what a database does for it."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final

from ..._core.threads import Background, Mutex
from ...errors import ClosedError
from ...spi.operation import Operation

__all__ = ["Call", "Interrupter", "Watchdog"]

_GRACE: Final = 1.0
"""Seconds between the first request to cancel and the cut of the connection."""
_AGAIN: Final = 0.05
"""Seconds between two requests to cancel. A server ignores one that arrives before its statement."""


class Call:
    """One call, shared by its caller and the thread that works for it.

    Attributes:
        op: the operation.
        committing: whether it may be applied from now on.
        reason: why it was stopped.
        on_stop: wakes or interrupts the thread that works for it; may be called at any time, and again.
    """

    __slots__ = ("__weakref__", "_lock", "_stopped", "committing", "on_stop", "op", "reason")

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.committing = False
        self.reason = "given up by its caller"
        self.on_stop: Callable[[], Any] | None = None
        self._stopped = False
        self._lock = Mutex()

    def stop(self) -> bool:
        """End it soon, and tell whether it may be applied. After ``False`` nothing is committed."""
        with self._lock:
            self._stopped = True
            committing, on_stop = self.committing, self.on_stop
        if on_stop is not None:
            on_stop()
        return committing

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

    def commit(self) -> None:
        """Note that it may be applied from now on; raises where it must end before."""
        with self._lock:
            self.check()
            self.committing = self.op.method.writes


class Interrupter:
    """Interrupts the work of one connection: asks the database to cancel, then cuts the connection. The task of an async driver is cancelled.

    Attributes:
        fired: when the call of this moment was interrupted first; 0.0: not yet.
    """

    def __init__(self, watchdog: Watchdog, connection: Any, *, is_async: bool) -> None:
        self._watchdog = watchdog
        self._connection = connection
        self._is_async = is_async
        self._lock = Mutex()
        self._call: Call | None = None
        self._task: asyncio.Task[Any] | None = None
        self.fired = 0.0

    def begin(self, call: Call) -> None:
        """The connection works for ``call`` from now on."""
        self._call = call
        if self._is_async:
            self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        call.on_stop = self._watchdog.wake
        self._watchdog.add(call, self)

    def end(self, call: Call) -> bool:
        """It no longer does; tells whether it was interrupted. Then nobody else may have the connection."""
        self._watchdog.remove(call)
        with self._lock:  # a request to cancel must not meet the next statement
            self._call = None
            fired, self.fired = self.fired, 0.0
            self._task = None
            return fired > 0.0

    def fire(self, call: Call) -> None:
        """Interrupt; comes again until the call ends."""
        with self._lock:
            if self._call is not call:
                return
            now = monotonic()
            self.fired = self.fired or now
            left = self.fired + _GRACE - now
            if self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
            elif left <= 0.0 or call.committing:  # a commit cannot be taken back, but its answer may never come
                self._cut()
            else:
                self._cancel(left)

    def _cancel(self, seconds: float) -> None:
        try:
            for name, arguments in (("interrupt", {}), ("cancel_safe", {"timeout": seconds}), ("cancel", {})):
                if hasattr(self._connection, name):
                    getattr(self._connection, name)(**arguments)
                    return
        except Exception:  # it cannot be reached
            self._cut()

    def _cut(self) -> None:
        try:
            copy = socket.socket(fileno=os.dup(self._connection.fileno()))
        except Exception:
            return  # closed already, or without a socket
        try:
            copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            copy.close()


class Watchdog:
    """The thread that interrupts calls whose time is up, and gives ``reap`` what its owner left behind."""

    def __init__(self, reap: Callable[[Any], None]) -> None:
        self._reap = reap
        self._calls: dict[Call, Interrupter] = {}
        self._next = float("inf")
        # the put of a SimpleQueue is safe in a garbage collection (docs.python.org, queue)
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._thread = Background(self._run, "cloud-runtimes-watch")
        self._closed = False

    def add(self, call: Call, interrupter: Interrupter) -> None:
        """Watch a call."""
        self._calls[call] = interrupter
        self._thread.start()
        deadline = call.op.deadline
        if deadline is not None and deadline < self._next:  # else the thread looks in time
            self._next = deadline
            self.wake()

    def remove(self, call: Call) -> None:
        """Watch it no longer."""
        self._calls.pop(call, None)

    def wake(self) -> None:
        """Look at once."""
        self._queue.put(None)

    def own(self, owner: object, resource: object) -> Callable[[], Any]:
        """Have a resource reaped once nobody refers to its owner any longer; what is returned ends that."""
        self._thread.start()
        reaping = weakref.finalize(owner, self._queue.put, resource)
        reaping.atexit = False
        return reaping.detach

    def _run(self) -> None:
        while not (self._closed and self._queue.empty()):
            self._look()
            try:
                found = self._queue.get(timeout=min(max(0.001, self._next - monotonic()), 3600.0))
            except Empty:
                continue
            if found is not None:
                self._reap(found)
                del found

    def _look(self) -> None:
        """Interrupt what is due, and set the time of the next look.

        In a frame of its own: one that waits would keep the last call it saw, and all that this refers to.
        """
        self._next = float("inf")  # a call that comes meanwhile wakes the thread
        for call, interrupter in list(self._calls.items()):
            deadline, now = call.op.deadline, monotonic()
            if (call.is_stopped and not call.committing) or (deadline is not None and deadline <= now):
                interrupter.fire(call)
                deadline = now + _AGAIN
            if deadline is not None:
                self._next = min(self._next, deadline)

    def close(self, timeout: float) -> None:
        """Reap what is left, and end the thread."""
        self._closed = True
        self.wake()
        self._thread.join(timeout)
