"""One database: its engine, and who may use a connection."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from ..._core import fork
from ..._core.home import check_file_system, make_home, make_private
from ...errors import ClosedError, CloudRuntimesError, InvalidArgumentError
from .calls import Call, Interrupter, Watchdog
from .connection import Connection
from .failures import explain, forget_password, is_busy, is_interrupted
from .locks import FairSemaphore, FileLock, file_lock
from .runners import Runner

if TYPE_CHECKING:
    from ...spi.executor import Executor

__all__ = ["ConnectionPool"]

R = TypeVar("R")

_REST: Final = 1.0
"""Seconds that a fork waits for calls under way."""
_CLOSING: Final = 1.0
"""Seconds that calls under way get to end by themselves when the client closes."""
_BUSY: Final = 0.05
"""Seconds that SQLite itself waits for a lock: a slice, between two looks at the deadline."""
_LOOK_MS: Final = 500
"""How long a server may go on working for a client that is gone."""
# the same databases by an async driver and by a blocking one that is always there: threads do for both
_BLOCKING: Final = {"sqlite+aiosqlite": "sqlite", "postgresql+psycopg_async": "postgresql+psycopg"}
_connecting: ContextVar[Call] = ContextVar("connecting")
# a forked child must not close what it inherited
_inherited: list[Any] = []


class ConnectionPool:
    """The connections of one store name, shared by its drivers and transactions.

    SQLAlchemy's pool keeps them. A semaphore of as many permits stands before it, which a call waits for to its deadline, and without a thread in the async API.

    Args:
        name: of the store, for messages.
        url: as SQLAlchemy has it.
        executor: of the client.
        pool_size: connections at most.
        durable: whether a commit to SQLite survives a power cut.
        embedded: whether the component made the name of the file.

    Attributes:
        path: of the file, where it is SQLite.
        memory: whether it is a database in the process, behind one connection.
        permits: to have a connection.
        keys: table → the single column of its primary key.
        working: held around the use of a library with locks of its own.
        closed: whether connections that come back are closed.
    """

    def __init__(
        self, name: str, url: Any, executor: Executor, *, pool_size: int, durable: bool, embedded: bool
    ) -> None:
        self.name = name
        self.keys: dict[str, str | None] = {}
        self.closed = False
        self._durable = durable
        self.working: AbstractContextManager[None] = _Working()
        try:
            self._url = sa.make_url(url)
            self._url = self._url.set(drivername=_BLOCKING.get(self._url.drivername, self._url.drivername))
            made = self._url.get_dialect()
        except Exception as error:
            raise explain(error, name, None, maybe_applied=False) from None
        sqlite = made.name == "sqlite"
        database = str(self._url.database or ":memory:")
        self.memory = sqlite and database == ":memory:"
        if sqlite and not self.memory and (self._url.query.get("uri") or database.startswith("file:")):
            raise InvalidArgumentError(f"database {name!r}: give a path in the url, not a URI of SQLite")
        self.path = os.path.abspath(database) if sqlite and not self.memory else None
        self._size = 1 if self.memory else pool_size
        self.permits = FairSemaphore(self._size, "a free connection")
        self._writer: FileLock | None = None
        self._fresh = self.path is not None
        if self.path is not None:
            if embedded:
                _make_place(Path(self.path))
            self._writer = file_lock(self.path)
        self.runner = Runner(executor if made.is_async else None)
        try:
            self._engine = self._create(made.name, made.is_async)
        except Exception as error:
            raise explain(error, name, None, maybe_applied=False) from error
        self.watchdog = Watchdog(self._reap)
        fork.register(self)

    # -- the engine -------------------------------------------------------

    def _create(self, dialect: str, is_async: bool) -> Any:
        options: dict[str, Any] = {"hide_parameters": True}
        if self.memory:
            options["poolclass"] = sa.pool.StaticPool
            options["connect_args"] = {"check_same_thread": False}
        else:
            options |= {"pool_size": self._size, "max_overflow": 0, "pool_recycle": 1800}
            if self.path is None:
                options["pool_pre_ping"] = True
            else:
                options["poolclass"] = sa.pool.QueuePool
                options["connect_args"] = {"check_same_thread": False, "timeout": _BUSY}
        if is_async:
            import greenlet  # noqa: F401  its absence is told as that of a driver
            from sqlalchemy.ext.asyncio import create_async_engine

            made: Any = create_async_engine(self._url, **options)
            engine: sa.Engine = made.sync_engine
        else:
            made = engine = sa.create_engine(self._url, **options)
        if dialect == "sqlite":
            sa.event.listen(engine, "connect", self._set_up)
        elif dialect == "postgresql":
            sa.event.listen(engine, "connect", _ends_with_its_client)
            sa.event.listen(engine, "do_connect", self._limit_connecting)
        self.engine = engine
        return made

    def _set_up(self, connection: Any, record: Any) -> None:
        """Set a new connection to SQLite up."""
        connection.isolation_level = None  # transactions begin and end where we say
        for pragma in (
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "cell_size_check=ON",
            f"synchronous={'FULL' if self._durable else 'NORMAL'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @staticmethod
    def _limit_connecting(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        """Connect at most to the deadline of the call, since nothing interrupts that."""
        name = {"asyncpg": "timeout", "psycopg": "connect_timeout", "psycopg2": "connect_timeout"}.get(dialect.driver)
        left: float | None = _connecting.get().op.remaining()
        if name is not None and left is not None:
            options.setdefault(name, math.ceil(left) or 1)

    # -- connections ------------------------------------------------------

    def _make_log(self, call: Call, writer: FileLock) -> None:
        """See that a file of SQLite has a write-ahead log; who makes it is the only writer."""
        if not self._connected(call, partial(self._has_log, make=False)):
            writer.acquire(call)
            try:
                self._connected(call, partial(self._has_log, make=True))
            finally:
                writer.release()
        self._fresh = False

    def _has_log(self, *, make: bool) -> bool:
        with closing(self.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode")
            if make and cursor.fetchall()[0][0] != "wal":
                try:
                    cursor.execute("PRAGMA journal_mode=WAL")
                except Exception as error:
                    if is_busy(error):
                        raise
                    # else it may only be read: its journal stays as it is
            return make or cursor.fetchall()[0][0] == "wal"

    def connect(self, call: Call, *, writing: bool) -> Connection:
        """Take a connection out of the pool and, to write an SQLite file, its lock."""
        if self._fresh and self._writer is not None:
            self._make_log(call, self._writer)
        writer = self._writer if writing else None
        if writer is not None:
            writer.acquire(call)
        try:
            connection = self._connected(call, self.engine.connect)
            return Connection(self, connection, self._interrupter(connection), writer)
        except BaseException:
            if writer is not None:
                writer.release()
            raise

    def _connected(self, call: Call, connect: Callable[[], R]) -> R:
        while True:
            if self.closed:
                raise ClosedError(f"database {self.name!r}: its client is closed")
            call.check()
            _connecting.set(call)
            try:
                with self.working:
                    return connect()
            except Exception as error:
                # behind a program that died in the middle of a write one connection makes the file whole, and the others wait
                if self.path is None or not is_busy(error):
                    found = self.explained(error, call)
                    if found is error:
                        raise
                    forget_password(error, self._url.password)
                    raise found from error

    def _interrupter(self, connection: sa.Connection) -> Interrupter:
        found: Interrupter | None = connection.info.get("cloud_runtimes")
        if found is None:
            native: Any = connection.connection.driver_connection
            found = Interrupter(self.watchdog, native, is_async=connection.dialect.is_async)
            connection.info["cloud_runtimes"] = found
        return found

    def explained(self, error: Exception, call: Call) -> CloudRuntimesError:
        """Return what to raise for an error of a call: a deadline comes as an error of the database."""
        if isinstance(error, CloudRuntimesError):
            return error
        if call.is_stopped:
            return ClosedError(call.reason, maybe_applied=call.committing)
        if is_interrupted(error) and call.is_due():
            return call.op.timed_out("the database")
        found = explain(error, self.name, self.path, maybe_applied=call.committing)
        if call.op.remaining() == 0.0 and found.code in ("UNAVAILABLE", "INTERNAL"):  # its connection was cut
            return call.op.timed_out("the database", maybe_applied=call.committing)
        return found

    def _reap(self, connection: Connection) -> None:
        self.runner.post(lambda context, call: context.call(call, connection.close, self.permits.release))

    # -- the end -----------------------------------------------------

    def forked(self) -> None:
        """In a forked child: keep what belongs to the parent, and close nothing of it."""
        _inherited.append(self)
        self.closed = True

    def close(self, timeout: float | None) -> None:
        """End what is under way, and close the connections."""
        end = monotonic() + (5.0 if timeout is None else timeout)
        self.closed = True
        self._wait(min(end, monotonic() + _CLOSING))
        for call in list(self.runner.calls):
            call.reason = "the client was closed while this call was under way"
            call.stop()
        self._wait(end)
        self.watchdog.close(max(0.1, end - monotonic()))
        self._wait(end)
        self.runner.close(self._engine, max(0.1, end - monotonic()))

    def _wait(self, end: float) -> None:
        while not self.permits.is_unused and monotonic() < end:
            sleep(0.001)


class _Working:
    """What a fork waits for: code of libraries whose locks a child would inherit as they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        fork.register(self)

    def __enter__(self) -> None:
        with self._lock:
            self._threads.add(threading.get_ident())

    def __exit__(self, *error: object) -> None:
        self._threads.discard(threading.get_ident())

    def before_fork(self) -> None:
        """Let nothing begin, and wait for what runs."""
        end = monotonic() + _REST
        self._rests = self._lock.acquire(timeout=_REST)
        while self._threads and monotonic() < end:
            sleep(0.0002)

    def after_fork(self) -> None:
        """In the parent: go on."""
        if self._rests:
            self._lock.release()

    def forked(self) -> None:
        """In a forked child: nothing, since it makes a pool of its own."""


def _make_place(path: Path) -> None:
    """Make the folders and the file of an embedded database, for its owner alone."""
    make_home(path.parent.parent)
    make_home(path.parent)
    check_file_system(path.parent)
    make_private(str(path))


def _ends_with_its_client(connection: Any, record: Any) -> None:
    """Have a server of PostgreSQL look whether its client is there still, as it does not by itself while it works.

    Else what a cut connection was doing goes on to its end, with all its locks (postgresql.org/docs, client_connection_check_interval). Servers before 14 do not have that, those on some systems cannot do it.
    """
    name = "client_connection_check_interval"
    cursor = connection.cursor()
    try:
        cursor.execute(f"SELECT set_config('{name}', '{_LOOK_MS}', false) WHERE current_setting('{name}', true) = '0'")
        connection.commit()
    except Exception:
        connection.rollback()
    finally:
        cursor.close()
