"""One database: its engines, made by the first call, and who may use a connection."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..._core import fork
from ..._core.threads import Mutex
from ...errors import ClosedError, CloudRuntimesError, InvalidArgumentError
from .calls import Call, Interrupter, SqliteInterrupter, Watch, WatchedInterrupter
from .failures import explain, forget_password, is_busy
from .holds import Debts, Holds, told
from .turns import FileTurn, Turns, file_turn, forget_turns
from .workers import Workers, is_main_thread

if TYPE_CHECKING:
    from concurrent.futures import Future

    import sqlalchemy as sa

    from ...spi.executor import Executor
    from .link import Link

__all__ = ["Store"]

R = TypeVar("R")

_REST: Final = 1.0
"""Seconds that a fork waits for calls under way."""
_BUSY_MS: Final = 50
"""How long SQLite itself waits for a lock: a slice, between two looks at the deadline."""
_LOOK_MS: Final = 500
"""How long a server may go on working for a client that is gone."""
# a forked child must not close what it inherited
_inherited: list[Any] = []


class _Token:
    """A call under way."""


class Store:
    """What the drivers of one store name, and its transactions, share.

    Attributes:
        name: of the store, for messages.
        path: of the file, where it is SQLite.
        memory: whether it is a database in the process, behind one connection.
        workers: for the main thread, and for what nobody refers to any longer.
        debts: what is entered; sees to what nobody refers to any longer.
        dialect: the database's name, as in its URL.
        loops: whether calls of the async face, or of both, run in the client's own loop.
        grace: seconds that an async driver gets to interrupt a call, before the call is cancelled.
        under_way: what runs in the client's own loop → its call, ``None`` where nobody waits for it.
        places: one for each connection.
        writer: the turn to write an SQLite file.
        keys: table → the single column of its primary key.
        fresh: whether the file may have to be made.
        making: whether that has its turn to write now.
    """

    def __init__(
        self,
        name: str,
        url: Any,
        executor: Executor,
        workers: Workers,
        debts: Debts,
        *,
        pool_size: int,
        durable: bool,
        embedded: bool,
    ) -> None:
        import sqlalchemy as sa

        self.name = name
        self.executor = executor
        self.workers = workers
        self.debts = debts
        self.keys: dict[str, str | None] = {}
        try:
            self._url = sa.make_url(url)
            made = self._url.get_dialect()
            driver = self._url.get_driver_name()
        except Exception as error:
            raise explain(error, name, None, maybe_applied=False) from None
        self.dialect: str = made.name
        sqlite = self.dialect == "sqlite"
        self.memory = sqlite and (self._url.database or ":memory:") == ":memory:"
        if sqlite and not self.memory and (self._url.query.get("uri") or str(self._url.database).startswith("file:")):
            raise InvalidArgumentError(f"database {name!r}: give a path in the url, not a URI of SQLite")
        self.path = None if not sqlite or self.memory else os.path.abspath(str(self._url.database))
        self.only_loop: bool = made.is_async
        self.loops = self.only_loop or (driver == "psycopg" and find_spec("greenlet") is not None)
        # psycopg and aiosqlite end a call by an error; another async driver has to be cancelled. SQLite needs no network
        # for that, only a processor, and a greenlet that is cancelled while it rolls back drops its connection unclosed
        self.grace = {"psycopg": 2.0, "psycopg_async": 2.0, "aiosqlite": 30.0}.get(driver, 0.0)
        self.under_way: dict[Any, Call | None] = {}
        self._durable = durable
        self._embedded = embedded
        self._pool_size = 1 if self.memory else pool_size
        self.places = Turns(self._pool_size, "a free connection")
        self.writer: FileTurn | None = None
        # in use: kept here, since the garbage collector would tell a pool of its connection before a transaction of its end
        self.links: set[Link] = set()
        self._engines: dict[bool, Any] = {}
        self._lock = Mutex()
        # weakly: an interrupted call loses its token with its frame
        self._running: weakref.WeakSet[_Token] = weakref.WeakSet()
        self._watch: Watch | None = None
        self._generation = fork.generation()
        self._closed = False
        self.fresh = self.path is not None
        self.making = False
        fork.register(self)

    # -- engines ----------------------------------------------------------

    def engine(self, in_loop: bool) -> sa.Engine:
        """Return the engine of a lane; the first time it is made."""
        with fork.importing, self._lock:
            if self._closed:
                raise ClosedError(f"database {self.name!r}: its client is closed")
            found = self._engines.get(in_loop)
            if found is None:
                found = self._engines[in_loop] = self._make(in_loop)
            engine: sa.Engine = found.sync_engine if in_loop else found
            return engine

    def _make(self, in_loop: bool) -> Any:
        import sqlalchemy as sa

        options: dict[str, Any] = {"hide_parameters": True}
        if self.memory:
            options["poolclass"] = sa.pool.StaticPool
            options["connect_args"] = {"check_same_thread": False}
        else:
            # the places keep the number of connections, and wait without a thread
            options |= {"pool_size": self._pool_size, "max_overflow": -1, "pool_recycle": 1800}
            if self.path is None:
                options["pool_pre_ping"] = True
            else:
                options["connect_args"] = {"check_same_thread": False, "timeout": _BUSY_MS / 1000}
                if not in_loop:
                    options["poolclass"] = sa.pool.QueuePool
        if in_loop:
            try:
                import greenlet  # noqa: F401
            except ImportError as error:
                raise InvalidArgumentError(
                    f'database {self.name!r}: async drivers need greenlet: pip install "SQLAlchemy[asyncio]"'
                ) from error
            from sqlalchemy.ext.asyncio import create_async_engine

            made: Any = create_async_engine(self._url, **options)
        else:
            made = sa.create_engine(self._url, **options)
        set_up = {"sqlite": self._connected, "postgresql": _ends_with_its_client}.get(self.dialect)
        if set_up is not None:
            sa.event.listen(made.sync_engine if in_loop else made, "connect", set_up)
        return made

    def _connected(self, connection: Any, record: Any) -> None:
        """Set a new connection to SQLite up."""
        connection.isolation_level = None  # transactions begin and end where we say
        cursor = connection.cursor()
        try:
            if self.fresh:
                self._log_ahead(cursor)
            for pragma in (
                "foreign_keys=ON",
                "trusted_schema=OFF",
                "cell_size_check=ON",
                f"synchronous={'FULL' if self._durable else 'NORMAL'}",
            ):
                cursor.execute(f"PRAGMA {pragma}")
        finally:
            cursor.close()

    def _log_ahead(self, cursor: Any) -> None:
        """See that a file has a write-ahead log; only in the turn to write it is made."""
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone()[0] == "wal":
            self.fresh = False
        elif self.making:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
            except Exception as error:
                if is_busy(error):
                    raise
                # else it may only be read: its journal stays as it is
            self.fresh = False

    def prepare(self) -> None:
        """Make the folder of an embedded file, and find the turn to write; no I/O on the file itself."""
        if self.path is None or self.writer is not None:
            return
        with self._lock:
            if self.writer is None:
                if self._embedded:
                    from ..._core.home import check_file_system, make_home, make_private

                    folder = Path(self.path).parent
                    make_home(folder.parent)
                    make_home(folder)
                    check_file_system(folder)
                    make_private(self.path)
                self.writer = file_turn(self.path)

    def holds(self, *, in_loop: bool) -> Holds:
        """Return what notes the places, turns and connections of one call or transaction."""
        return Holds(self.debts, self._leave_in_loop if in_loop else self._leave_in_worker)

    def connect(self, call: Call, holds: Holds, *, in_loop: bool) -> Link:
        """Take a connection out of the pool; leaving ``holds`` rolls back and gives it back."""
        from .link import Link

        connection: sa.Connection | None = None
        while connection is None:
            call.check()
            call.connecting = True
            try:
                connection = self.engine(in_loop).connect()
            except Exception as error:
                # behind a program that died in the middle of a write one connection makes the file whole, and the others wait
                if self.path is not None and is_busy(error):
                    continue
                found = self.explained(error, call)
                forget_password(error, self._url.password)
                raise found from error
            finally:
                call.connecting = False
        link = Link(self, connection, self._interrupter(connection))
        holds.add(link)
        self.links.add(link)
        return link

    def _interrupter(self, connection: Any) -> Interrupter:
        info = connection.info
        found: Interrupter | None = info.get("cloud_runtimes")
        if found is None:
            native = connection.connection.driver_connection
            if self.dialect == "sqlite":
                # aiosqlite's own method would wait for the statement that it shall interrupt
                found = SqliteInterrupter(getattr(native, "_conn", native))
            elif hasattr(native, "cancel"):
                with self._lock:
                    if self._watch is None:
                        self._watch = Watch()
                found = WatchedInterrupter(self._watch, native)
            else:
                found = Interrupter()
            info["cloud_runtimes"] = found
        return found

    def stop(self, call: Call) -> bool:
        """Have a call end soon; tells whether it may have been applied."""
        applied = call.stop()
        if self._watch is not None:
            self._watch.wake()
        return applied

    def explained(self, error: Exception, call: Call) -> CloudRuntimesError:
        """Return what to raise for an error of a call: a deadline comes as an error of the database."""
        if isinstance(error, CloudRuntimesError):
            return error
        if call.is_stopped:
            return ClosedError(call.reason, maybe_applied=call.committing)
        if _is_interrupted(error) and call.is_due():
            return call.op.timed_out("the database")
        found = explain(error, self.name, self.path, maybe_applied=call.committing)
        remaining = call.op.remaining()
        if remaining == 0.0 and found.code in ("UNAVAILABLE", "INTERNAL"):  # its connection was cut
            return call.op.timed_out("the database", maybe_applied=call.committing)
        return found

    def _leave_in_loop(self, leave: Callable[[], None]) -> None:
        from sqlalchemy.util import greenlet_spawn

        try:
            self.submit(greenlet_spawn(leave))
        except CloudRuntimesError:
            return  # the client is closed, and its connections with it

    def _leave_in_worker(self, leave: Callable[[], None]) -> None:
        if self._generation == fork.generation():  # else it is the parent's
            self.workers.post(partial(self.working, leave))

    def ended(self, task: Any) -> None:
        """Something that ran in the client's loop is no longer under way; also where nobody waited for its error."""
        self.under_way.pop(task, None)
        if not task.cancelled():
            task.exception()

    def submit(self, flow: Coroutine[Any, Any, None]) -> None:
        """Start in the client's loop what nobody waits for; its error is logged."""

        def done(future: Future[None]) -> None:
            self.under_way.pop(future, None)
            error = None if future.cancelled() else future.exception()
            if error is not None:
                told("what a call of a database left behind could not be ended", error)

        future = self.executor.submit(flow)
        self.under_way[future] = None
        future.add_done_callback(done)

    # -- rest and end -----------------------------------------------------

    def working(self, work: Callable[[], R]) -> R:
        """Run what uses a library with locks of its own; a fork waits for it."""
        token = _Token()
        with self._lock:
            self._running.add(token)
        try:
            return work()
        finally:
            self._running.discard(token)

    def before_fork(self) -> None:
        """Let nothing begin, and wait for what runs."""
        self._held = self._lock.acquire(timeout=_REST)
        end = monotonic() + _REST
        while self._running and monotonic() < end:
            sleep(0.0002)

    def after_fork(self) -> None:
        """In the parent: go on."""
        if self._held:
            self._lock.release()

    def forked(self) -> None:
        """In a forked child: forget all, and close nothing but the gate's files."""
        _inherited.append((self._engines, self.links))
        self._engines, self.links, self._running, self._watch = {}, set(), weakref.WeakSet(), None
        self.under_way = {}
        self._lock = Mutex()
        self._closed = True
        self.writer = None
        forget_turns()

    def _stop_loop(self) -> None:
        """Stop what runs in the client's loop, which is about to end: connections are closed by their drivers there."""
        for task, call in list(self.under_way.items()):
            if call is None:
                continue
            call.reason = "the client was closed while this call was under way"
            self.stop(call)
            if not self.grace and not call.connecting:
                self.executor.loop().call_soon_threadsafe(task.cancel)

    def close(self, timeout: float | None) -> None:
        """Close the connections that are not in use; the others close when they come back."""
        with self._lock:
            engines, self._engines, self._closed = self._engines, {}, True
        end = monotonic() + (5.0 if timeout is None else timeout)
        self._stop_loop()
        while (self._running or self.under_way or self.debts.is_owed()) and monotonic() < end:
            sleep(0.001)
        for in_loop, engine in engines.items():
            if not in_loop:
                dispose = partial(self.working, engine.dispose)
                self.workers.run(dispose) if is_main_thread() else dispose()
                continue
            try:
                self.executor.submit(engine.dispose()).result(max(0.1, end - monotonic()))
            except Exception:
                continue  # a server that does not answer: the sockets close with the loop
        if self._watch is not None:
            self._watch.close()


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


def _is_interrupted(error: Any) -> bool:
    native = getattr(error, "orig", error)
    return (
        getattr(native, "sqlite_errorname", None) == "SQLITE_INTERRUPT"
        or getattr(native, "sqlstate", None) == "57014"
        or getattr(native, "pgcode", None) == "57014"
    )
