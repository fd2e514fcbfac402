"""Events that wait in a table of the database for a broker of another engine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ..._core.arguments import HIDDEN
from ...spi.pubsub import OutgoingBatch
from ...spi.relay import Backlog, RelayLog, Waiting, choose
from .._log.claims import count_in
from . import PostgresComponent
from .changes import Call, PostgresChange
from .connection import Connection, Flow
from .database import PostgresDriver, on_connection
from .state import PostgresState
from .statement import Statement

_ADD: Final = Statement(
    "INSERT INTO {schema}.relay (name, due, count, body) VALUES ($1, {schema}.now_ms() + $2, $3, $4)",
    "text int8 int4 bytea",
)
_SIZES: Final = Statement(
    "SELECT id, length(body) FROM {schema}.relay WHERE name = $1 ORDER BY id LIMIT $2", "text int8"
)
_READ: Final = Statement("SELECT id, count, due, body FROM {schema}.relay WHERE id = ANY ($1) ORDER BY id", "int8[]")
_PAGE: Final = 4000
"""Rows that are read at a time, beside as many as are held."""
# a forwarder that stands still between its statements and COMMIT holds the row of its lease, which another has to take
_IMPATIENT: Final = Statement("SELECT set_config('idle_in_transaction_session_timeout', '1000', true)")
_REMOVE: Final = Statement("DELETE FROM {schema}.relay WHERE name = $1 AND id = ANY ($2)", "text int8[]")
_BACKLOG: Final = Statement(
    "SELECT coalesce(sum(count), 0)::int8, coalesce(sum(length(body)), 0)::int8, min(created) FROM {schema}.relay WHERE name = $1",
    "text",
)
_NAMES: Final = Statement("SELECT DISTINCT name FROM {schema}.relay")


class PostgresRelay(PostgresDriver, RelayLog):
    """Events that wait under one name."""

    def __init__(self, component: PostgresComponent, name: str) -> None:
        super().__init__(component, name)
        self.leases = PostgresState(component, f"{HIDDEN}relay{HIDDEN}")

    def change(self, batch: OutgoingBatch, /) -> PostgresChange:
        due = batch.delay_ms
        return _Calls(self.component, [(_ADD, (self.name, due, count_in(frame), frame)) for frame in batch.frames])

    def _waiting(
        self, connection: Connection, after: None, limit: int, held: Collection[int], /
    ) -> Flow[tuple[Sequence[Waiting], None]]:
        # From the first row on: a number is given before its commit, so others behind it may have been read by then.
        sizes = (yield from connection.execute(_SIZES, self.name, 2 * len(held) + _PAGE)).rows
        if not (chosen := choose(sizes, limit, held)):
            return [], None
        rows = (yield from connection.execute(_READ, chosen)).rows
        return [Waiting(id, body, count, due) for id, count, due, body in rows], None

    waiting, waiting_async = on_connection(_waiting)

    def removal(self, waiting: Sequence[Waiting], forwarded: int, dropped: int, /) -> PostgresChange:
        remove = (_REMOVE, (self.name, [each.token for each in waiting]))
        return _Calls(self.component, [(_IMPATIENT, ()), remove])

    def _backlog(self, connection: Connection, /) -> Flow[Backlog]:
        return Backlog(*(yield from connection.execute(_BACKLOG, self.name)).rows[0])

    backlog, backlog_async = on_connection(_backlog)

    def _names(self, connection: Connection, /) -> Flow[Sequence[str]]:
        return [name for (name,) in (yield from connection.execute(_NAMES)).rows]

    names, names_async = on_connection(_names)


class _Calls(PostgresChange):
    """Statements that need nothing."""

    def __init__(self, component: PostgresComponent, calls: list[Call]) -> None:
        super().__init__(component)
        self._calls = calls

    def calls(self, connection: Connection) -> Flow[list[Call]]:
        yield from ()
        return self._calls
