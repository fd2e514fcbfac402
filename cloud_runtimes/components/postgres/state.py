"""State on PostgreSQL: one row per key."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...errors import CloudRuntimesError, ConflictError, ResourceExhaustedError
from ...spi import state as spi
from ...spi.operation import Operation
from ...spi.state import StateDriver, StateWrite, StoredValue
from .connection import Connection, Flow
from .keys import prefix_end
from .statement import BEGIN, COMMIT, ROLLBACK, Statement

if TYPE_CHECKING:
    from . import PostgresComponent

__all__ = ["PostgresState"]

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
_new_tuple = tuple.__new__  # half the cost of a NamedTuple's own


class PostgresState(StateDriver):
    """One store: a namespace in the state table."""

    features = frozenset(
        {
            spi.CONSISTENCY,
            spi.ETAG,
            spi.FIRST_WRITE,
            spi.TTL,
            spi.TRANSACTION,
            spi.TRANSACTION_ETAG,
            spi.LIST_KEYS,
            spi.FENCE,
        }
    )

    def __init__(self, component: PostgresComponent, name: str) -> None:
        self._component = component
        self._name = name
        self._store: int | None = None
        self._max_value = component.settings.max_value_bytes

    # -- reading ----------------------------------------------------------

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self._component.database.run(op, lambda connection: self._get(connection, key))

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return await self._component.database.run_async(
            op, lambda connection: self._get(connection, key), self.executor
        )

    def _get(self, connection: Connection, key: str) -> Flow[StoredValue | None]:
        store = self._store or (yield from self._find(connection))
        if store is None:
            return None
        rows = (yield from connection.run(_GET, store, key)).rows
        if not rows:
            return None
        data, content_type, etag, expires = rows[0]
        return _new_tuple(StoredValue, (data, content_type, "%016x" % etag, expires))  # noqa: UP031

    def get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> dict[str, StoredValue]:
        return self._component.database.run(op, lambda connection: self._get_bulk(connection, keys))

    async def get_bulk_async(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue]:
        return await self._component.database.run_async(
            op, lambda connection: self._get_bulk(connection, keys), self.executor
        )

    def _get_bulk(self, connection: Connection, keys: Sequence[str]) -> Flow[dict[str, StoredValue]]:
        store = yield from self._find(connection)
        if store is None:
            return {}
        rows = (yield from connection.run(_GET_BULK, store, keys)).rows
        found = {key: StoredValue(data, kind, f"{etag:016x}", expires) for key, data, kind, etag, expires in rows}
        return {key: found[key] for key in keys if key in found}

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return self._component.database.run(op, lambda connection: self._list(connection, prefix, limit, after))

    async def list_keys_async(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return await self._component.database.run_async(
            op, lambda connection: self._list(connection, prefix, limit, after), self.executor
        )

    def _list(self, connection: Connection, prefix: str, limit: int | None, after: str | None) -> Flow[list[str]]:
        store = yield from self._find(connection)
        if store is None:
            return []
        rows = (yield from connection.run(_LIST, store, after or "", prefix, prefix_end(prefix), limit)).rows
        return [row[0] for row in rows]

    def _find(self, connection: Connection) -> Flow[int | None]:
        """Return the store's number, ``None`` before its first write."""
        if self._store is None:
            rows = (yield from connection.run(_FIND, self._name)).rows
            self._store = rows[0][0] if rows else None
        return self._store

    # -- writing ----------------------------------------------------------

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        failed = self._too_large(writes, atomic)
        if len(failed) < len(writes):
            self._component.database.run(op, lambda connection: self._write(connection, writes, atomic, failed))
        return failed

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        failed = self._too_large(writes, atomic)
        if len(failed) < len(writes):
            await self._component.database.run_async(
                op, lambda connection: self._write(connection, writes, atomic, failed), self.executor
            )
        return failed

    def _too_large(self, writes: Sequence[StateWrite], atomic: bool) -> dict[int, CloudRuntimesError]:
        failed: dict[int, CloudRuntimesError] = {}
        for index, write in enumerate(writes):
            if write.data is not None and len(write.data) > self._max_value:
                failed[index] = ResourceExhaustedError(
                    f"the value of {write.key!r} has {len(write.data):,} bytes; {self._name!r} takes {self._max_value:,}: "
                    "split it, or raise max_value_bytes"
                )
                if atomic:
                    raise failed[index]
        return failed

    def _write(
        self,
        connection: Connection,
        writes: Sequence[StateWrite],
        atomic: bool,
        failed: dict[int, CloudRuntimesError],
    ) -> Flow[None]:
        store = self._store
        if store is None:
            yield from connection.run(_MAKE, self._name)
            store = yield from self._find(connection)
            assert store is not None
        # in the order of their keys, so that transactions wait for each other's rows in one order
        places = sorted((place for place in range(len(writes)) if place not in failed), key=lambda at: writes[at].key)
        if atomic:
            errors = yield from self._together(connection, store, writes, places, True)
            if errors:
                raise errors[min(errors)]
            return
        for place in [place for place in places if writes[place].fence is not None]:
            places.remove(place)
            failed.update((yield from self._together(connection, store, writes, [place], True)))
        if places:
            failed.update((yield from self._together(connection, store, writes, places, False)))

    def _together(
        self, connection: Connection, store: int, writes: Sequence[StateWrite], places: Sequence[int], atomic: bool
    ) -> Flow[dict[int, CloudRuntimesError]]:
        """Run writes in one transaction; with ``atomic`` one that fails undoes all."""
        calls: list[tuple[int, tuple[Statement, Sequence[Any]]]] = []
        for place in places:
            write = writes[place]
            if write.fence is not None:
                calls.append((place, (_RAISE_FENCE, (store, write.key, write.fence))))
            calls.append((place, _call(store, write)))
        if len(calls) == 1:
            statement, values = calls[0][1]
            results = [(yield from connection.run(statement, *values))]
            atomic = False
        elif atomic and (atomic := any(w.etag is not None or w.create or w.fence is not None for w in writes)):
            results = (yield from connection.pipeline([(BEGIN, ()), *(call for _, call in calls)]))[1:]
        else:
            results = yield from connection.pipeline([call for _, call in calls])
        errors: dict[int, CloudRuntimesError] = {}
        for (place, (statement, _)), result in zip(calls, results, strict=True):
            if not result.count and place not in errors:
                write = writes[place]
                if statement is _RAISE_FENCE:
                    rows = (yield from connection.run(_FENCE, store, write.key)).rows
                    errors[place] = ConflictError(
                        f"{write.key!r} saw the fence {rows[0][0]}, higher than {write.fence}: this holder's lease is over"
                    )
                elif (error := self._conflict(write)) is not None:
                    errors[place] = error
        if atomic:
            yield from connection.run(ROLLBACK if errors else COMMIT)
        return errors

    def _conflict(self, write: StateWrite) -> CloudRuntimesError | None:
        """Return why a write changed nothing; ``None``: it deleted what was not there."""
        if write.create:
            return ConflictError(f"{write.key!r} exists already in {self._name!r}: first-write only creates")
        if write.etag is not None:
            return ConflictError(
                f"the etag given is not the current one of {write.key!r} in {self._name!r}: read it again"
            )
        return None


def _call(store: int, write: StateWrite) -> tuple[Statement, Sequence[Any]]:
    """Return the statement of one write, and its parameters."""
    if write.data is None:
        if write.etag is None:
            return _DELETE, (store, write.key)
        return _DELETE_ETAG, (store, write.key, _parse_etag(write.etag))
    values = (store, write.key, write.data, write.content_type, random.getrandbits(63), write.ttl_ms)
    if write.etag is not None:
        return _REPLACE, (*values, _parse_etag(write.etag))
    return (_CREATE if write.create else _SAVE), values


def _parse_etag(etag: str) -> int:
    """Return an etag as a number, that of another store as one that is never current."""
    try:
        value = int(etag, 16)
    except ValueError:
        return -1
    return value if f"{value:016x}" == etag and value < 2**63 else -1
