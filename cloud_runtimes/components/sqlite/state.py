"""State on SQLite: one row per key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..._core.arguments import MAX_KEY_BYTES
from ...errors import CloudRuntimesError, ConflictError, PayloadError
from ...spi.change import Change
from ...spi.operation import Operation
from ...spi.state import OUTBOX, StateDriver, StateWrite, StoredValue
from .._state import FEATURES, conflict, new_etag, oversized, parse_etag, passed_fence, stored, try_value
from .._unreadable import unreadable
from . import SqliteComponent
from .writes import SqliteChange, WriteTask, apply_all

if TYPE_CHECKING:
    from .engine import Engine

_FIND: Final = "SELECT id FROM stores WHERE name = ?"
_GET: Final = "SELECT value, content_type, etag, expires FROM state WHERE store = ? AND key = ?"
_GET_BULK: Final = (
    "SELECT key, value, content_type, etag, expires FROM state "
    "WHERE store = ? AND key IN (SELECT value FROM json_each(?)) AND (expires IS NULL OR expires > ?)"
)
_LIST: Final = (
    "SELECT key FROM state WHERE store = ? AND key >= ? AND key < ? AND (expires IS NULL OR expires > ?) "
    "ORDER BY key LIMIT ?"
)
_SAVE: Final = (
    "INSERT INTO state (store, key, value, content_type, etag, expires) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (store, key) DO UPDATE SET value = excluded.value, content_type = excluded.content_type, "
    "etag = excluded.etag, expires = excluded.expires"
)
_CREATE: Final = _SAVE + " WHERE state.expires <= ?"
_REPLACE: Final = (
    "UPDATE state SET value = ?, content_type = ?, etag = ?, expires = ? "
    "WHERE store = ? AND key = ? AND etag = ? AND (expires IS NULL OR expires > ?)"
)
_DELETE: Final = "DELETE FROM state WHERE store = ? AND key = ?"
_DELETE_ETAG: Final = _DELETE + " AND etag = ? AND (expires IS NULL OR expires > ?)"
_FENCE: Final = "SELECT token FROM fences WHERE store = ? AND key = ?"
_RAISE_FENCE: Final = (
    "INSERT INTO fences (store, key, token) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET token = excluded.token"
)
DELETE_EXPIRED: Final = "DELETE FROM state WHERE id IN (SELECT id FROM state WHERE expires <= :now LIMIT :most)"
"""Removes at most so many values that have expired."""

_ABOVE: Final = "\U0010ffff" * MAX_KEY_BYTES
"""Above whatever may follow a prefix."""
_POINT_READS: Final = 16
_MANY: Final = 100
"""Values with a time to live in one write, from which on it removes twice as many that have expired: sweeping alone would not keep up."""


class SqliteState(StateDriver):
    """State driver of a store, which is a namespace in the state table."""

    features = FEATURES | {OUTBOX}

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name
        self._store: int | None = None
        self._max_value = context.settings.max_value_bytes

    @property
    def engine(self) -> Hashable:
        return self._engine.path

    # -- reading ----------------------------------------------------------

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        store = self._store or self._find_store(op)
        return None if store is None else self._unexpired(key, self._engine.query(op, _GET, (store, key)))

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        store = self._store or await self._find_store_async(op)
        return None if store is None else self._unexpired(key, await self._engine.query_async(op, _GET, (store, key)))

    def _unexpired(self, key: str, rows: list[Any]) -> StoredValue | None:
        try:
            value = stored(rows[0]) if rows else None
            if value is None or (value.expires_ms is not None and value.expires_ms <= self._engine.clocks.wall_ms()):
                return None
        except TypeError as error:
            raise unreadable(f"the value of {key!r} in {self._name!r}", error) from error
        return value

    def get_bulk(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue | PayloadError]:
        store = self._find_store(op)
        return {} if store is None else self._living(self._engine.query(op, *self._reading(store, keys)))

    async def get_bulk_async(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue | PayloadError]:
        if len(keys) > _POINT_READS:
            return await self._in_thread(self.get_bulk, op, keys, consistency)
        store = await self._find_store_async(op)
        return {} if store is None else self._living(await self._engine.query_async(op, *self._reading(store, keys)))

    def _living(self, rows: list[Any]) -> dict[str, StoredValue | PayloadError]:
        values = {key: try_value(self._name, key, columns, stored) for key, *columns in rows}
        return {key: value for key, value in values.items() if value is not None}

    def _reading(self, store: int, keys: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
        return _GET_BULK, (store, json.dumps(keys), self._engine.clocks.wall_ms())

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        store = self._find_store(op)
        if store is None:
            return []
        first = prefix if after is None else max(prefix, after + "\0")
        names = (store, first, prefix + _ABOVE, self._engine.clocks.wall_ms(), -1 if limit is None else limit)
        return [row[0] for row in self._engine.query(op, _LIST, names)]

    def _find_store(self, op: Operation) -> int | None:
        """Return the store's number, ``None`` before its first write."""
        if self._store is None:
            rows = self._engine.query(op, _FIND, (self._name,))
            self._store = rows[0][0] if rows else None
        return self._store

    async def _find_store_async(self, op: Operation) -> int | None:
        if self._store is None:
            rows = await self._engine.query_async(op, _FIND, (self._name,))
            self._store = rows[0][0] if rows else None
        return self._store

    # -- writing ----------------------------------------------------------

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        failed, task = self._task(op, writes, atomic)
        if task is not None:
            failed.update(self._engine.run(task, op))
            if self._store is None:
                self._find_store(op)
        return failed

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        failed, task = self._task(op, writes, atomic)
        if task is not None:
            failed.update(await self._engine.run_async(task, op))
            if self._store is None:
                await self._find_store_async(op)
        return failed

    def change(self, writes: Sequence[StateWrite], /) -> SqliteChange:
        oversized(self._name, writes, self._max_value, True)
        self._context.sweeping()

        def body(connection: sqlite3.Connection) -> tuple[str, ...]:
            self._apply(connection, writes, True, {})
            return ()

        return SqliteChange(body)

    def commit(self, op: Operation, changes: Sequence[Change], /) -> None:
        self._engine.run(self._committing(changes), op)

    async def commit_async(self, op: Operation, changes: Sequence[Change], /) -> None:
        await self._engine.run_async(self._committing(changes), op)

    def _committing(self, changes: Sequence[Change]) -> WriteTask:
        def body(connection: sqlite3.Connection) -> None:
            task.channels = apply_all(connection, changes)

        task = WriteTask(body, durable=self._context.durable)
        return task

    def _task(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool
    ) -> tuple[dict[int, CloudRuntimesError], WriteTask | None]:
        failed = oversized(self._name, writes, self._max_value, atomic)
        if len(failed) == len(writes):
            return failed, None
        self._context.sweeping()

        def body(connection: sqlite3.Connection) -> dict[int, CloudRuntimesError]:
            return self._apply(connection, writes, atomic, failed)

        # a plain save or delete is one statement once the store has its number
        single = len(writes) == 1 and self._store is not None and writes[0].fence is None
        size = sum([200 + len(write.data or b"") for write in writes])
        return failed, WriteTask(body, durable=self._context.durable, single=single, size=size)

    def _apply(
        self, connection: sqlite3.Connection, writes: Sequence[StateWrite], atomic: bool, skipped: Mapping[int, Any]
    ) -> dict[int, CloudRuntimesError]:
        store = self._store
        if store is None:
            connection.execute("INSERT OR IGNORE INTO stores (name) VALUES (?)", (self._name,))
            store = connection.execute(_FIND, (self._name,)).fetchone()[0]
            # a later read remembers it, since this transaction may yet be undone
        now = self._engine.clocks.wall_ms()
        failed: dict[int, CloudRuntimesError] = {}
        for index, write in enumerate(writes):
            if index in skipped:
                continue
            try:
                self._one(connection, store, write, now)
            except ConflictError as error:
                if atomic:
                    raise
                failed[index] = error
        if len(writes) >= _MANY and (expiring := sum(write.ttl_ms is not None for write in writes)) >= _MANY:
            connection.execute(DELETE_EXPIRED, {"now": now, "most": 2 * expiring})
        return failed

    def _one(self, connection: sqlite3.Connection, store: int, write: StateWrite, now: int) -> None:
        key = write.key
        if write.fence is not None:
            row = connection.execute(_FENCE, (store, key)).fetchone()
            if row is not None and row[0] > write.fence:
                raise passed_fence(write, row[0])
        etag = None if write.etag is None else parse_etag(write.etag)
        if write.data is None:
            if write.etag is None:
                done = connection.execute(_DELETE, (store, key))
            else:
                done = connection.execute(_DELETE_ETAG, (store, key, etag, now))
        else:
            expires = None if write.ttl_ms is None else now + write.ttl_ms
            value = (write.data, write.content_type, new_etag(), expires)
            if write.etag is not None:
                done = connection.execute(_REPLACE, (*value, store, key, etag, now))
            elif write.create:
                done = connection.execute(_CREATE, (store, key, *value, now))
            else:
                done = connection.execute(_SAVE, (store, key, *value))
        if not done.rowcount and (error := conflict(self._name, write)) is not None:
            raise error
        if write.fence is not None:
            connection.execute(_RAISE_FENCE, (store, key, write.fence))
