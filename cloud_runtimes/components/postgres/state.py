"""State on PostgreSQL: one row per key."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Final

from ...errors import CloudRuntimesError, ConflictError
from ...spi.change import Change, database_of
from ...spi.operation import Operation
from ...spi.state import OUTBOX, StateDriver, StateWrite, StoredValue
from .._state import FEATURES, conflict, new_etag, oversized, parse_etag, passed_fence, stored
from . import PostgresComponent
from .changes import Call, PostgresChange
from .connection import Connection, Flow
from .database import PostgresDriver, on_connection
from .statement import Result, Statement, prefix_end

_LIVING: Final = "(expires IS NULL OR expires > {schema}.now_ms())"
_EXPIRES: Final = "CASE WHEN $6::int8 IS NULL THEN NULL ELSE {schema}.now_ms() + $6 END"
_FIND: Final = Statement("SELECT id FROM {schema}.stores WHERE name = $1", "text", shares="reads")
_MAKE: Final = Statement("INSERT INTO {schema}.stores (name) VALUES ($1) ON CONFLICT DO NOTHING", "text")
_GET: Final = Statement(
    f"SELECT value, content_type, etag, expires FROM {{schema}}.state WHERE store = $1 AND key = $2 AND {_LIVING}",
    "int8 text",
    shares="reads",
)
_GET_BULK: Final = Statement(
    f"SELECT key, value, content_type, etag, expires FROM {{schema}}.state WHERE store = $1 AND key = ANY($2) AND {_LIVING}",
    "int8 text[]",
)
_LIST: Final = Statement(
    "SELECT key FROM {schema}.state WHERE store = $1 AND key > $2 AND key >= $3 AND ($4::text IS NULL OR key < $4) "
    f"AND {_LIVING} ORDER BY key LIMIT $5",
    "int8 text text text int8",
)
_VALUES: Final = "int8 text bytea text int8 int8"
_SAVE_SQL: Final = (
    "INSERT INTO {schema}.state AS s (store, key, value, content_type, etag, expires) "
    f"VALUES ($1, $2, $3, $4, $5, {_EXPIRES}) ON CONFLICT (store, key) DO UPDATE SET value = excluded.value, "
    "content_type = excluded.content_type, etag = excluded.etag, expires = excluded.expires"
)
_SAVE: Final = Statement(_SAVE_SQL, _VALUES, shares="writes")
_CREATE: Final = Statement(_SAVE_SQL + " WHERE s.expires <= {schema}.now_ms()", _VALUES, shares="writes")
_REPLACE: Final = Statement(
    f"UPDATE {{schema}}.state SET value = $3, content_type = $4, etag = $5, expires = {_EXPIRES} "
    f"WHERE store = $1 AND key = $2 AND etag = $7 AND {_LIVING}",
    _VALUES + " int8",
    shares="writes",
)
_DELETE: Final = Statement("DELETE FROM {schema}.state WHERE store = $1 AND key = $2", "int8 text", shares="writes")
_DELETE_ETAG: Final = Statement(
    f"DELETE FROM {{schema}}.state WHERE store = $1 AND key = $2 AND etag = $3 AND {_LIVING}",
    "int8 text int8",
    shares="writes",
)
# changes no row where the key saw a higher fence
_RAISE_FENCE: Final = Statement(
    "INSERT INTO {schema}.fences AS f (store, key, token) VALUES ($1, $2, $3) "
    "ON CONFLICT (store, key) DO UPDATE SET token = excluded.token WHERE f.token <= excluded.token",
    "int8 text int8",
)
_FENCE: Final = Statement("SELECT token FROM {schema}.fences WHERE store = $1 AND key = $2", "int8 text")


class PostgresState(PostgresDriver, StateDriver):
    """State store: a namespace in the state table."""

    features = FEATURES | {OUTBOX}

    def __init__(self, component: PostgresComponent, name: str) -> None:
        super().__init__(component, name)
        self._store: int | None = None
        self._max_value = component.settings.max_value_bytes

    @property
    def engine(self) -> Hashable:
        return database_of(self.component.settings.url)

    # -- reading ----------------------------------------------------------

    def _get(self, connection: Connection, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        store = self._store or (yield from self._find(connection))
        if store is None:
            return None
        rows = (yield from connection.execute(_GET, store, key)).rows
        return stored(rows[0]) if rows else None

    get, get_async = on_connection(_get)

    def _get_bulk(
        self, connection: Connection, keys: Sequence[str], consistency: str | None, /
    ) -> Flow[dict[str, StoredValue]]:
        store = yield from self._find(connection)
        if store is None:
            return {}
        rows = (yield from connection.execute(_GET_BULK, store, keys)).rows
        values = {key: stored(columns) for key, *columns in rows}
        return {key: values[key] for key in keys if key in values}

    get_bulk, get_bulk_async = on_connection(_get_bulk)

    def _list(self, connection: Connection, prefix: str, limit: int | None, after: str | None, /) -> Flow[list[str]]:
        store = yield from self._find(connection)
        if store is None:
            return []
        rows = (yield from connection.execute(_LIST, store, after or "", prefix, prefix_end(prefix), limit)).rows
        return [row[0] for row in rows]

    list_keys, list_keys_async = on_connection(_list)

    def _find(self, connection: Connection) -> Flow[int | None]:
        """Return the store's number, ``None`` before its first write."""
        if self._store is None:
            rows = (yield from connection.execute(_FIND, self.name)).rows
            self._store = rows[0][0] if rows else None
        return self._store

    # -- writing ----------------------------------------------------------

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        for part in self._parts(writes, atomic, failed):
            try:
                self.component.commit(op, [part], shares=True)
            except ConflictError:
                if atomic or not part.errors:
                    raise
            failed.update(part.errors)
        return failed

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        for part in self._parts(writes, atomic, failed):
            try:
                await self.component.commit_async(op, [part])
            except ConflictError:
                if atomic or not part.errors:
                    raise
            failed.update(part.errors)
        return failed

    def change(self, writes: Sequence[StateWrite], /) -> Change:
        oversized(self.name, writes, self._max_value, True)
        return self._parts(writes, True, {})[0]

    def commit(self, op: Operation, changes: Sequence[Change], /) -> None:
        self.component.commit(op, changes)

    async def commit_async(self, op: Operation, changes: Sequence[Change], /) -> None:
        await self.component.commit_async(op, changes)

    def _parts(self, writes: Sequence[StateWrite], atomic: bool, failed: Collection[int]) -> list[_Write]:
        """Return what is one transaction each: all writes, or the fenced ones by themselves and the rest."""
        if len(writes) == 1:
            return [] if failed else [_Write(self.component, self, writes, (0,), True)]
        # in the order of their keys, so that transactions wait for each other's rows in one order
        indexes = sorted((index for index in range(len(writes)) if index not in failed), key=lambda at: writes[at].key)
        if atomic:
            return [_Write(self.component, self, writes, indexes, True)]
        parts = [[index] for index in indexes if writes[index].fence is not None]
        parts.append([index for index in indexes if writes[index].fence is None])
        return [_Write(self.component, self, writes, part, len(part) == 1) for part in parts if part]

    def store(self, connection: Connection) -> Flow[int]:
        """Return the store's number; makes it if need be."""
        if self._store is None:
            yield from connection.execute(_MAKE, self.name)
            yield from self._find(connection)
            assert self._store is not None
        return self._store


