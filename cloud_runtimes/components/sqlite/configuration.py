"""Configuration on SQLite: one row per store, group, label and key. A deleted one stays for a while as a tombstone.

Every change takes the next version of its store, so a subscriber asks for what is newer than what it has seen. Sweeping tombstones (`sweep.TOMBSTONES`) raises the store's ``swept``: who has seen less than that may have missed a delete, and gets all that there is instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...errors import ResourceExhaustedError
from ...spi import configuration as spi
from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.operation import Method, Operation
from .writes import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine
    from .notifier import Waiter

__all__ = ["SqliteConfiguration"]

_POINT_READS: Final = 16

_FROM: Final = (
    "FROM stores s JOIN configuration c ON c.store = s.id AND c.grp = :group AND c.label = :label WHERE s.name = :name "
)
_GET_ALL: Final = (
    f"SELECT c.key, c.version, c.tags, c.metadata, c.value, c.deleted {_FROM} AND c.deleted IS NULL ORDER BY c.key"
)
_GET: Final = _GET_ALL.replace("ORDER BY", "AND c.key IN (SELECT value FROM json_each(:keys)) ORDER BY")
_HEAD: Final = (
    "SELECT v.version, v.swept FROM stores s JOIN configuration_versions v ON v.store = s.id WHERE s.name = :name"
)
# one statement, so that versions and rows are of one moment; without a change one row of NULLs
_SINCE: Final = """
SELECT v.version, v.swept, c.key, c.version, c.tags, c.metadata, c.value, c.deleted
FROM stores s JOIN configuration_versions v ON v.store = s.id
LEFT JOIN configuration c ON c.store = v.store AND c.grp = :group AND c.label = :label AND c.version > :since
WHERE s.name = :name
"""
_SAVE: Final = (
    "INSERT INTO configuration (store, grp, label, key, version, deleted, tags, metadata, value) "
    "VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?) ON CONFLICT (store, grp, label, key) DO UPDATE SET "
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

_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_TIMEOUT: Final = 30.0


def channel(store: str) -> str:
    """Return the channel of a store. It is made of the name, since a subscriber may come before the store exists."""
    from hashlib import blake2s

    return f"configuration-{blake2s(store.encode(), digest_size=8).hexdigest()}"


class SqliteConfiguration(ConfigurationDriver):
    """One store: a namespace in the table."""

    features = frozenset({spi.WRITE, spi.ATOMIC, spi.GROUP, spi.LABEL, spi.SUBSCRIBE, spi.TAGS, spi.VERSION})

    def __init__(self, context: SqliteComponent, name: str) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name
        self._channel = channel(name)
        self._max_value = context.settings.max_value_bytes

    # -- reading ----------------------------------------------------------

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        sql = _GET if selection.keys else _GET_ALL
        return _items(self._engine.query(op, sql, _names(self._name, selection)), selection)

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        if not 0 < len(selection.keys) <= _POINT_READS:
            return await self._in_thread(self.get, op, selection)
        return _items(await self._engine.query_async(op, _GET, _names(self._name, selection)), selection)

    # -- writing ----------------------------------------------------------

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        size = 0
        for item in items:
            length = len(item.value.encode())
            size += length + 300
            if length > self._max_value:
                raise ResourceExhaustedError(
                    f"the value of {item.key!r} has {length:,} bytes; {self._name!r} takes {self._max_value:,}: "
                    "split it, or raise max_value_bytes"
                )
        rows = [(*_place(each), each.key, _dump(each.tags), _dump(each.metadata), each.value) for each in items]

        def body(connection: sqlite3.Connection) -> None:
            store, version = self._version(connection)
            before = version
            for row in rows:
                version += connection.execute(_SAVE, (store, *row[:3], version + 1, *row[3:])).rowcount
            if version == before:
                task.channels = ()
            else:
                connection.execute(_VERSION, (store, version))

        task = self._task(body, size)
        self._engine.run(task, op)

    def delete(self, op: Operation, selection: Selection, /) -> None:
        now = self._engine.clocks.wall_ms()

        def body(connection: sqlite3.Connection) -> None:
            store, version = self._version(connection)
            before = version
            for key in selection.keys:
                version += connection.execute(_DELETE, (version + 1, now, store, *_place(selection), key)).rowcount
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
        found = connection.execute("SELECT version FROM configuration_versions WHERE store = ?", (store,)).fetchone()
        return store, found[0] if found else 0

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self._context, self._name, selection)
        return source, source.read_all(op)


class _Source(ConfigurationSource):
    """What changed since the version it has seen."""

    def __init__(self, context: SqliteComponent, name: str, selection: Selection) -> None:
        self._context = context
        self._engine: Engine = context.engine
        self._name = name
        self._selection = selection
        self._keys = frozenset(selection.keys)
        self._seen = 0
        self._waiter: Waiter | None = None

    def read_all(self, op: Operation) -> Update:
        """Return all that there is."""
        rows = self._since(op, 0)
        self._seen = rows[0][0] if rows else 0
        return Update({key: item for key, item in self._taken(rows).items() if not item.deleted}, True)

    def look(self) -> Update | None:
        return self._engine.unless_gone(self._changed, self._begin)

    def _begin(self) -> Update:
        """Read the database that is there now."""
        self.close()
        self._engine, self._waiter = self._context.engine, None
        return self.read_all(self._operation())

    def _changed(self) -> Update | None:
        op = self._operation()
        head = self._engine.query(op, _HEAD, {"name": self._name})
        if (head[0][0] if head else 0) == self._seen:
            return None
        rows = self._since(op, self._seen)
        # tombstones that it never saw were swept, or versions went back (an older copy of the file)
        if not rows or rows[0][1] > self._seen or rows[0][0] < self._seen:
            return self.read_all(op)
        self._seen = rows[0][0]
        return Update(self._taken(rows), False)

    def _operation(self) -> Operation:
        return Operation(_LOOK, self._name, _TIMEOUT)

    def _since(self, op: Operation, version: int) -> list[Any]:
        return self._engine.query(op, _SINCE, {**_names(self._name, self._selection), "since": version})

    def _taken(self, rows: list[Any]) -> dict[str, ConfigurationItem]:
        changed = [row[2:] for row in rows if row[2] is not None and (not self._keys or row[2] in self._keys)]
        return _items(changed, self._selection)

    def wait(self, timeout: float, /) -> None:
        if self._waiter is not None:
            self._waiter.wait(timeout)
        else:  # what changed before has notified nobody: look first
            self._waiter = self._engine.notifier.subscribe(channel(self._name))

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()


def _place(where: Selection | ConfigurationItem) -> tuple[str, str]:
    """Return the group and the label in the table."""
    return where.group or "", where.label or ""


def _names(name: str, selection: Selection) -> dict[str, Any]:
    """Return parameters for the statements that read."""
    group, label = _place(selection)
    return {"name": name, "group": group, "label": label, "keys": json.dumps(selection.keys)}


def _items(rows: list[Any], selection: Selection) -> dict[str, ConfigurationItem]:
    group, label = selection.group, selection.label
    return {
        key: ConfigurationItem(
            key,
            value,
            str(version),
            group,
            label,
            json.loads(tags or "{}"),
            json.loads(metadata or "{}"),
            deleted is not None,
        )
        for key, version, tags, metadata, value, deleted in rows
    }


def _dump(names: Mapping[str, str]) -> str | None:
    return json.dumps(dict(names)) if names else None
