"""Locks, waiting and threads that a ``KeyboardInterrupt`` leaves whole.

``Thread.start`` waits for the new thread; after an interrupt of that wait, the caller does not know whether it runs. ``Condition.wait`` may return without its lock, which ``with`` then releases in vain.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import ClosedError, CloudRuntimesError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_ANNOUNCED: Final[Any] = object()
_LOOK: Final = 0.5
"""Seconds after which a waiting main thread looks whether a signal has come.

Handlers run in the main thread alone. A signal that another thread is given, or that comes just before the system's wait, does not end the wait.
"""


_RLock: Final[Any] = type(threading.RLock())
_mutexes: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


class _Mutex(_RLock):  # type: ignore[misc]
    """A lock that an interrupt on the way into its ``with`` block does not leave held.

    Until Python 3.13, ``with`` takes a lock and enters its block in one step. From 3.14 on, the interpreter looks for signals between the two.
    """

    def __enter__(self) -> Any:
        held = self._recursion_count()
        try:
            return self.acquire()
        except BaseException:
            if self._recursion_count() > held:
                self.release()
            raise


_Lock: Final[Any] = _Mutex if sys.version_info >= (3, 14) else _RLock


def Mutex() -> Any:
    """Return a re-entrant lock for threads of the application to take by ``with``; in a forked child it is free."""
    mutex = _Lock()
    _mutexes.add(mutex)
    return mutex


def free_mutexes() -> None:
    """In a forked child: free what other threads of the parent held, since they are not there to do it."""
    for mutex in list(_mutexes):
        if not mutex._is_owned():  # the thread that forked goes on, and frees its own
            mutex._at_fork_reinit()


class Changes:
    """Where threads and tasks wait for a change that another thread announces.

    Take a `ticket`, look whether the change has come, then `wait` with the ticket. A task does the same with a `future` and `wait_async`. Unlike `threading.Condition` it has no lock that an interrupted wait would have to take again. A waiter that gives up leaves nothing behind.
    """

    def __init__(self) -> None:
        # dicts, whose copying, adding and taking are whole on free-threaded builds too; a deque's copying is not
        self._tickets: dict[threading.Lock, None] = {}
        self._futures: dict[asyncio.Future[None], None] = {}

    def ticket(self) -> threading.Lock:
        """Return what the next `announce` releases."""
        ticket = threading.Lock()
        ticket.acquire()
        self._tickets[ticket] = None
        return ticket

    def wait(self, ticket: threading.Lock, timeout: float | None) -> bool:
        """Wait for the announcement at most ``timeout`` seconds; returns whether it came."""
        if _acquired(ticket, timeout):
            return True
        return self._tickets.pop(ticket, _ANNOUNCED) is _ANNOUNCED  # just now

    def future(self) -> asyncio.Future[None]:
        """Return a future of the running loop that the next `announce` resolves."""
        import asyncio

        future = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        return future

    async def wait_async(self, future: asyncio.Future[None], timeout: float | None) -> bool:
        """Asynchronous `wait`."""
        import asyncio

        try:
            # no wait_for: in Python 3.11 it swallows a cancellation that comes together with the result
            async with asyncio.timeout(timeout if timeout is None else max(0.0, timeout)):
                await future
        except TimeoutError:
            return self._futures.pop(future, _ANNOUNCED) is _ANNOUNCED  # just now
        except BaseException:  # above all CancelledError
            if self._futures.pop(future, _ANNOUNCED) is _ANNOUNCED:
                self.announce_to_one()  # it may have been for another
            raise
        return True

    def wait_for(self, look: Callable[[], T | None], timeout: float | None) -> T | None:
        """Return what ``look`` finds, asked again after each announcement while that is ``None`` or ``False``; ``None``: time is up."""
        end = None if timeout is None else monotonic() + timeout
        value = look()
        while value is None or value is False:
            ticket = self.ticket()
            value = look()
            if value is None or value is False:
                if not self.wait(ticket, None if end is None else end - monotonic()):
                    return None
            elif self._tickets.pop(ticket, _ANNOUNCED) is _ANNOUNCED:
                self.announce_to_one()  # it may have been for another
        return value

    async def wait_for_async(self, look: Callable[[], T | None], timeout: float | None) -> T | None:
        """Asynchronous `wait_for`."""
        end = None if timeout is None else monotonic() + timeout
        value = look()
        while value is None or value is False:
            future = self.future()
            value = look()
            if value is None or value is False:
                if not await self.wait_async(future, None if end is None else end - monotonic()):
                    return None
            elif self._futures.pop(future, _ANNOUNCED) is _ANNOUNCED:
                self.announce_to_one()  # it may have been for another
        return value

    def announce(self) -> None:
        """Wake all who have a ticket."""
        # woken first and taken off then: an interrupt between the two leaves nobody asleep
        for ticket in list(self._tickets):
            try:
                ticket.release()
            except RuntimeError:
                pass  # another announcement was faster
            self._tickets.pop(ticket, None)
        for future in list(self._futures):
            try:
                future.get_loop().call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                pass  # that loop is closed
            self._futures.pop(future, None)

    def announce_to_one(self) -> None:
        """Wake one of those who have a ticket, the last that came. Call it from a thread that no interrupt reaches: that would leave the one asleep."""
        try:
            self._tickets.popitem()[0].release()
            return
        except KeyError:
            pass
        while self._futures:
            try:
                future, _ = self._futures.popitem()
                future.get_loop().call_soon_threadsafe(_resolve, future)
                return
            except (KeyError, RuntimeError):
                pass  # another was faster, or that loop is closed


_limbo: Final[Any] = getattr(threading, "_active_limbo_lock", None) or threading.RLock()
"""What ``Thread.start`` takes by ``with``, which an interrupt may leave held as `Mutex` says."""


class Background:
    """A daemon thread that runs its target once, however often it is started."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._first = threading.Lock()
        self._over = False
        self._changes = Changes()
        self._ident: int | None = None
        self.started = False

    def start(self) -> None:
        """Start it; does nothing if it has started."""
        if not self.started:
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError as error:
                # from leaving the Condition in which it waited, in vain
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise error.__context__ from None
                raise
            except KeyboardInterrupt:
                if _limbo._is_owned():
                    _limbo.release()
                raise
            self.started = True

    def _run(self) -> None:
        if not self._first.acquire(blocking=False):
            return
        self.started = True
        self._ident = threading.get_ident()
        try:
            self._target()
        finally:
            self._ident = None  # the next thread may get the same
            self._over = True
            self._changes.announce()

    def is_current(self) -> bool:
        """Return whether the caller runs in it."""
        return self._ident == threading.get_ident()

    def join(self, timeout: float | None) -> bool:
        """Wait for its end at most ``timeout`` seconds; returns whether it has ended, or never began."""
        if not self.started or self.is_current():
            return not self.started
        ticket = self._changes.ticket()
        return self._over or self._changes.wait(ticket, timeout)


def in_background(
    name: str, call: Callable[[], object], pauses: Sequence[float] = (0.0,), *, again: bool = False
) -> None:
    """Make a call in a thread of its own, for work that a caller left behind.

    Args:
        name: of the thread, behind "cloud-runtimes-".
        pauses: seconds before each attempt. The next one follows a `CloudRuntimesError`; after the last one, or once its client is closed, it is given up.
        again: make them all, also after one that worked.
    """

    def run() -> None:
        for pause in pauses:
            sleep(pause)
            try:
                call()
            except ClosedError:
                return
            except CloudRuntimesError:
                continue
            if not again:
                return

    Background(run, f"cloud-runtimes-{name}").start()


def _acquired(ticket: threading.Lock, timeout: float | None) -> bool:
    end = None if timeout is None else monotonic() + timeout
    remaining = timeout
    if threading.current_thread() is threading.main_thread():
        while remaining is None or remaining > _LOOK:
            if ticket.acquire(timeout=_LOOK):
                return True
            remaining = None if end is None else end - monotonic()
    return ticket.acquire(timeout=-1 if remaining is None else max(0.0, remaining))


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
