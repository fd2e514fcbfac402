"""Configuration on SQLite: one row per store, group, label and key; a deleted one stays for a while as a tombstone.

Every change takes the next version of its store, so a subscriber asks for what is newer than what it has seen. Sweeping tombstones (`sweep.sweep_tombstones`) raises the store's ``swept``: who has seen less than that may have missed a delete, and gets all that there is instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...errors import ResourceExhaustedError, UnavailableError
from ...spi import configuration as spi
from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.operation import Method, Operation
from .write_task import WriteTask

if TYPE_CHECKING:
    from . import SqliteComponent
    from .engine import Engine
    from .notifier import Waiter

__all__ = ["SqliteConfiguration"]

_POINT_READS: Final = 16
_DEFAULT: Final = ""

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
    # what is saved as it is already is no change
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

    def __init__(self, component: SqliteComponent, name: str) -> None:
        self._component = component
        self._engine: Engine = component.engine
        self._name = name
        self._channel = channel(name)
        self._max_value = component.settings.max_value_bytes

    # -- reading ----------------------------------------------------------

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return _items(self._engine.query(op, *self._reading(selection)), selection)

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        sql, parameters = self._reading(selection)
        few = 0 < len(selection.keys) <= _POINT_READS
        return _items(await self._engine.query_async(op, sql, parameters, inline=few), selection)

    def _reading(self, selection: Selection) -> tuple[str, dict[str, Any]]:
        parameters = _place(self._name, selection)
        if not selection.keys:
            return _GET_ALL, parameters
        return _GET, {**parameters, "keys": json.dumps(selection.keys)}

    # -- writing ----------------------------------------------------------

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        self._engine.run(self._saving(items), op)

    async def save_async(
        self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> None:
        await self._engine.run_async(self._saving(items), op)

    def _saving(self, items: Sequence[ConfigurationItem]) -> WriteTask:
        size = 0
        for item in items:
            length = len(item.value.encode())
            size += length + 300
            if length > self._max_value:
                raise ResourceExhaustedError(
                    f"the value of {item.key!r} has {length:,} bytes; {self._name!r} takes {self._max_value:,}: "
                    "split it, or raise max_value_bytes"
                )
        rows = [
            (
                item.group or _DEFAULT,
                item.label or _DEFAULT,
                item.key,
                _dump(item.tags),
                _dump(item.metadata),
                item.value,
            )
            for item in items
        ]

        def body(connection: sqlite3.Connection) -> None:
            store, version = self._version(connection)
            before = version
            for row in rows:
                version += connection.execute(_SAVE, (store, *row[:3], version + 1, *row[3:])).rowcount
            task.channels = (self._channel,) if version != before else ()
            if version != before:
                connection.execute(_VERSION, (store, version))

        task = self._task(body, size)
        return task

    def delete(self, op: Operation, selection: Selection, /) -> None:
        self._engine.run(self._deleting(selection), op)

    async def delete_async(self, op: Operation, selection: Selection, /) -> None:
        await self._engine.run_async(self._deleting(selection), op)

    def _deleting(self, selection: Selection) -> WriteTask:
        now = self._engine.clocks.wall_ms()
        place = (selection.group or _DEFAULT, selection.label or _DEFAULT)

        def body(connection: sqlite3.Connection) -> None:
            store, version = self._version(connection)
            before = version
            for key in selection.keys:
                version += connection.execute(_DELETE, (version + 1, now, store, *place, key)).rowcount
            if version != before:
                connection.execute(_VERSION, (store, version))

        return self._task(body, 300 * len(selection.keys))

    def _task(self, body: Any, size: int) -> WriteTask:
        self._component.sweeping()
        return WriteTask(body, durable=self._component.durable, size=size, channels=(self._channel,))

    def _version(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Return the store's number, made if need be, and the version of its last change."""
        connection.execute("INSERT OR IGNORE INTO stores (name) VALUES (?)", (self._name,))
        store = connection.execute("SELECT id FROM stores WHERE name = ?", (self._name,)).fetchone()[0]
        found = connection.execute("SELECT version FROM configuration_versions WHERE store = ?", (store,)).fetchone()
        return store, found[0] if found else 0

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self._component, self._name, self._channel, selection)
        return source, source.first(self._engine.query(op, _SINCE, source.since(0)))

    async def subscribe_async(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self._component, self._name, self._channel, selection)
        rows = await self._engine.query_async(op, _SINCE, source.since(0), inline=False)
        return source, source.first(rows)


class _Source(ConfigurationSource):
    """What changed since the version it has seen."""

    def __init__(self, component: SqliteComponent, name: str, channel: str, selection: Selection) -> None:
        self._component = component
        self._engine: Engine = component.engine
        self._name = name
        self._channel = channel
        self._selection = selection
        self._keys = frozenset(selection.keys)
        self._seen = 0
        self._waiter: Waiter | None = None

    def since(self, version: int) -> dict[str, Any]:
        """Return the parameters that ask for what is newer than a version."""
        return {**_place(self._name, self._selection), "since": version}

    def first(self, rows: list[Any]) -> Update:
        """Take the answer to ``since(0)``: all that there is."""
        self._seen = rows[0][0] if rows else 0
        return Update({key: item for key, item in self._taken(rows).items() if not item.deleted}, True)

    def look(self) -> Update | None:
        if self._engine.gone is None:
            try:
                return self._changed()
            except UnavailableError:
                if self._engine.gone is None:
                    raise
        # its files were removed or replaced: what is there now is all that counts
        self._engine = self._component.engine
        self.close()
        self._waiter = None
        return self.first(self._engine.query(Operation(_LOOK, self._name, _TIMEOUT), _SINCE, self.since(0)))

    def _changed(self) -> Update | None:
        op = Operation(_LOOK, self._name, _TIMEOUT)
        head = self._engine.query(op, _HEAD, {"name": self._name})
        if (head[0][0] if head else 0) == self._seen:
            return None
        rows = self._engine.query(op, _SINCE, self.since(self._seen))
        # tombstones it never saw are gone, or (an older copy of the file) versions went back
        if not rows or rows[0][1] > self._seen or rows[0][0] < self._seen:
            return self.first(self._engine.query(op, _SINCE, self.since(0)))
        self._seen = rows[0][0]
        return Update(self._taken(rows), False)

    def _taken(self, rows: list[Any]) -> dict[str, ConfigurationItem]:
        changed = [row[2:] for row in rows if row[2] is not None and (not self._keys or row[2] in self._keys)]
        return _items(changed, self._selection)

    def wait(self, timeout: float, /) -> None:
        if self._waiter is None:
            self._waiter = self._subscribe()
            return
        self._waiter.wait(min(timeout, self._waiter.net))

    def _subscribe(self) -> Waiter:
        from .notifier import Waiter

        try:
            return self._engine.notifier.subscribe(self._channel)
        except OSError:  # a folder that cannot be written: it looks by itself
            pass
        try:
            return Waiter(self._engine.notifier, self._channel, None)
        except OSError as error:
            raise ResourceExhaustedError(
                f"no socket to be woken by ({error.strerror}): raise the limit on open files (ulimit -n)",
                retryable=True,
            ) from error

    def wake(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()


def _place(name: str, selection: Selection) -> dict[str, Any]:
    return {"name": name, "group": selection.group or _DEFAULT, "label": selection.label or _DEFAULT}


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
