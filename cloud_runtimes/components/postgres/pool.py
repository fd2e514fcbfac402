"""The connections of one process to one database, for threads and event loops alike, and the calls that run on them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import psycopg
from psycopg import conninfo

from ..._core import fork
from ..._core.threads import Mutex
from ...errors import ClosedError, DeadlineExceededError
from ...spi.operation import Operation, mark_interrupted
from .connection import Connection, Flow
from .failures import READ_ONLY, ConnectionLost, SqlFailure

T = TypeVar("T")
Work = Callable[[Connection], Flow[T]]


class _Waiter:
    """Somebody who waits for a connection: a thread, or a task with a loop."""

    __slots__ = ("connection", "future", "given", "loop", "ticket")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.connection: Connection | None = None
        self.given = False
        if loop is None:
            self.ticket = threading.Lock()
            self.ticket.acquire()
        else:
            self.future: asyncio.Future[None] = loop.create_future()

    def give(self, connection: Connection | None) -> bool:
        """Hand over a connection, or with ``None`` the right to open one; ``False`` where the loop is closed."""
        self.connection = connection
        if self.loop is None:
            self.ticket.release()
            return True
        try:
            self.loop.call_soon_threadsafe(_resolve, self.future)
        except RuntimeError:
            return False
        return True


class Pool:
    """Connections, opened when needed, at most ``size``. Waiters are served in turn.

    Args:
        conninfo: of libpq.
        where: for messages, without secrets.
        schema: of the tables.
        size: most connections.
        prepares: whether statements are prepared; not behind a pooler that gives each transaction another session.
    """

    def __init__(self, conninfo: str, where: str, schema: str, size: int, *, prepares: bool) -> None:
        self._hosts = Hosts(conninfo)
        self._accepted = False
        self.where = where
        self._schema = schema
        self._size = size
        self._prepares = prepares
        self._closed = False
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: begin anew."""
        fork.keep(getattr(self, "_idle", None))
        self._lock = Mutex()
        self._idle: list[Connection] = []
        self._waiters: deque[_Waiter] = deque()
        self._open = 0

    # -- calls ------------------------------------------------------------

    def run(self, op: Operation, work: Work[T]) -> T:
        """Run a flow on a connection."""
        connection = self.take(op)
        try:
            return connection.run(op, work(connection))
        except BaseException as error:
            translated = self.map_error(error, connection, op)
            if translated is error:
                raise
            raise translated from error
        finally:
            self.release(connection)

    async def run_async(self, op: Operation, work: Work[T]) -> T:
        """Asynchronous `run`."""
        connection = await self.take_async(op)
        try:
            return await connection.run_async(op, work(connection))
        except BaseException as error:
            translated = self.map_error(error, connection, op)
            if translated is error:
                raise
            raise translated from error
        finally:
            self.release(connection)

    def map_error(self, error: BaseException, connection: Connection, op: Operation) -> BaseException:
        """Return our error for one of a flow that ran on a connection."""
        sent = connection.sent and op.method.writes
        if isinstance(error, SqlFailure):
            translated = error.map_error(self.where, standby=connection.is_standby())
            if error.state == READ_ONLY:  # after a failover another server is the primary
                connection.close()
                self._drop_idle()
            return translated
        if isinstance(error, ConnectionLost):
            return error.map_error(self.where, maybe_applied=sent, accepted=self._accepted)
        if isinstance(error, DeadlineExceededError) and connection.sent:
            self._drop_idle()  # the server may hang, and so would the next call
        if not isinstance(error, Exception):
            mark_interrupted(error, sent)
        return error

    # -- connections ------------------------------------------------------

    def scarce(self) -> str:
        """Return what a caller without a connection waits for."""
        return "a free connection: raise max_connections" if self._open >= self._size else "PostgreSQL"

    def _alive(self) -> Connection | None:
        """Take an idle connection that is alive, if there is one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.is_alive():
                return connection
            self._drop(connection)
        return None

    def _may_open(self, loop: asyncio.AbstractEventLoop | None) -> _Waiter | None:
        """Return ``None`` with a place for one more connection taken, else the waiter for one."""
        with self._lock:
            if self._closed:
                raise ClosedError("this client is closed: make another")
            if self._open < self._size:
                self._open += 1
                return None
            waiter = _Waiter(loop)
            self._waiters.append(waiter)
            return waiter

    def take(self, op: Operation) -> Connection:
        """Return a connection; its user gives it back by `release`."""
        connection = self._alive()
        if connection is not None:
            return connection
        waiter = self._may_open(None)
        if waiter is not None:
            remaining = op.remaining()
            got = False
            try:
                got = waiter.ticket.acquire(timeout=-1 if remaining is None else remaining)
            finally:
                if not got:
                    self._give_up(waiter)
            if not got:
                raise op.timed_out("a free connection: raise max_connections")
            if waiter.connection is not None:
                return waiter.connection
            self._check_open()
        connection = Connection(self._schema, prepares=self._prepares)
        try:
            self._hosts.open(connection, op)
        except BaseException as error:
            self._drop(connection)
            translated = self.map_error(error, connection, op)
            if translated is error:
                raise
            raise translated from error
        self._accepted = True
        return connection

    async def take_async(self, op: Operation) -> Connection:
        """Return a connection; its user gives it back by `release`."""
        connection = self._alive()
        if connection is not None:
            return connection
        waiter = self._may_open(asyncio.get_running_loop())
        if waiter is not None:
            try:
                async with asyncio.timeout(op.remaining()):
                    await waiter.future
            except TimeoutError:
                self._give_up(waiter)
                raise op.timed_out("a free connection: raise max_connections") from None
            except BaseException:
                self._give_up(waiter)
                raise
            if waiter.connection is not None:
                return waiter.connection
            self._check_open()
        connection = Connection(self._schema, prepares=self._prepares)
        try:
            await self._hosts.open_async(connection, op)
        except BaseException as error:
            self._drop(connection)
            translated = self.map_error(error, connection, op)
            if translated is error:
                raise
            raise translated from error
        self._accepted = True
        return connection

    def _check_open(self) -> None:
        if self._closed:
            self._place_free()
            raise ClosedError("this client is closed: make another")

    def _give_up(self, waiter: _Waiter) -> None:
        """Wait no longer; what was given meanwhile goes to the next."""
        with self._lock:
            if not waiter.given:
                self._waiters.remove(waiter)
                return
        if waiter.connection is not None:
            self.release(waiter.connection)
        else:
            self._place_free()

    def release(self, connection: Connection) -> None:
        """Give back a connection; one that is in the middle of anything is closed."""
        if self._closed or not connection.is_clean():
            if connection.sent:
                threading.Thread(target=self._cancel, args=(connection,), daemon=True).start()
                self._place_free()
            else:
                self._drop(connection)
            return
        if not self._waiters:
            self._idle.append(connection)
            if not self._waiters:
                return
            taken = self._alive()  # a waiter came meanwhile
            if taken is None:
                return
            connection = taken
        self._hand(connection)

    def _cancel(self, connection: Connection) -> None:
        connection.cancel()
        connection.close()

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._place_free()

    def _drop_idle(self) -> None:
        """Close the idle connections, so that the next calls have new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self._drop(connection)

    def _place_free(self) -> None:
        """Let the next waiter open a connection in the place of one that is gone."""
        self._hand(None)

    def _hand(self, connection: Connection | None) -> None:
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                waiter.given = True
                if waiter.give(connection):
                    return
            if connection is None:
                self._open -= 1
            else:
                self._idle.append(connection)

    def close(self) -> None:
        """Close all idle connections; those in use are closed when they are given back."""
        with self._lock:
            self._closed = True
            waiters = list(self._waiters)
            self._waiters.clear()
            for waiter in waiters:
                waiter.given = True
                self._open += 1
                waiter.give(None)  # finds that the pool is closed
        self._drop_idle()


