"""Notifications: after a commit the writer wakes those who wait for it, in this process and in others.

A waiter binds a datagram socket that is known in the store's ``wake`` folder, named ``CHANNEL.PID-N``; notifying a channel sends each of them something. In case a notification is lost, one thread asks four times a second whether another process has written or the database's files are gone, and then wakes all waiters of this process.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from ..._core.os_datagrams import datagrams
from ..._core.os_errors import explain_os_error
from ..._core.threads import Background, Changes, Mutex
from .secret import home_secret

EVERY: Final = 0.25
"""Seconds between two looks for changes without a notification."""
_GRAIN_NS: Final = 50_000_000
_NET: Final = 2.0
_SIZE: Final = 64
"""Bytes of a notification, at most."""
_numbers = itertools.count()


class Waiter:
    """A subscriber of a channel. One thread waits; any thread may `wake` it."""

    def __init__(self, notifier: Notifier, channel: str, name: str | None) -> None:
        self._notifier = notifier
        self.channel = channel
        self.path: str | None = None
        self._sender: socket.socket | None = None
        if name is not None and notifier.datagrams is not None:
            with suppress(OSError):  # no room for the name, say: other processes are then seen by polling
                self._receiver, self.path = notifier.datagrams.bind(name)
        if self.path is None:
            self._receiver, self._sender = socket.socketpair()
            self._sender.setblocking(False)
        self._receiver.setblocking(False)

    def wake(self) -> None:
        """Wake it. A call before the wait counts."""
        try:
            if self._sender is not None:
                self._sender.send(b"!")
            elif self.path is not None and (datagrams := self._notifier.datagrams) is not None:
                datagrams.send(self.path)
        except OSError:  # full: it will wake anyway; closed: nobody waits
            return

    def wait(self, timeout: float) -> bool:
        """Return when woken (``True``) or after ``timeout`` seconds (``False``), 2 s at most: then look, in case a notification was lost."""
        receiver, end = self._receiver, monotonic() + min(timeout, _NET)
        woken = timeout <= 0
        try:
            while not woken:
                receiver.settimeout(max(0.0, end - monotonic()))
                woken = self._counts(receiver.recv(_SIZE))
            receiver.setblocking(False)
            while receiver.recv(_SIZE):
                pass
        except TimeoutError:
            return False
        except OSError:  # nothing more, or closed under us
            return True
        return True

    def _counts(self, data: bytes) -> bool:
        datagrams = self._notifier.datagrams
        return self.path is None or datagrams is None or datagrams.counts(data)

    async def wait_async(self, timeout: float) -> bool:
        """Asynchronous `wait`."""
        import asyncio

        from ..._core.os_loops import readable

        try:
            async with asyncio.timeout(min(timeout, _NET)):
                await readable(self._receiver)
        except TimeoutError:
            return False
        except (OSError, ValueError):  # closed under us
            return True
        return self.wait(0)  # takes what was sent

    def close(self, *, unlink: bool = True) -> None:
        """Unsubscribe."""
        self._notifier.remove(self)
        self._receiver.close()
        if self._sender is not None:
            self._sender.close()
        if self.path is not None and unlink:
            with suppress(OSError):
                os.unlink(self.path)


class Notifier:
    """The channels of one database."""

    def __init__(self, folder: Path | None, changed: Callable[[], bool]) -> None:
        self._folder = folder  # of the sockets; none where no other process can wait
        self.datagrams = None if folder is None else datagrams(folder, partial(home_secret, folder.parent))
        self._changed = changed  # tells whether there may be a change that nobody was notified of
        # tuples that are replaced as a whole: a signal handler that comes while its thread notifies must find no lock held, since
        # other threads that it waits for need it
        self._local: dict[str, tuple[Waiter, ...]] = {}
        self._lock = Mutex()
        self._listing: list[str] = []
        self._listed = -1
        self._poller = Background(self._poll, "cloud-runtimes-poller")
        self._changes = Changes()
        self._idle = self._closed = False

    # -- waiters ----------------------------------------------------------

    def subscribe(self, channel: str) -> Waiter:
        """Return a new waiter on a channel, whose name is letters, digits and dashes."""
        name = None
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                name = f"{channel}.{os.getpid()}-{next(_numbers)}"
            except OSError:  # a folder that cannot be written: it is woken by the poller
                pass
        try:
            waiter = Waiter(self, channel, name)
        except OSError as error:
            raise explain_os_error(error, self._folder or Path("a socket")) from error
        with self._lock:
            self._local[channel] = (*self._local.get(channel, ()), waiter)
        if self._folder is not None:
            if not self._poller.started:
                self._poller.start()
            elif self._idle:
                self._changes.announce()
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter from its channel."""
        with self._lock:
            remaining = tuple(each for each in self._local.get(waiter.channel, ()) if each is not waiter)
            if remaining:
                self._local[waiter.channel] = remaining
            else:
                self._local.pop(waiter.channel, None)

    def _poll(self) -> None:
        """Look for changes as long as anybody waits; a waiter that comes while nobody does announces itself."""
        while not self._closed:
            ticket = self._changes.ticket()
            self._idle = True
            changed = self._changed()
            waiters = self._waiters()
            if changed:
                for waiter in waiters:
                    waiter.wake()
            self._idle = not waiters
            if not self._closed:
                self._changes.wait(ticket, None if self._idle else EVERY)

    def _waiters(self) -> list[Waiter]:
        return [waiter for each in list(self._local.values()) for waiter in each]

    # -- notifying --------------------------------------------------------

    def wake_all(self) -> None:
        """Wake all waiters of this process, whatever they wait for."""
        for waiter in self._waiters():
            waiter.wake()

    def notify(self, channels: Iterable[str]) -> None:
        """Wake all waiters on these channels, here and in other processes."""
        channels = frozenset(channels)
        for channel in channels if self._local else ():
            for waiter in self._local.get(channel, ()):
                waiter.wake()
        if self._folder is not None and self.datagrams is not None:
            mine = f"{os.getpid()}-"
            for name in self._list():
                channel, _, owner = name.rpartition(".")
                if channel not in channels or owner.startswith(mine):
                    continue
                path = str(self._folder / name)
                try:
                    self.datagrams.send(path)
                except (ConnectionRefusedError, FileNotFoundError):
                    with suppress(OSError):  # its owner died without doing so
                        os.unlink(path)
                except OSError:  # full: it will wake anyway
                    continue

    def _list(self) -> list[str]:
        """List the wake folder, again only when it changed; a change within the clock's grain of a listing is not trusted."""
        assert self._folder is not None
        try:
            changed = os.stat(self._folder).st_mtime_ns
            if changed != self._listed:
                self._listing = os.listdir(self._folder)
                self._listed = changed if time.time_ns() - changed > _GRAIN_NS else -1
        except OSError:
            return []
        return self._listing

    def forked(self) -> None:
        """In a forked child: let go of the parent's sockets without removing them."""
        self.close(unlink=False)

    def close(self, *, unlink: bool = True) -> None:
        """Close everything; the poller ends by itself."""
        self._closed = True
        self._changes.announce()
        for waiter in self._waiters():
            waiter.close(unlink=unlink)
        if self.datagrams is not None:
            self.datagrams.close()
