"""Database of a process: its pool, its schema, its notifications.

All clients of the process that name it share it."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar

import psycopg
from psycopg import conninfo

from ..._core import fork
from ..._core.home import is_durable
from ..._core.threads import Mutex
from ...spi.driver import Driver
from ...spi.executor import Executor
from ...spi.operation import Operation
from ...spi.sql_states import by_state
from .._net.engines import Engine
from . import PostgresComponent, PostgresSettings
from .batches import OWN, Batches, SharedConnection
from .connection import Connection, Flow
from .failures import ConnectionLost
from .notifier import PostgresNotifier
from .pool import Pool
from .schema import ensure
from .statement import Statement
from .sweep import Sweeper
from .thread_batches import ThreadBatches

T = TypeVar("T")
Work = Callable[[Connection], Flow[T]]
_APART: Final = 4
"""Flows that run apart from batches at once, so that a few threads wait for nobody."""


class PostgresDatabase(Engine):
    """See the module; made by `acquire`.

    Attributes:
        where: what messages call it.
    """

    settings: PostgresSettings
    notifier: PostgresNotifier

    def __init__(self, settings: PostgresSettings) -> None:
        super().__init__(settings)
        self.where = _address(settings.url)
        self._pool = Pool(
            _conninfo(settings), self.where, settings.schema, settings.max_connections, prepares=settings.prepare
        )
        self.notifier = PostgresNotifier(
            settings.listen_url or settings.url, settings.schema, direct=settings.listen_url is not None
        )
        self._lock = Mutex()
        self.forked()
        fork.register(self)

    @classmethod
    def acquire(cls, settings: PostgresSettings) -> Self:
        return super().acquire(replace(settings, durability="full" if is_durable(settings.durability) else "relaxed"))

    def forked(self) -> None:
        """In a forked child: look again, which also starts its sweeper."""
        self._ready = False
        self._sweeper: Sweeper | None = None
        self._local = threading.local()
        self._apart = [None] * _APART
        self._reads = ThreadBatches(self._pool, writes=False)
        self._writes = ThreadBatches(self._pool, writes=True)

    # -- calls ------------------------------------------------------------

    def run(self, op: Operation, work: Work[T]) -> T:
        """Run a flow on a connection.

        Raises:
            CloudRuntimesError: it failed; ``maybe_applied`` says whether it may have been applied.
        """
        if not self._ready:
            self.ready(op)
        return self._pool.run(op, work)

    def share(self, op: Operation, work: Work[T]) -> T:
        """Run a flow. A few run at once, on connections of their own. Those of further threads put statements that share together."""
        if not self._ready:
            self.ready(op)
        if self._apart and not (self._reads.waiting or self._writes.waiting):
            try:
                place = self._apart.pop()
            except IndexError:
                pass  # another thread was faster
            else:
                try:
                    return self._pool.run(op, work)
                finally:
                    self._apart.append(place)
        shared = SharedConnection()
        flow = work(shared)
        try:
            asked = next(flow)
            while asked is not OWN:
                statement, values = asked
                batches = self._writes if statement.shares == "writes" else self._reads
                asked = flow.send(batches.run(op, statement, values))
        except StopIteration as stop:
            done: T = stop.value
            return done
        return self._pool.run(op, _rest(shared, flow))

    async def share_async(self, op: Operation, work: Work[T], executor: Executor) -> T:
        """Asynchronous `share`: with those of other calls of the loop."""
        if not self._ready:
            await executor.in_thread(functools.partial(self.ready, op), op)
        shared = SharedConnection()
        flow = work(shared)
        try:
            asked = next(flow)
            while asked is not OWN:
                statement, values = asked
                asked = flow.send(await self._batches(statement).run(op, statement, values))
        except StopIteration as stop:
            done: T = stop.value
            return done
        return await self._pool.run_async(op, _rest(shared, flow))

    def _batches(self, statement: Statement) -> Batches:
        """Return those of the running loop; a thread runs one at a time."""
        loop = asyncio.get_running_loop()
        if getattr(self._local, "loop", None) is not loop:
            self._local.loop = loop
            self._local.kinds = {
                kind: Batches(self._pool, loop, writes=kind == "writes") for kind in ("reads", "writes")
            }
        batches: Batches = self._local.kinds[statement.shares]
        return batches

    def ready(self, op: Operation) -> None:
        """Make or migrate the schema, once.

        Raises:
            CloudRuntimesError: it cannot be used; names the database and the remedy.
        """
        with self._lock:
            if self._ready:
                return
            if op.remaining() == 0.0:
                raise op.timed_out("another call, which could not open it")
            try:
                ensure(self.settings, op, self.where)
            except psycopg.errors.QueryCanceled as error:
                raise op.timed_out(f"{self.where} to make its schema") from error
            except psycopg.Error as error:
                raise explain(error, self.where) from error
            self._ready = True
            if self._sweeper is None:
                self._sweeper = Sweeper(self)
                self._sweeper.start()

    def _close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.close()
        self.notifier.close()
        self._pool.close()


def _rest(shared: SharedConnection, flow: Flow[T]) -> Work[T]:
    """Return what is left of a flow that wants a connection of its own."""

    def rest(connection: Connection) -> Flow[T]:
        shared.own = connection
        return flow

    return rest


def explain(error: psycopg.Error, where: str) -> Exception:
    """Return our error for one of psycopg's."""
    if error.sqlstate is None:
        return ConnectionLost(str(error)).map_error(where, maybe_applied=False)
    return by_state(where, error.sqlstate, f": {error.diag.message_primary}" if error.diag.message_primary else "")


def _conninfo(settings: PostgresSettings) -> str:
    """Return how to connect. A pooler refuses options, so behind one only events are relaxed, by their own statements."""
    if settings.durability == "full" or settings.listen_url is not None:
        return settings.url
    try:
        options = conninfo.conninfo_to_dict(settings.url).get("options") or os.environ.get("PGOPTIONS") or ""
    except psycopg.Error:
        return settings.url  # connecting says what is wrong
    return conninfo.make_conninfo(settings.url, options=f"{options} -c synchronous_commit=off")


def _address(url: str) -> str:
    """Return how messages name a database: without user, password and options."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "postgresql"
    return f"postgresql {parts.get('host') or 'localhost'}/{parts.get('dbname') or parts.get('user') or ''}"


P = ParamSpec("P")


class _OnDatabase(Protocol):
    executor: Executor

    @property
    def database(self) -> PostgresDatabase: ...


D = TypeVar("D", bound=_OnDatabase)


class PostgresDriver(Driver):
    """A driver of one database.

    Attributes:
        database: runs its flows.
        name: of the store or bus.
    """

    def __init__(self, component: PostgresComponent, name: str) -> None:
        self.component = component
        self.database = component.engine
        self.name = name


def on_connection(
    flow: Callable[Concatenate[D, Connection, P], Flow[T]],
) -> tuple[Callable[Concatenate[D, Operation, P], T], Callable[Concatenate[D, Operation, P], Coroutine[Any, Any, T]]]:
    """Return the method that a flow of one connection stands for, and its asynchronous twin; see `spi.flow.both_apis`."""

    def call(self: D, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.share(op, lambda connection: flow(self, connection, *args, **kwargs))

    def call_async(self: D, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.database.share_async(op, lambda connection: flow(self, connection, *args, **kwargs), self.executor)

    return call, call_async