def _resolve(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


_PATIENCE: Final = 5.0
"""Seconds for one of several servers."""
_DEFAULTS: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A connection over which nothing is sent learns in a minute that its server is gone."""


class Hosts:
    """The servers that a URL names. The one that took the last connection is asked first, so one that hangs is not asked each time."""

    def __init__(self, url: str) -> None:
        self._each = _split(url)

    def open(self, connection: Connection, op: Operation) -> None:
        """Connect to the first server that is there and is what the URL wants.

        Raises:
            Lost, DeadlineExceededError: of the last one.
        """
        for index, part in self._attempts(op):
            try:
                connection.run(part, connection.open(self._each[index]))
                return self._first(index)
            except (ConnectionLost, DeadlineExceededError):
                if part is op:
                    raise
                connection.close()

    async def open_async(self, connection: Connection, op: Operation) -> None:
        """Asynchronous `open`."""
        for index, part in self._attempts(op):
            try:
                await connection.run_async(part, connection.open(self._each[index]))
                return self._first(index)
            except (ConnectionLost, DeadlineExceededError):
                if part is op:
                    raise
                connection.close()

    def _attempts(self, op: Operation) -> Iterator[tuple[int, Operation]]:
        """Yield the servers in turn, each with its share of the time; the last one has all that is left."""
        count = len(self._each)
        for index in range(count - 1):
            remaining = op.remaining()
            yield index, op.limited(_PATIENCE if remaining is None else min(_PATIENCE, remaining / (count - index)))
        yield count - 1, op

    def _first(self, index: int) -> None:
        if index:
            each = self._each
            self._each = [each[index], *each[:index], *each[index + 1 :]]


def _split(url: str) -> list[str]:
    """Return a conninfo for each server."""
    try:
        given: dict[str, Any] = {**_DEFAULTS, **conninfo.conninfo_to_dict(url)}
    except psycopg.Error:
        return [url]  # what is wrong with it is said when it is used
    names = [name for name in ("host", "hostaddr", "port") if name in given]
    lists = {name: str(given[name]).split(",") for name in names}
    count = max((len(each) for each in lists.values()), default=1)
    if count == 1 or given.get("target_session_attrs") == "prefer-standby":  # which libpq decides by looking at all
        return [conninfo.make_conninfo(**given)]
    conninfos = []
    for index in range(count):
        given |= {name: each[index % len(each)] for name, each in lists.items()}
        conninfos.append(conninfo.make_conninfo(**given))
    return conninfos
