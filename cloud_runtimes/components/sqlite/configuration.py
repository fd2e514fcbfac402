"""Configuration on SQLite: one row per store, group, label and key; see `_configuration`. `sweep.TOMBSTONES` tells how long tombstones stay."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.operation import Operation
from .._configuration import COLUMNS, FEATURES, ChangeSource, channel, columns, group_and_label, items
from . import SqliteComponent
from .writes import WriteTask

if TYPE_CHECKING:
    from .engine import Engine
    from .notifier import Waiter

_POINT_READS: Final = 16

_FROM: Final = (
    "FROM stores s JOIN configuration c ON c.store = s.id AND c.grp = :group AND c.label = :label WHERE s.name = :name "
)
_GET_ALL: Final = f"SELECT {COLUMNS} {_FROM} AND c.deleted IS NULL ORDER BY c.key"
_GET: Final = _GET_ALL.replace("ORDER BY", "AND c.key IN (SELECT value FROM json_each(:keys)) ORDER BY")
# one statement, so that versions and rows are of one moment; without a change one row of NULLs
_SINCE: Final = f"""
SELECT v.version, v.swept, {COLUMNS}
FROM stores s JOIN configuration_versions v ON v.store = s.id
LEFT JOIN configuration c ON c.store = v.store AND c.grp = :group AND c.label = :label AND c.version > :since
WHERE s.name = :name
"""
_SAVE: Final = (
    "INSERT INTO configuration (store, version, grp, label, key, tags, metadata, value) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (store, grp, label, key) DO UPDATE SET "
    "version = excluded.version, deleted = NULL, tags = excluded.tags, metadata = excluded.metadata, value = excluded.value "
    # saving the same again is no change
    "WHERE deleted IS NOT NULL OR value <> excluded.value OR tags IS NOT excluded.tags OR metadata IS NOT excluded.metadata"
)
_DELETE: Final = (
    "UPDATE configuration SET version = ?, deleted = ?, tags = NULL, metadata = NULL, value = '' "
    "WHERE store = ? AND grp = ? AND label = ? AND key = ? AND deleted IS NULL"
)
_VERSION: Final = (
    "INSERT INTO configuration_versions (store, version, swept) VALUES (?, ?, 0) "
    "ON CONFLICT (store) DO UPDATE SET version = excluded.version"
)


class SqliteConfiguration(ConfigurationDriver):
    """Configuration store: a namespace in the table."""

    features = FEATURES

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name
        self._channel = channel(name)
        self._max_value = context.settings.max_value_bytes

    # -- reading ----------------------------------------------------------

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        sql = _GET if selection.keys else _GET_ALL
        return items(self._name, self._engine.query(op, sql, _names(self._name, selection)), selection)

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        if not 0 < len(selection.keys) <= _POINT_READS:
            return await self._in_thread(self.get, op, selection)
        rows = await self._engine.query_async(op, _GET, _names(self._name, selection))
        return items(self._name, rows, selection)

    # -- writing ----------------------------------------------------------

    def save(self, op: Operation, saved: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        rows = columns(self._name, saved, self._max_value)

        def body(connection: sqlite3.Connection) -> None:
            store, version = self._version(connection)
            before = version
            for row in rows:
                version += connection.execute(_SAVE, (store, version + 1, *row)).rowcount
            if version == before:
                task.channels = ()
            else:
                connection.execute(_VERSION, (store, version))

        task = self._task(body, sum([300 + len(item.value.encode()) for item in saved]))
        self._engine.run(task, op)

    def delete(self, op: Operation, selection: Selection, /) -> None:
        now = self._engine.clocks.wall_ms()

        def body(connection: sqlite3.Connection) -> None:
            store, version = self._version(connection)
            before = version
            for key in selection.keys:
                version += connection.execute(
                    _DELETE, (version + 1, now, store, *group_and_label(selection), key)
                ).rowcount
            if version != before:
                connection.execute(_VERSION, (store, version))

        self._engine.run(self._task(body, 300 * len(selection.keys)), op)

    def _task(self, body: Any, size: int) -> WriteTask:
        self._context.sweeping()
        return WriteTask(body, durable=self._context.durable, size=size, channels=(self._channel,))

    def _version(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Return the store's number, made if need be, and the version of its last change."""
        connection.execute("INSERT OR IGNORE INTO stores (name) VALUES (?)", (self._name,))
        store = connection.execute("SELECT id FROM stores WHERE name = ?", (self._name,)).fetchone()[0]
        row = connection.execute("SELECT version FROM configuration_versions WHERE store = ?", (store,)).fetchone()
        return store, row[0] if row else 0

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self._context, self._name, selection)
        return source, source.read_all(op)


class _Source(ChangeSource):
    """Source of changes in the current database."""

    def __init__(self, context: SqliteComponent, name: str, selection: Selection) -> None:
        super().__init__(name, selection)
        self._context = context
        self._engine: Engine = context.engine

    def look(self) -> Update | None:
        return self._engine.unless_gone(super().look, self._begin)

    def _begin(self) -> Update:
        """Read the database that is there now."""
        self.close()
        self._engine, self._waiter = self._context.engine, None
        return self.read_all(self._operation())

    def _since(self, op: Operation, version: int) -> list[Any]:
        return self._engine.query(op, _SINCE, {**_names(self._name, self._selection), "since": version})

    def _subscribe(self) -> Waiter:
        return self._engine.notifier.subscribe(channel(self._name))


def _names(name: str, selection: Selection) -> dict[str, Any]:
    """Return parameters for the statements that read."""
    group, label = group_and_label(selection)
    return {"name": name, "group": group, "label": label, "keys": json.dumps(selection.keys)}
