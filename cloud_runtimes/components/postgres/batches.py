"""Short statements of one event loop that go to the server together.

A statement that finds none of its kind under way runs apart, at once. Those that come meanwhile wait, then go as one batch: one packet, one transaction, one answer, and for writes one sync of the disk. When the server refuses a batch it rolls all of it back. Each statement then runs apart and has its own result. A batch waits at most `_LOCK_MS` for a row that is locked, so one locked row delays the others no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ...spi.operation import Method, Operation, mark_interrupted
from .connection import Call, Connection, Flow
from .failures import ConnectionLost
from .statement import Result, Statement

if TYPE_CHECKING:
    from .pool import Pool

OWN: Final = object()
"""What a flow yields to get a connection of its own."""
AT_ONCE: Final = 3
"""Connections for statements of one kind: batches are on their way while results of others are used."""
_MOST: Final = 100
_MOST_BYTES: Final = 1 << 20
_LOCK_MS: Final = 100
_LOCK_TIMEOUT: Final = Statement(f"SELECT set_config('lock_timeout', '{_LOCK_MS}', true)")
_BATCH: Final = Method("postgres", "batch", repeatable=False)


class SharedConnection(Connection):
    """Connection for a flow of an event loop, which shares batches with other flows.

    Attributes:
        own: the flow's own connection, from its first statement that does not share.
    """

    __slots__ = ("own",)

    def __init__(self) -> None:
        self.own: Any = None

    def execute(self, statement: Statement, *values: Any) -> Flow[Result]:
        if self.own is None:
            if statement.shares is not None:
                return cast(Result, (yield statement, values))
            yield OWN
        return cast(Result, (yield from self.own.execute(statement, *values)))

    def pipeline(self, calls: Sequence[Call], after: Sequence[Call] = ()) -> Flow[list[Result]]:
        if self.own is None:
            yield OWN
        return cast(list[Result], (yield from self.own.pipeline(calls, after)))


class _Apart(Exception):
    """Nothing of the batch was applied: the statement is to run apart."""


class Entry:
    """A statement that waits, or is in a batch."""

    __slots__ = ("op", "parameters", "statement")

    def __init__(self, op: Operation, statement: Statement, parameters: list[bytes | None]) -> None:
        self.op = op
        self.statement = statement
        self.parameters = parameters


class _Entry(Entry):
    """Entry of an event loop; its future is done once nobody waits for it any more."""

    __slots__ = ("future",)

    def __init__(
        self, op: Operation, statement: Statement, parameters: list[bytes | None], future: asyncio.Future[Result]
    ) -> None:
        super().__init__(op, statement, parameters)
        self.future = future


E = TypeVar("E", bound=Entry)


def taken(waiting: list[E]) -> list[E]:
    """Take what waits, as much as fits."""
    size = count = 0
    for entry in waiting[:_MOST]:
        size += sum([len(value) for value in entry.parameters if value is not None])
        if count and size > _MOST_BYTES:
            break
        count += 1
    entries = waiting[:count]
    del waiting[:count]
    return entries


def exchange(connection: Connection, entries: list[Any], writes: bool) -> Flow[list[Result]]:
    """Run statements as one transaction. Writes are put in the order of their rows, so that batches wait for each other in one order."""
    if not entries:
        return []  # nobody waits any more
    if not writes:
        return (yield from connection.transact([[(entry.statement, entry.parameters) for entry in entries]]))
    entries.sort(key=_row)
    group = [(entry.statement, entry.parameters) for entry in entries]
    return (yield from connection.transact([[(_LOCK_TIMEOUT, []), *group]]))[1:]


class Batches:
    """The statements of one event loop that share, of one kind.

    Args:
        pool: has the connections.
        loop: the running one.
        writes: whether they change anything.
    """

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop, *, writes: bool) -> None:
        self._pool = pool
        self._loop = loop
        self._writes = writes
        self._waiting: list[_Entry] = []
        self._sent: dict[asyncio.Task[None], list[_Entry]] = {}
        self._under_way = 0
        self._starting = False
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, op: Operation, statement: Statement, values: Sequence[Any]) -> Result:
        """Run a statement.

        Raises:
            CloudRuntimesError: it failed; ``maybe_applied`` says whether it may have been applied.
        """
        if not self._under_way:
            self._under_way = 1
            try:
                return await self._pool.run_async(op, lambda connection: connection.execute(statement, *values))
            finally:
                self._ended()
        entry = _Entry(op, statement, statement.encode(values), self._loop.create_future())
        self._waiting.append(entry)
        self._start_soon()
        if op.deadline is not None and (self._timer is None or op.deadline < self._timer.when()):
            self._watch(op.deadline)
        try:
            return await entry.future
        except _Apart:
            pass
        except ConnectionLost as lost:
            raise lost.map_error(self._pool.where, maybe_applied=self._writes) from lost
        except BaseException as error:
            sent = self._forget(entry)
            maybe_applied = sent and self._writes
            if isinstance(error, TimeoutError):
                what = "PostgreSQL" if sent else self._pool.scarce()
                raise op.timed_out(what, maybe_applied=maybe_applied) from None
            mark_interrupted(error, maybe_applied)
            raise
        return await self._pool.run_async(op, lambda connection: connection.execute(statement, *values))

    # -- batches ----------------------------------------------------------

    def _start_soon(self) -> None:
        """Start a batch once the tasks that are ready now have added theirs."""
        if self._waiting and self._under_way < AT_ONCE and not self._starting:
            self._starting = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._starting = False
        if self._waiting:
            self._under_way += 1
            entries: list[_Entry] = []
            task = self._loop.create_task(self._serve(entries))
            self._sent[task] = entries
            task.add_done_callback(self._sent.pop)

    def _ended(self) -> None:
        self._under_way -= 1
        self._start_soon()

    async def _serve(self, entries: list[_Entry]) -> None:
        """Run what waits once there is a connection."""
        lost: str | None = None
        try:
            op = Operation(_BATCH, "postgres", None)
            connection = await self._pool.take_async(op)
            try:
                entries += taken(self._waiting)
                results = await connection.run_async(op, exchange(connection, entries, self._writes))
            except BaseException as error:
                if self._writes and connection.sent:
                    lost = str(error) or "the batch was interrupted"
                raise
            finally:
                self._pool.release(connection)
            for entry, result in zip(entries, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)
        except Exception:
            entries += () if entries else taken(self._waiting)  # no connection: each finds out why by itself
        finally:
            for entry in entries:
                if not entry.future.done():
                    entry.future.set_exception(_Apart() if lost is None else ConnectionLost(lost))
            self._ended()

    # -- entries that nobody waits for any more ---------------------------

    def _watch(self, deadline: float) -> None:
        """Set the timer: one for all entries, since most have ended before their deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        deadlines = []
        for entries in (self._waiting, *self._sent.values()):
            for entry in entries:
                if entry.op.deadline is None or entry.future.done():
                    continue
                if entry.op.remaining():
                    deadlines.append(entry.op.deadline)
                else:
                    entry.future.set_exception(TimeoutError())
        if deadlines:
            self._watch(min(deadlines))

    def _forget(self, entry: _Entry) -> bool:
        """Forget an entry; returns whether it was sent. A batch that nobody waits for ends, on the server as well."""
        if entry in self._waiting:
            self._waiting.remove(entry)
            return False
        for task, entries in self._sent.items():
            if entry in entries and all(each.future.done() for each in entries):
                task.cancel()
        return True


def _row(entry: Entry) -> list[bytes | None]:
    return entry.parameters[:2]
