"""Configuration on PostgreSQL: one row per store, group, label and key; see `_configuration`. A change locks its store's row, so versions become visible in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.operation import Operation
from .._configuration import COLUMNS, FEATURES, ChangeSource, channel, columns, group_and_label, items
from .._net.notify import Waiter
from . import PostgresComponent
from .connection import Connection, Flow
from .database import PostgresDriver, on_connection
from .notifier import notification
from .statement import BEGIN, COMMIT, Statement

_FROM: Final = (
    "FROM {schema}.stores s JOIN {schema}.configuration c ON c.store = s.id AND c.grp = $2 AND c.label = $3 WHERE s.name = $1 "
    "AND c.deleted IS NULL"
)
_GET: Final = Statement(
    f"SELECT {COLUMNS} {_FROM} AND ($4::text[] IS NULL OR c.key = ANY($4)) ORDER BY c.key", "text text text text[]"
)
# one statement, so that versions and rows are of one moment; without a change one row of NULLs
_SINCE: Final = Statement(
    f"SELECT v.version, v.swept, {COLUMNS} "
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
    "INSERT INTO {schema}.configuration AS c (store, version, grp, label, key, tags, metadata, value) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (store, grp, label, key) DO UPDATE SET "
    "version = excluded.version, deleted = NULL, tags = excluded.tags, metadata = excluded.metadata, value = excluded.value "
    # saving the same again is no change
    "WHERE c.deleted IS NOT NULL OR c.value <> excluded.value OR c.tags IS DISTINCT FROM excluded.tags "
    "OR c.metadata IS DISTINCT FROM excluded.metadata",
    "int8 int8 text text text text text text",
)
_DELETE: Final = Statement(
    "UPDATE {schema}.configuration SET version = $5, deleted = {schema}.now_ms(), tags = NULL, metadata = NULL, value = '' "
    "WHERE store = $1 AND grp = $2 AND label = $3 AND key = $4 AND deleted IS NULL",
    "int8 text text text int8",
)
_VERSION: Final = Statement("UPDATE {schema}.configuration_versions SET version = $2 WHERE store = $1", "int8 int8")


class PostgresConfiguration(PostgresDriver, ConfigurationDriver):
    """Configuration store: a namespace in the table."""

    features = FEATURES

    def __init__(self, component: PostgresComponent, name: str) -> None:
        super().__init__(component, name)
        self._channel = channel(name)
        self._max_value = component.settings.max_value_bytes

    # -- reading ----------------------------------------------------------

    def _get(self, connection: Connection, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        values = (self.name, *group_and_label(selection), selection.keys or None)
        return items(self.name, (yield from connection.execute(_GET, *values)).rows, selection)

    get, get_async = on_connection(_get)

    # -- writing ----------------------------------------------------------

    def _save(
        self,
        connection: Connection,
        saved: Sequence[ConfigurationItem],
        metadata: Mapping[str, str] | None,
        /,
    ) -> Flow[None]:
        rows = columns(self.name, saved, self._max_value)
        store, version = yield from self._locked(connection)
        calls = [(_SAVE, (store, version + at, *row)) for at, row in enumerate(rows, 1)]
        yield from self._change(connection, store, version, calls)

    save, save_async = on_connection(_save)

    def _delete(self, connection: Connection, selection: Selection, /) -> Flow[None]:
        store, version = yield from self._locked(connection)
        calls = [
            (_DELETE, (store, *group_and_label(selection), key, version + at))
            for at, key in enumerate(selection.keys, 1)
        ]
        yield from self._change(connection, store, version, calls)

    delete, delete_async = on_connection(_delete)

    def _locked(self, connection: Connection) -> Flow[tuple[int, int]]:
        """Begin a transaction and lock the store; returns its number, made if need be, and the version of its last change."""
        rows = (yield from connection.pipeline([(BEGIN, ()), (_LOCK, (self.name,))]))[1].rows
        if not rows:
            making = [(_MAKE, (self.name,)), (_MAKE_VERSION, (self.name,)), (_LOCK, (self.name,))]
            rows = (yield from connection.pipeline(making))[2].rows
        return rows[0][0], rows[0][1]

    def _change(
        self, connection: Connection, store: int, version: int, calls: list[tuple[Statement, tuple[Any, ...]]]
    ) -> Flow[None]:
        """Apply changes, with one version each, commit, and notify subscribers."""
        results = yield from connection.pipeline(calls)
        changed = max((at for at, result in enumerate(results, 1) if result.count), default=0)
        end: list[tuple[Statement, tuple[Any, ...]]] = [(COMMIT, ())]
        if changed:
            end = [
                (_VERSION, (store, version + changed)),
                notification(self.component.settings.schema, [self._channel]),
                *end,
            ]
        yield from connection.pipeline(end)

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self.component, self.name, selection)
        return source, source.read_all(op)


class _Source(ChangeSource):
    """Source of changes in the database."""

    def __init__(self, component: PostgresComponent, name: str, selection: Selection) -> None:
        super().__init__(name, selection)
        self.component = component

    def _since(self, op: Operation, version: int) -> list[Any]:
        values = (self._name, *group_and_label(self._selection), version)
        return self.component.engine.run(op, lambda connection: connection.execute(_SINCE, *values)).rows

    def _subscribe(self) -> Waiter:
        return self.component.engine.notifier.subscribe(channel(self._name))
