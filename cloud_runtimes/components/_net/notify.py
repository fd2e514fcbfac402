"""Notifications that a server sends: one connection and one thread serve all waiters of a process.

A lost notification costs a waiter at most `NET` seconds: then it looks by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from time import monotonic
from typing import ClassVar, Final, Protocol

from ..._core import fork
from ..._core.backoff import Backoff
from ..._core.logs import repeated
from ..._core.threads import Background, Changes, Mutex
from ..._core.waker import Waker

NET: Final = 2.0
"""Seconds after which a waiter looks by itself."""
_NET_ALONE: Final = 0.5
"""The same while no connection listens."""
_PAUSES: Final = Backoff(0.1, 5.0)
_STEADY: Final = 5.0
"""Seconds after which a connection that ends is made anew soon."""
_QUIET_MS: Final = 30_000


class Waiter:
    """A subscriber of a channel. One thread or task waits; any thread may `wake` it."""

    def __init__(self, notifier: Notifier, channel: str) -> None:
        self._notifier = notifier
        self.channel = channel
        self._changes = Changes()
        self._woken = False

    def wake(self) -> None:
        """Wake it. A call before the wait counts."""
        self._woken = True
        self._changes.announce()

    def wait(self, timeout: float) -> None:
        """Return when woken, or after ``timeout`` seconds, `NET` at most."""
        ticket = self._changes.ticket()
        if not self._woken:
            self._changes.wait(ticket, min(timeout, self._notifier.net))
        self._woken = False

    async def wait_async(self, timeout: float) -> None:
        """Asynchronous `wait`."""
        future = self._changes.future()
        if not self._woken:
            await self._changes.wait_async(future, min(timeout, self._notifier.net))
        self._woken = False

    def close(self) -> None:
        """Unsubscribe."""
        self._notifier.remove(self)


class Listener(Protocol):
    """A connection that gets notifications. Its methods belong to the notifier's thread."""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""

    def follow(self, fresh: Collection[str], stale: Collection[str]) -> Iterable[str]:
        """Listen to fresh channels and no longer to stale ones; returns those that are listened to by now."""

    def receive(self) -> Iterable[str]:
        """Return the channels that were notified, or that are listened to from now on. Does not wait."""

    def ask(self) -> None:
        """Find out whether a server that was quiet for long is still there: raise at once, or by the next call."""

    def close(self) -> None:
        """Close it without waiting."""


class Notifier(ABC):
    """The channels of one server. A component says how to `connect`.

    Attributes:
        failures: of a connection; it is made anew then.
        count: how many connections have listened until now. Another number means that notifications may have been missed.
    """

    failures: ClassVar[tuple[type[Exception], ...]]
    _waker: Waker | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = False
        self._listener: Listener | None = None
        self.count = 0
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child nobody listens, and waiters are the parent's. Closing copies of its sockets leaves the parent its own."""
        if self._waker is not None:
            self._waker.close()
        if self._listener is not None:
            fork.keep(self._listener)
        self._lock = Mutex()
        self._waiters: dict[str, set[Waiter]] = {}
        self._listening: set[str] = set()
        self._listener = None
        self._thread: Background | None = None
        self._waker = None

    @abstractmethod
    def connect(self) -> Listener:
        """Return a new connection that listens to nothing yet."""

    @property
    def net(self) -> float:
        """Seconds after which a waiter looks by itself."""
        return _NET_ALONE if self._listener is None else NET

    def subscribe(self, channel: str) -> Waiter:
        """Return a new waiter on a channel. It is woken once the channel is listened to, since what was notified before may not have reached it."""
        waiter = Waiter(self, channel)
        with self._lock:
            self._waiters.setdefault(channel, set()).add(waiter)
            if self._thread is None and not self._closed:
                self._waker = Waker()
                self._thread = Background(self._run, f"cloud-runtimes-{self._name}-listen")
                self._thread.start()
            elif channel in self._listening:
                waiter.wake()
        self._wake_thread()
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter from its channel."""
        with self._lock:
            waiters = self._waiters.get(waiter.channel)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[waiter.channel]
        self._wake_thread()

    def notify_here(self, channels: Iterable[str]) -> None:
        """Wake the waiters of this process at once."""
        if self._waiters:
            with self._lock:
                waiters = [waiter for channel in channels for waiter in self._waiters.get(channel, ())]
            for waiter in waiters:
                waiter.wake()

    def wake_all(self) -> None:
        """Wake all waiters of this process."""
        self.notify_here(list(self._waiters))

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._wake_thread()
        if self._thread is not None:
            self._thread.join(1.0)

    def _wake_thread(self) -> None:
        if (waker := self._waker) is not None:
            waker.wake()

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        waker = self._waker
        assert waker is not None
        failures = 0
        generation = fork.generation()
        while not self._closed and generation == fork.generation():
            began = monotonic()
            try:
                self._listen(waker)
            except self.failures as error:
                if not self._closed:
                    name = f"{self._name} listen"
                    repeated(name, "listening for notifications failed, polling until it works: %s", error)
            finally:
                listener, self._listener = self._listener, None
                self._listening = set()
                if listener is not None:
                    listener.close()
            self.wake_all()  # what was notified meanwhile is not known
            failures = 1 if monotonic() - began > _STEADY else failures + 1
            end = monotonic() + _PAUSES.after(failures)
            while not self._closed and (remaining := end - monotonic()) > 0:
                waker.wait(None, remaining)
        waker.close()

    def _listen(self, waker: Waker) -> None:
        self._listener = listener = self.connect()
        self.count += 1
        while not self._closed:
            self._follow(listener)
            self.notify_here(listener.receive())
            if waker.wait(listener, _QUIET_MS / 1000) is None:
                listener.ask()

    def _follow(self, listener: Listener) -> None:
        """Listen to the channels that have waiters, and to no others."""
        with self._lock:
            wanted = set(self._waiters)
            fresh, stale = sorted(wanted - self._listening), sorted(self._listening - wanted)
            self._listening = wanted
        if fresh or stale:
            self.notify_here(listener.follow(fresh, stale))
