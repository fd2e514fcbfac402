"""Database: its engine, and the threads that work with its connections."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from ..._core import fork
from ..._core.home import check_file_system, make_home, make_private
from ..._core.workers import Workers
from ...errors import ClosedError, CloudRuntimesError, InvalidArgumentError
from ...spi.operation import Operation
from .calls import Call
from .connection import Connection
from .failures import explain, forget_password, is_busy
from .file_lock import file_lock

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .driver import Session

R = TypeVar("R")

_REST: Final = 1.0
"""Seconds that a fork waits for calls under way."""
_CLOSING: Final = 1.0
"""Seconds that calls under way get to end by themselves when the client closes."""
_BUSY: Final = 0.05
"""Seconds that SQLite itself waits for a lock: a slice, between two looks at the call."""
_LOOK_MS: Final = 500
"""How long a server may go on working for a client that is gone."""
# the same databases by an async driver and by a blocking one that is always there
_BLOCKING: Final = {"sqlite+aiosqlite": "sqlite", "postgresql+psycopg_async": "postgresql+psycopg"}
_connecting: ContextVar[Call[Any]] = ContextVar("connecting")
# a forked child must not close what it inherited


class ConnectionPool:
    """The connections of one store name, shared by its drivers and transactions.

    SQLAlchemy's pool keeps them. A call or transaction that uses one does so in a thread of its own, of which there are as many as connections. Further calls wait for a thread, each to its deadline. An async driver works in the client's loop, for which its thread waits.
    """

    def __init__(
        self,
        name: str,
        url: Any,
        executor: Executor,
        *,
        pool_size: int,
        durable: bool,
        embedded: bool,
        schema: str | None = None,
    ) -> None:
        self.name = name
        # table → the single column of its primary key
        self.keys: dict[str, str | None] = {}
        # threads that have a connection for a call or transaction
        self.busy: set[int] = set()
        self.closed = False
        self._durable = durable
        self._schema = schema
        self._calls: set[Call[Any]] = set()
        self._starting = threading.Lock()
        self._working: set[int] = set()
        try:
            self._url = sa.make_url(url)
            self._url = self._url.set(drivername=_BLOCKING.get(self._url.drivername, self._url.drivername))
            dialect = self._url.get_dialect()
        except Exception as error:
            raise explain(error, name, None, maybe_applied=False) from None
        self.is_async = dialect.is_async
        self._executor = executor
        sqlite = dialect.name == "sqlite"
        database = str(self._url.database or ":memory:")
        # in the process, behind one connection
        self.memory = sqlite and database == ":memory:"
        if sqlite and not self.memory and (self._url.query.get("uri") or database.startswith("file:")):
            raise InvalidArgumentError(f"database {name!r}: give a path in the url, not a URI of SQLite")
        self._path = os.path.abspath(database) if sqlite and not self.memory else None
        if self._path is not None and embedded:
            _make_place(Path(self._path))
        self._writer = None if self._path is None else file_lock(self._path)
        self._workers = Workers("cloud-runtimes-sql", 1 if self.memory else pool_size)
        try:
            self._engine = self._create(dialect.name, pool_size)
        except Exception as error:
            raise explain(error, name, None, maybe_applied=False) from error
        fork.register(self)

    # -- the engine -------------------------------------------------------

    def _create(self, dialect: str, pool_size: int) -> Any:
        options: dict[str, Any] = {"hide_parameters": True}
        if self.memory:
            options |= {"poolclass": sa.pool.StaticPool, "connect_args": {"check_same_thread": False}}
        else:
            options |= {"pool_size": pool_size, "max_overflow": 0, "pool_recycle": 1800}
            if self._path is None:
                options["pool_pre_ping"] = True
            else:
                options["poolclass"] = sa.pool.QueuePool
                options["connect_args"] = {"check_same_thread": False, "timeout": _BUSY}
        if self.is_async:
            import greenlet  # noqa: F401  its absence is told as that of a driver
            from sqlalchemy.ext.asyncio import create_async_engine

            engine: Any = create_async_engine(self._url, **options)
            self.engine: sa.Engine = engine.sync_engine
        else:
            engine = self.engine = sa.create_engine(self._url, **options)
        if dialect == "sqlite":
            sa.event.listen(self.engine, "connect", self._set_up)
        elif dialect == "postgresql":
            sa.event.listen(self.engine, "connect", _ends_with_its_client)
            sa.event.listen(self.engine, "do_connect", self._limit_connecting)
            sa.event.listen(self.engine, "handle_error", _close_cursor)
            if self._schema is not None:
                sa.event.listen(self.engine, "connect", self._enter_schema)
        return engine

    def _set_up(self, connection: Any, record: Any) -> None:
        """Set a new connection to SQLite up."""
        connection.isolation_level = None  # transactions begin and end where we say
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except Exception as error:
            if is_busy(error):
                raise
            # else the file may only be read: its journal stays as it is
        for pragma in (
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "cell_size_check=ON",
            f"synchronous={'FULL' if self._durable else 'NORMAL'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def _enter_schema(self, connection: Any, record: Any) -> None:
        """Make the schema of the store name, and let every statement find its tables there."""
        assert self._schema is not None
        text = self._schema.replace("'", "''")
        schema = '"{}"'.format(self._schema.replace('"', '""'))
        cursor = connection.cursor()
        try:
            cursor.execute(f"SELECT 1 FROM pg_namespace WHERE nspname = '{text}'")
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            cursor.execute(f"SET search_path TO {schema}")
            connection.commit()
        finally:
            cursor.close()

    @staticmethod
    def _limit_connecting(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
        """Connect at most to the deadline of the call, since nothing interrupts that."""
        name = {"asyncpg": "timeout", "psycopg": "connect_timeout", "psycopg2": "connect_timeout"}.get(dialect.driver)
        remaining: float | None = _connecting.get().op.remaining()
        if name is not None and remaining is not None:
            options.setdefault(name, math.ceil(remaining) or 1)

    # -- calls ------------------------------------------------------------

    def run(self, op: Operation, work: Callable[[Call[R]], R], owner: Session | None = None) -> R:
        """Have a thread do ``work``, and wait for it."""
        if self.is_async:
            self._executor.check_outside()
        with self._calling(op, work, owner) as call:
            return call.wait()

    async def run_async(self, op: Operation, work: Callable[[Call[R]], R], owner: Session | None = None) -> R:
        """Have a thread do ``work``, and await it."""
        with self._calling(op, work, owner) as call:
            return await call.wait_async()

    @contextmanager
    def _calling(self, op: Operation, work: Callable[[Call[R]], R], owner: Session | None) -> Iterator[Call[R]]:
        call = Call(op, work, "a free connection" if owner is None else "another call of this transaction")
        self._calls.add(call)
        try:
            if owner is None:
                self.start(call.run)
            else:
                owner.submit(call)
            yield call
        except BaseException as error:
            call.failed(error)
            if owner is not None:
                owner.give_up()
            raise
        finally:
            self._calls.discard(call)

    def start(self, body: Callable[[], None]) -> None:
        """Have a thread run something that uses one connection."""
        self._workers.submit(partial(self._use, body))

    def _use(self, body: Callable[[], None]) -> None:
        me = threading.get_ident()
        self.busy.add(me)
        try:
            body()
        finally:
            self.busy.discard(me)

    # -- in the threads ---------------------------------------------------

    def library(self, call: Call[Any] | None, work: Callable[..., R], *arguments: Any) -> R:
        """Use SQLAlchemy and the driver; every error is ours. A fork waits for it, since a child would inherit its locks as they are."""
        me = threading.get_ident()
        with self._starting:
            self._working.add(me)
        try:
            if not self.is_async:
                return work(*arguments)
            from sqlalchemy.util import greenlet_spawn

            return self._executor.submit(greenlet_spawn(work, *arguments)).result()
        except CancelledError:  # with the client's loop
            raise ClosedError("the client was closed while this call was under way") from None
        except Exception as error:
            translated = self._map_error(error, call)
            if translated is error:
                raise
            raise translated from error
        finally:
            self._working.discard(me)

    def _map_error(self, error: Exception, call: Call[Any] | None) -> CloudRuntimesError:
        if isinstance(error, CloudRuntimesError):
            return error
        forget_password(error, self._url.password)
        committing = call is not None and call.committing
        if call is not None and call.is_stopped:
            return ClosedError(call.reason, maybe_applied=committing)
        return explain(error, self.name, self._path, maybe_applied=committing)

    def writing(self, call: Call[Any]) -> AbstractContextManager[None]:
        """Hold the lock of an SQLite file."""
        return nullcontext() if self._writer is None else self._writer.held(call)

    def connection(self, call: Call[Any]) -> Connection:
        """Take a connection out of SQLAlchemy's pool."""
        _connecting.set(call)
        while True:
            if self.closed:
                raise ClosedError(f"database {self.name!r}: its client is closed")
            call.check()
            try:
                return Connection(self, self.engine.connect())
            except Exception as error:
                # behind a program that died in the middle of a write one connection makes the file whole, and the others wait
                if self._path is None or not is_busy(error):
                    raise
                sleep(0.001)

    # -- forks, and the end -----------------------------------------------

    def before_fork(self) -> None:
        """Let nothing begin, and wait for what runs."""
        end = monotonic() + _REST
        self._rests = self._starting.acquire(timeout=_REST)
        while self._working and monotonic() < end:
            sleep(0.0002)

    def after_fork(self) -> None:
        """In the parent: go on."""
        if self._rests:
            self._starting.release()

    def forked(self) -> None:
        """In a forked child: keep what belongs to the parent, and close nothing of it."""
        fork.keep(self)
        self.closed = True

    def close(self, timeout: float | None) -> None:
        """End what is under way, and close the connections."""
        end = monotonic() + (5.0 if timeout is None else timeout)
        self.closed = True
        self._wait(min(end, monotonic() + _CLOSING))
        for call in list(self._calls):
            call.reason = "the client was closed while this call was under way"
            call.stop()
        self._wait(end)
        if self.is_async:
            with suppress(Exception):  # a server that does not answer: the sockets close with the loop
                self._executor.submit(self._engine.dispose()).result(max(0.1, end - monotonic()))
        else:
            self.engine.dispose()
        self._workers.close()

    def _wait(self, end: float) -> None:
        while self.busy and monotonic() < end:
            sleep(0.001)


def _make_place(path: Path) -> None:
    """Make the folders and the file of an embedded database, for its owner alone."""
    make_home(path.parent.parent)
    make_home(path.parent)
    check_file_system(path.parent)
    make_private(str(path))


def _close_cursor(context: sa.ExceptionContext) -> None:
    """Close the cursor of a connection that is lost: SQLAlchemy leaves it open, of which psycopg warns."""
    if context.is_disconnect and context.execution_context is not None:
        with suppress(Exception):  # it has gone with its connection
            context.execution_context.cursor.close()


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
