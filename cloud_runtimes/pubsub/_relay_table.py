"""Events that wait in a table of a database for a broker of another engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from time import time_ns
from typing import Any, Final, cast

from .._native import events as kernel
from ..errors import AlreadyExistsError, ConflictError
from ..spi.database import (
    Column,
    CreateTable,
    DatabaseDriver,
    DatabaseSession,
    EventRow,
    Execute,
    Insert,
    ListTables,
    Query,
    RowSet,
    Statement,
)
from ..spi.operation import Operation
from ..spi.pubsub import OutgoingBatch
from ..spi.relay import Backlog, Waiting, choose
from ..spi.sql import Sql, scan
from ._relay_stores import RelayStore

_TABLE: Final = "cloud_runtimes_outbox"
_LEASES: Final = "cloud_runtimes_outbox_leases"
_COLUMNS: Final = {
    "id": Column(kind="integer", primary_key=True),
    "target": Column(kind="integer", nullable=False),
    "name": Column(kind="text", nullable=False),
    "due": Column(kind="integer"),
    "events": Column(kind="integer", nullable=False),
    "created": Column(kind="integer", nullable=False),
    "size": Column(kind="integer", nullable=False),
    "body": Column(kind="bytes", nullable=False),
}
# two columns, since the database numbers a primary key of one
_LEASE_COLUMNS: Final = {
    "target": Column(kind="integer", primary_key=True),
    "part": Column(kind="integer", primary_key=True),
    "owner": Column(kind="text", nullable=False),
    "version": Column(kind="integer", nullable=False),
}
_ON_SQLITE: Final = (
    f"CREATE TABLE IF NOT EXISTS {_TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT, target BIGINT NOT NULL, name TEXT NOT NULL, "
    "due BIGINT, events BIGINT NOT NULL, created BIGINT NOT NULL, size BIGINT NOT NULL, body BLOB NOT NULL)"
)
_PAGE: Final = 1000
"""Rows that are read at a time, beside as many as are held."""
_NAMED: Final = 200
"""Rows that one statement names."""


class TableStore(RelayStore):
    """See the module. The table has the events of all brokers, told apart by a hash of the hidden name."""

    def __init__(self, name: str, where: str, driver: DatabaseDriver) -> None:
        super().__init__(name, where)
        self._driver = driver.apart
        self._target = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
        self._is_ready = self._has_leases = False

    def _sql(self, text: str) -> Sql:
        """Scan a statement, whose names are quoted: some databases make others of plain ones, or reserve them."""
        return scan(text.replace('"', "`") if self._driver.mysql else text, mysql=self._driver.mysql)

    def _execute(self, text: str, **parameters: Any) -> Execute:
        return Execute(self._sql(text), parameters)

    # -- the application's transaction ------------------------------------

    def _creation(self) -> list[tuple[bool, Statement]]:
        """Return the statements that make the table, each with whether it commits."""
        if self._is_ready:
            return []
        if self._driver.system == "sqlite":
            return [(False, self._execute(_ON_SQLITE))]
        statements: list[tuple[bool, Statement]] = [(True, CreateTable(_TABLE, _COLUMNS))]
        if self._driver.mysql:  # else of 64 KiB
            statements.append((True, self._execute(f'ALTER TABLE "{_TABLE}" MODIFY "body" LONGBLOB NOT NULL')))
        return statements

    def add(self, batch: OutgoingBatch) -> Sequence[EventRow]:
        now = time_ns() // 1_000_000
        due = None if batch.delay_ms is None else now + batch.delay_ms
        rows = (
            {"events": len(kernel.Frame(frame)), "due": due, "created": now, "size": len(frame), "body": frame}
            for frame in batch.frames
        )
        names = {"target": self._target, "name": self.name}
        return [EventRow(Insert(_TABLE, names | row), self._creation()) for row in rows]

    # -- the forwarder ----------------------------------------------------

    def _ensure(self) -> None:
        if not self._has_leases:
            for _, statement in [*self._creation(), (True, CreateTable(_LEASES, _LEASE_COLUMNS))]:
                with suppress(AlreadyExistsError):
                    self.run(self._driver.run, statement)
            self._is_ready = self._has_leases = True

    def _rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        self._ensure()
        rows = self.run(self._driver.run, statement)
        assert isinstance(rows, RowSet)
        return rows.rows

    def read(self, after: Any, limit: int, held: Collection[Any]) -> tuple[Sequence[Waiting], Any]:
        # Always from the first row on: a transaction may commit a row after others behind it were read, and then the next of its keys.
        has_limit = self._driver.system not in ("microsoft.sql_server", "oracle.db")
        # as many as are held and a page more: to read those again then costs no more than what is new
        most = 2 * len(held) + _PAGE
        page = f"LIMIT {most}" if has_limit else f"OFFSET 0 ROWS FETCH FIRST {most} ROWS ONLY"
        text = f'SELECT "id", "size" FROM "{_TABLE}" WHERE "target" = :target ORDER BY "id" {page}'
        chosen = choose(self._rows(Query(self._sql(text), {"target": self._target})), limit, held)
        waiting: list[Waiting] = []
        for names, ids in _named(chosen):
            query = self._sql(
                f'SELECT "id", "events", "due", "body" FROM "{_TABLE}" WHERE "id" IN ({names}) ORDER BY "id"'
            )
            waiting += [
                Waiting(id, bytes(body), events, due) for id, events, due, body in self._rows(Query(query, ids))
            ]
        return waiting, None

    def lease(self) -> tuple[str, Any] | None:
        query = Query(
            self._sql(f'SELECT "owner", "version" FROM "{_LEASES}" WHERE "target" = :target'), {"target": self._target}
        )
        rows = self._rows(query)
        return (rows[0][0], rows[0][1]) if rows else None

    def settle(self, owner: str, version: Any, done: Sequence[Waiting], forwarded: int, refused: Sequence[Any]) -> Any:
        self._ensure()
        return self.run(self._write, (owner, version), [each.token for each in done], refused)

    def move(self, done: Sequence[Waiting], added: Sequence[Any] | None) -> None:
        self.run(self._write, None, [each.token for each in done], added or ())

    def _write(
        self, op: Operation, lease: tuple[str, Any] | None, done: Sequence[int], added: Sequence[EventRow]
    ) -> int | None:
        session = self._driver.begin(op, None)
        try:
            following = None if lease is None else self._take(op, session, *lease)
            for names, ids in _named(done):
                session.run(op, self._execute(f'DELETE FROM "{_TABLE}" WHERE "id" IN ({names})', **ids))
            for each in added:
                session.run(op, each.insert)
            session.commit(op)
        except BaseException:
            session.rollback(op)
            raise
        return following

    def _take(self, op: Operation, session: DatabaseSession, owner: str, version: int | None) -> int:
        if version is None:
            try:
                session.run(op, Insert(_LEASES, {"target": self._target, "part": 0, "owner": owner, "version": 1}))
            except AlreadyExistsError:
                raise ConflictError(f"another process forwards what waits in {self.where}") from None
            return 1
        result = session.run(
            op,
            self._execute(
                f'UPDATE "{_LEASES}" SET "owner" = :owner, "version" = :next WHERE "target" = :target AND "version" = :version',
                owner=owner,
                next=version + 1,
                target=self._target,
                version=version,
            ),
        )
        if getattr(result, "rows_affected", 0) != 1:
            raise ConflictError(f"another process forwards what waits in {self.where}")
        return version + 1

    def release(self, version: Any) -> None:
        text = f'DELETE FROM "{_LEASES}" WHERE "target" = :target AND "version" = :version'
        self.run(self._driver.run, self._execute(text, target=self._target, version=version))

    def names(self) -> list[str]:
        """Return the hidden names of the table; none where it is not there."""
        if not self._has_leases and _TABLE not in cast("list[str]", self.run(self._driver.run, ListTables())):
            return []
        # Oracle compares no long texts, so it tells none apart either
        first = f'SELECT MIN("id") FROM "{_TABLE}" GROUP BY "target"'
        text = f'SELECT "name" FROM "{_TABLE}" WHERE "id" IN ({first})'
        return [name for (name,) in self._rows(Query(self._sql(text), {}))]

    def backlog(self) -> Backlog:
        text = f'SELECT SUM("events"), SUM("size"), MIN("created") FROM "{_TABLE}" WHERE "target" = :target'
        ((events, size, oldest),) = self._rows(Query(self._sql(text), {"target": self._target}))
        return Backlog(int(events or 0), int(size or 0), oldest)


def _named(ids: Sequence[int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield names for an ``IN``, with the parameters of that name, for some ids at a time."""
    for first in range(0, len(ids), _NAMED):
        some = {f"i{number}": id for number, id in enumerate(ids[first : first + _NAMED])}
        yield ", ".join(f":{name}" for name in some), some
