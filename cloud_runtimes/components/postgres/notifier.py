"""Notifications by ``LISTEN`` and ``NOTIFY``: one connection and one thread serve all waiters of a process.

A lost notification costs a waiter at most `NET` seconds: then it looks by itself.
"""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import Any, Final

import psycopg

from ..._core import fork
from ..._core.logs import repeated
from ..._core.threads import Background, Changes, Mutex
from ...errors import CloudRuntimesError, UnsupportedError
from ...spi.operation import Method, Operation
from .connection import Connection, drive
from .failures import Lost, SqlFailure
from .hosts import Hosts
from .statement import Statement

__all__ = ["LISTEN_TIMEOUT", "NET", "Notifier", "Waiter", "notification"]

NET: Final = 2.0
"""Seconds after which a waiter looks by itself."""
_NET_ALONE: Final = 0.5
"""The same while no connection listens."""
_BACK_OFF: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
LISTEN_TIMEOUT: Final = 10.0
_LISTEN: Final = Method("postgres", "listen", repeatable=True, writes=False)
_SESSION: Final = Statement("SELECT pg_backend_pid()")
_NOTIFY: Final = Statement("SELECT pg_notify(channel, '') FROM unnest($1::text[]) AS channel", "text[]")


def notification(schema: str, channels: list[str]) -> tuple[Statement, tuple[Any, ...]]:
    """Return the statement that notifies channels once its transaction is committed."""
    return _NOTIFY, ([f"{schema}.{channel}" for channel in channels],)


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


class Notifier:
    """The channels of one database.

    Args:
        conninfo: of a session of its own.
        schema: the channels' prefix.
        direct: the operator says that there is no pooler in transaction mode before the server.
    """

    _wakers: tuple[socket.socket, socket.socket] | None = None

    def __init__(self, conninfo: str, schema: str, *, direct: bool) -> None:
        self._hosts = Hosts(conninfo)
        self._direct = direct
        self._schema = schema
        self._waiters: dict[str, set[Waiter]] = {}
        self._closed = False
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child nobody listens, and waiters are the parent's. Closing copies of its sockets leaves the parent its own."""
        for end in self._wakers or ():
            end.close()
        self._lock = Mutex()
        self._waiters = {}
        self._listening: set[str] = set()
        self._connection: Connection | None = None
        self._thread: Background | None = None
        self._wakers = None
        self._changes = Changes()

    @property
    def net(self) -> float:
        """Seconds after which a waiter looks by itself."""
        return _NET_ALONE if self._connection is None else NET

    def subscribe(self, channel: str) -> Waiter:
        """Return a new waiter on a channel. It is woken once the channel is listened to, since what was notified before may not have reached it."""
        waiter = Waiter(self, channel)
        with self._lock:
            self._waiters.setdefault(channel, set()).add(waiter)
            if self._thread is None and not self._closed:
                self._wakers = socket.socketpair()
                for end in self._wakers:
                    end.setblocking(False)
                self._thread = Background(self._run, "cloud-runtimes-postgres-listen")
                self._thread.start()
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

    def notify_here(self, channels: list[str]) -> None:
        """Wake the waiters of this process at once."""
        if self._waiters:
            with self._lock:
                waiters = [waiter for channel in channels for waiter in self._waiters.get(channel, ())]
            for waiter in waiters:
                waiter.wake()

    def wake_all(self) -> None:
        """Wake all waiters of this process."""
        with self._lock:
            waiters = [waiter for each in self._waiters.values() for waiter in each]
        for waiter in waiters:
            waiter.wake()

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._wake_thread()
        if self._thread is not None:
            self._thread.join(1.0)

    def _wake_thread(self) -> None:
        if self._wakers is not None:
            try:
                self._wakers[1].send(b"!")
            except OSError:
                pass  # full: it looks anyway

    # -- the thread -------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        generation = fork.generation()
        while not self._closed and generation == fork.generation():
            try:
                self._listen()
                failures = 0
            except (CloudRuntimesError, Lost, SqlFailure, OSError, psycopg.Error) as error:
                repeated("postgres listen", "listening for notifications failed, polling until it works: %s", error)
            finally:
                connection, self._connection = self._connection, None
                self._listening = set()
                if connection is not None:
                    connection.close()
            self.wake_all()  # what was notified meanwhile is not known
            pause = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
            failures += 1
            end = monotonic() + pause
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
        try:
            while self._wakers[0].recv(4096):
                pass
        except OSError:
            pass

    def _listen(self) -> None:
        connection = Connection(self._schema, prepares=False)
        op = Operation(_LISTEN, "postgres", LISTEN_TIMEOUT)
        assert self._wakers is not None
        try:
            self._hosts.open(connection, op)
        except BaseException:
            connection.close()
            raise
        if not self._direct and self._session(connection) != connection.pg.backend_pid:
            connection.close()
            raise UnsupportedError("a pooler is before the server: set listen_url to the same database without it")
        self._connection = connection
        poll = select.poll()
        poll.register(self._wakers[0], select.POLLIN)
        poll.register(connection.socket, select.POLLIN)
        while not self._closed:
            self._follow(connection)
            poll.poll(60_000)
            self._drain()
            connection.pg.consume_input()
            self._deliver(connection)

    def _session(self, connection: Connection) -> int:
        """Return the process of the server that serves this connection; a pooler gives the client another number."""
        op = Operation(_LISTEN, "postgres", LISTEN_TIMEOUT)
        return int(drive(connection.run(_SESSION), connection, op).rows[0][0])

    def _follow(self, connection: Connection) -> None:
        """Listen to the channels that have waiters, and to no others."""
        with self._lock:
            wanted = set(self._waiters)
        fresh, stale = wanted - self._listening, self._listening - wanted
        if not fresh and not stale:
            return
        calls = [(Statement(f'LISTEN "{self._schema}.{channel}"'), ()) for channel in sorted(fresh)]
        calls += [(Statement(f'UNLISTEN "{self._schema}.{channel}"'), ()) for channel in sorted(stale)]
        drive(connection.pipeline(calls), connection, Operation(_LISTEN, "postgres", LISTEN_TIMEOUT))
        self._listening = wanted
        self._deliver(connection)
        for channel in fresh:  # a notification may have come before
            with self._lock:
                waiters = list(self._waiters.get(channel, ()))
            for waiter in waiters:
                waiter.wake()

    def _deliver(self, connection: Connection) -> None:
        prefix = len(self._schema) + 1
        while (notify := connection.pg.notifies()) is not None:
            channel = notify.relname.decode()[prefix:]
            with self._lock:
                waiters = list(self._waiters.get(channel, ()))
            for waiter in waiters:
                waiter.wake()