class _Write(PostgresChange):
    """Some of several writes. One that fails undoes the transaction, where it must be ``whole``.

    Attributes:
        errors: of those that failed, by place.
    """

    def __init__(
        self,
        component: PostgresComponent,
        driver: PostgresState,
        writes: Sequence[StateWrite],
        indexes: Sequence[int],
        whole: bool,
    ) -> None:
        super().__init__(component)
        self._driver = driver
        self._writes = writes
        self._indexes = indexes
        self._whole = whole
        self._calls: list[tuple[int, Call]] = []
        self.errors: dict[int, CloudRuntimesError] = {}

    @property
    def conditional(self) -> bool:
        mine = map(self._writes.__getitem__, self._indexes)
        return self._whole and any(each.etag is not None or each.create or each.fence is not None for each in mine)

    def calls(self, connection: Connection) -> Flow[list[Call]]:
        self._store = store = yield from self._driver.store(connection)
        self._calls = []
        for index in self._indexes:
            write = self._writes[index]
            if write.fence is not None:
                self._calls.append((index, (_RAISE_FENCE, (store, write.key, write.fence))))
            self._calls.append((index, _call(store, write)))
        return [call for _, call in self._calls]

    def check(self, connection: Connection, results: Sequence[Result]) -> Flow[None]:
        errors = self.errors
        for (index, (statement, _)), result in zip(self._calls, results, strict=True):
            if not result.count and index not in errors:
                write = self._writes[index]
                if statement is _RAISE_FENCE:
                    rows = (yield from connection.execute(_FENCE, self._store, write.key)).rows
                    errors[index] = passed_fence(write, rows[0][0])
                elif (error := conflict(self._driver.name, write)) is not None:
                    errors[index] = error
        if errors and self._whole:
            raise errors[min(errors)]


def _call(store: int, write: StateWrite) -> Call:
    """Return the statement of one write, and its parameters."""
    if write.data is None:
        if write.etag is None:
            return _DELETE, (store, write.key)
        return _DELETE_ETAG, (store, write.key, parse_etag(write.etag))
    values = (store, write.key, write.data, write.content_type, new_etag(), write.ttl_ms)
    if write.etag is not None:
        return _REPLACE, (*values, parse_etag(write.etag))
    return (_CREATE if write.create else _SAVE), values
