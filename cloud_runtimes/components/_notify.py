"""Notifications that a server sends: one connection and one thread serve all waiters of a process.

A lost notification costs a waiter at most `NET` seconds: then it looks by itself.
"""

from __future__ import annotations

import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar, Final, Protocol

from .._core import fork
from .._core.logs import repeated
from .._core.os_sockets import POLLIN, poll
from .._core.threads import Background, Changes, Mutex

__all__ = ["NET", "Listener", "Notifier", "Waiter"]

NET: Final = 2.0
"""Seconds after which a waiter looks by itself."""
_NET_ALONE: Final = 0.5
"""The same while no connection listens."""
_BACK_OFF: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_QUIET_MS: Final = 30_000
_inherited: list[Any] = []
"""Of a parent process; kept, since closing a TLS connection would end it for the parent."""


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
    _wakers: tuple[socket.socket, socket.socket] | None = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = False
        self._listener: Listener | None = None
        self.count = 0
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child nobody listens, and waiters are the parent's. Closing copies of its sockets leaves the parent its own."""
        for end in self._wakers or ():
            end.close()
        if self._listener is not None:
            _inherited.append(self._listener)
        self._lock = Mutex()
        self._waiters: dict[str, set[Waiter]] = {}
        self._listening: set[str] = set()
        self._listener = None
        self._thread: Background | None = None
        self._wakers = None

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
                self._wakers = socket.socketpair()
                for end in self._wakers:
                    end.setblocking(False)
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
        if (wakers := self._wakers) is not None:
            with suppress(OSError):  # full: it looks anyway
                wakers[1].send(b"!")

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        generation = fork.generation()
        while not self._closed and generation == fork.generation():
            began = monotonic()
            try:
                self._listen()
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
            if monotonic() - began > _BACK_OFF[-1]:
                failures = 0
            end = monotonic() + _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
            failures += 1
            while not self._closed and (left := end - monotonic()) > 0:
                self._sleep(left)
        if self._wakers is not None:
            for each in self._wakers:
                each.close()

    def _sleep(self, seconds: float) -> None:
        assert self._wakers is not None
        if select.select([self._wakers[0]], [], [], seconds)[0]:
            self._drain()

    def _drain(self) -> None:
        assert self._wakers is not None
        with suppress(OSError):
            while self._wakers[0].recv(4096):
                pass

    def _listen(self) -> None:
        assert self._wakers is not None
        self._listener = listener = self.connect()
        self.count += 1
        waiting = poll()
        waiting.register(self._wakers[0], POLLIN)
        waiting.register(listener.fileno(), POLLIN)
        while not self._closed:
            self._follow(listener)
            self.notify_here(listener.receive())
            if not waiting.poll(_QUIET_MS):
                listener.ask()
            self._drain()

    def _follow(self, listener: Listener) -> None:
        """Listen to the channels that have waiters, and to no others."""
        with self._lock:
            wanted = set(self._waiters)
            fresh, stale = sorted(wanted - self._listening), sorted(self._listening - wanted)
            self._listening = wanted
        if fresh or stale:
            self.notify_here(listener.follow(fresh, stale))
