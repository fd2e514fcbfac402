"""Configuration on PostgreSQL: one row per store, group, label and key. A deleted one stays for a while as a tombstone.

Every change takes the next version of its store, whose row it locks, so versions become visible in their order and a subscriber asks for what is newer than what it has seen. Sweeping tombstones raises the store's ``swept``: who has seen less than that may have missed a delete, and gets all that there is instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Final

from ...errors import ResourceExhaustedError
from ...spi import configuration as spi
from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.operation import Method, Operation
from .connection import Connection, Flow
from .notifier import Waiter, notification
from .statement import BEGIN, COMMIT, Statement

if TYPE_CHECKING:
    from . import PostgresComponent

__all__ = ["PostgresConfiguration"]

_DEFAULT: Final = ""
_FROM: Final = (
    "FROM {schema}.stores s JOIN {schema}.configuration c ON c.store = s.id AND c.grp = $2 AND c.label = $3 WHERE s.name = $1 "
    "AND c.deleted IS NULL"
)
_COLUMNS: Final = "c.key, c.version, c.tags, c.metadata, c.value, c.deleted"
_GET: Final = Statement(
    f"SELECT {_COLUMNS} {_FROM} AND ($4::text[] IS NULL OR c.key = ANY($4)) ORDER BY c.key", "text text text text[]"
)
# one statement, so that versions and rows are of one moment; without a change one row of NULLs
_SINCE: Final = Statement(
    f"SELECT v.version, v.swept, {_COLUMNS} "
    "FROM {schema}.stores s JOIN {schema}.configuration_versions v ON v.store = s.id "
    "LEFT JOIN {schema}.configuration c ON c.store = v.store AND c.grp = $2 AND c.label = $3 AND c.version > $4 "
    "WHERE s.name = $1",
    "text text text int8",
)
_MAKE: Final = Statement("INSERT INTO {schema}.stores (name) VALUES ($1) ON CONFLICT DO NOTHING", "text")
_MAKE_VERSION: Final = Statement(
    "INSERT INTO {schema}.configuration_versions SELECT id, 0, 0 FROM {schema}.stores WHERE name = $1 ON CONFLICT DO NOTHING",
    "text",
)
_LOCK: Final = Statement(
    "SELECT v.store, v.version FROM {schema}.stores s JOIN {schema}.configuration_versions v ON v.store = s.id "
    "WHERE s.name = $1 FOR UPDATE OF v",
    "text",
)
_SAVE: Final = Statement(
    "INSERT INTO {schema}.configuration AS c (store, grp, label, key, version, deleted, tags, metadata, value) "
    "VALUES ($1, $2, $3, $4, $5, NULL, $6, $7, $8) ON CONFLICT (store, grp, label, key) DO UPDATE SET "
    "version = excluded.version, deleted = NULL, tags = excluded.tags, metadata = excluded.metadata, value = excluded.value "
    # saving the same again is no change
    "WHERE c.deleted IS NOT NULL OR c.value <> excluded.value OR c.tags IS DISTINCT FROM excluded.tags "
    "OR c.metadata IS DISTINCT FROM excluded.metadata",
    "int8 text text text int8 text text text",
)
_DELETE: Final = Statement(
    "UPDATE {schema}.configuration SET version = $5, deleted = {schema}.now_ms(), tags = NULL, metadata = NULL, value = '' "
    "WHERE store = $1 AND grp = $2 AND label = $3 AND key = $4 AND deleted IS NULL",
    "int8 text text text int8",
)
_VERSION: Final = Statement("UPDATE {schema}.configuration_versions SET version = $2 WHERE store = $1", "int8 int8")
_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_TIMEOUT: Final = 30.0


class PostgresConfiguration(ConfigurationDriver):
    """One store: a namespace in the table."""

    features = frozenset({spi.WRITE, spi.ATOMIC, spi.GROUP, spi.LABEL, spi.SUBSCRIBE, spi.TAGS, spi.VERSION})

    def __init__(self, component: PostgresComponent, name: str) -> None:
        self._component = component
        self._name = name
        # made of the name, since a subscriber may come before the store exists
        self._channel = f"configuration-{blake2s(name.encode(), digest_size=8).hexdigest()}"
        self._max_value = component.settings.max_value_bytes

    # -- reading ----------------------------------------------------------

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return self._component.database.run(op, lambda connection: self._get(connection, selection))

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return await self._component.database.run_async(
            op, lambda connection: self._get(connection, selection), self.executor
        )

    def _get(self, connection: Connection, selection: Selection) -> Flow[dict[str, ConfigurationItem]]:
        values = (*_place(self._name, selection), selection.keys or None)
        return _items((yield from connection.run(_GET, *values)).rows, selection)

    # -- writing ----------------------------------------------------------

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        self._check(items)
        self._component.database.run(op, lambda connection: self._save(connection, items))

    async def save_async(
        self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> None:
        self._check(items)
        await self._component.database.run_async(op, lambda connection: self._save(connection, items), self.executor)

    def _check(self, items: Sequence[ConfigurationItem]) -> None:
        for item in items:
            length = len(item.value.encode())
            if length > self._max_value:
                raise ResourceExhaustedError(
                    f"the value of {item.key!r} has {length:,} bytes; {self._name!r} takes {self._max_value:,}: "
                    "split it, or raise max_value_bytes"
                )

    def _save(self, connection: Connection, items: Sequence[ConfigurationItem]) -> Flow[None]:
        store, version = yield from self._locked(connection)
        calls = [
            (
                _SAVE,
                (
                    store,
                    item.group or _DEFAULT,
                    item.label or _DEFAULT,
                    item.key,
                    version + place,
                    _dump(item.tags),
                    _dump(item.metadata),
                    item.value,
                ),
            )
            for place, item in enumerate(items, 1)
        ]
        yield from self._change(connection, store, version, calls)

    def delete(self, op: Operation, selection: Selection, /) -> None:
        self._component.database.run(op, lambda connection: self._delete(connection, selection))

    async def delete_async(self, op: Operation, selection: Selection, /) -> None:
        await self._component.database.run_async(
            op, lambda connection: self._delete(connection, selection), self.executor
        )

    def _delete(self, connection: Connection, selection: Selection) -> Flow[None]:
        store, version = yield from self._locked(connection)
        place = (selection.group or _DEFAULT, selection.label or _DEFAULT)
        calls = [(_DELETE, (store, *place, key, version + at)) for at, key in enumerate(selection.keys, 1)]
        yield from self._change(connection, store, version, calls)

    def _locked(self, connection: Connection) -> Flow[tuple[int, int]]:
        """Begin a transaction and lock the store; returns its number, made if need be, and the version of its last change."""
        found = (yield from connection.pipeline([(BEGIN, ()), (_LOCK, (self._name,))]))[1].rows
        if not found:
            making = [(_MAKE, (self._name,)), (_MAKE_VERSION, (self._name,)), (_LOCK, (self._name,))]
            found = (yield from connection.pipeline(making))[2].rows
        return found[0][0], found[0][1]

    def _change(
        self, connection: Connection, store: int, version: int, calls: list[tuple[Statement, tuple[Any, ...]]]
    ) -> Flow[None]:
        """Apply changes, with one version each, commit, and notify subscribers."""
        results = yield from connection.pipeline(calls)
        changed = max((place for place, result in enumerate(results, 1) if result.count), default=0)
        end: list[tuple[Statement, tuple[Any, ...]]] = [(COMMIT, ())]
        if changed:
            end = [
                (_VERSION, (store, version + changed)),
                notification(self._component.settings.schema, [self._channel]),
                *end,
            ]
        yield from connection.pipeline(end)

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self._component, self._name, selection, self._channel)
        return source, source.read_all(op)


class _Source(ConfigurationSource):
    """What changed since the version it has seen."""

    def __init__(self, component: PostgresComponent, name: str, selection: Selection, channel: str) -> None:
        self._component = component
        self._name = name
        self._selection = selection
        self._keys = frozenset(selection.keys)
        self._channel = channel
        self._seen = 0
        self._waiter: Waiter | None = None

    def read_all(self, op: Operation) -> Update:
        """Return all that there is."""
        rows = self._since(op, 0)
        self._seen = rows[0][0] if rows else 0
        return Update({key: item for key, item in self._taken(rows).items() if not item.deleted}, True)

    def look(self) -> Update | None:
        op = Operation(_LOOK, self._name, _TIMEOUT)
        rows = self._since(op, self._seen)
        if (rows[0][0] if rows else 0) == self._seen:
            return None
        # tombstones that it never saw were swept, or versions went back (a copy that was restored)
        if not rows or rows[0][1] > self._seen or rows[0][0] < self._seen:
            return self.read_all(op)
        self._seen = rows[0][0]
        return Update(self._taken(rows), False)

    def _since(self, op: Operation, version: int) -> list[Any]:
        values = (*_place(self._name, self._selection), version)
        return self._component.database.run(op, lambda connection: connection.run(_SINCE, *values)).rows

    def _taken(self, rows: list[Any]) -> dict[str, ConfigurationItem]:
        changed = [row[2:] for row in rows if row[2] is not None and (not self._keys or row[2] in self._keys)]
        return _items(changed, self._selection)

    def wait(self, timeout: float, /) -> None:
        if self._waiter is not None:
            self._waiter.wait(timeout)
        else:  # what changed before has notified nobody: look first
            self._waiter = self._component.database.notifier.subscribe(self._channel)

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()


def _place(name: str, selection: Selection) -> tuple[str, str, str]:
    return name, selection.group or _DEFAULT, selection.label or _DEFAULT


def _items(rows: list[Any], selection: Selection) -> dict[str, ConfigurationItem]:
    return {
        key: ConfigurationItem(
            key,
            value,
            str(version),
            selection.group,
            selection.label,
            _load(tags),
            _load(metadata),
            deleted is not None,
        )
        for key, version, tags, metadata, value, deleted in rows
    }


def _dump(names: Mapping[str, str]) -> str | None:
    return json.dumps(dict(names)) if names else None


def _load(text: str | None) -> dict[str, str]:
    return {} if text is None else json.loads(text)
