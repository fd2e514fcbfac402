"""Configuration that a store keeps in rows: their columns, and a source of what changed, without I/O.

Every change takes the next version of its store, so a subscriber asks for what is newer than what it has seen. A deleted item stays for a while as a tombstone. Sweeping tombstones raises the store's ``swept``: who has seen less than that may have missed a delete, and gets all that there is instead.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..spi import configuration as spi
from ..spi.configuration import ConfigurationItem, ConfigurationSource, Selection, Update
from ..spi.operation import Method, Operation
from ._state import dump_names, load_names, too_large
from ._unreadable import read_entries

if TYPE_CHECKING:
    from ._log.member import Waits

COLUMNS: Final = "c.key, c.version, c.tags, c.metadata, c.value, c.deleted"
FEATURES: Final = frozenset({spi.WRITE, spi.ATOMIC, spi.GROUP, spi.LABEL, spi.SUBSCRIBE, spi.TAGS, spi.VERSION})
_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_TIMEOUT: Final = 30.0


def channel(store: str) -> str:
    """Return the channel of a store. It is made of the name, since a subscriber may come before the store exists."""
    from hashlib import blake2s

    return f"configuration-{blake2s(store.encode(), digest_size=8).hexdigest()}"


def group_and_label(where: Selection | ConfigurationItem) -> tuple[str, str]:
    """Return the group and the label in the table."""
    return where.group or "", where.label or ""


def columns(store: str, saved: Iterable[ConfigurationItem], limit: int) -> list[tuple[str | None, ...]]:
    """Return group, label, key, tags, metadata and value of each item.

    Raises:
        ResourceExhaustedError: a value has more than ``limit`` bytes.
    """
    for item in saved:
        if (size := len(item.value.encode())) > limit:
            raise too_large(store, item.key, size, limit)
    return [
        (*group_and_label(item), item.key, dump_names(item.tags), dump_names(item.metadata), item.value)
        for item in saved
    ]


def items(
    store: str, rows: Iterable[Sequence[Any]], selection: Selection, read: Callable[[Any], Iterable[Any]] = tuple
) -> dict[str, ConfigurationItem]:
    """Return rows as what the caller gets, without those that cannot be read.

    Args:
        store: its name, for the log.
        rows: as the store has them; each begins with its key.
        selection: what was asked for.
        read: makes `COLUMNS` of a row.
    """
    group, label = selection.group, selection.label

    def item(row: Any) -> ConfigurationItem:
        key, version, tags, metadata, value, deleted = read(row)
        if not isinstance(value, str):
            raise TypeError(f"the value is of type {type(value).__name__}")
        names = load_names(tags), load_names(metadata)
        return ConfigurationItem(key, value, str(version), group, label, *names, deleted is not None)

    result = read_entries(f"configuration {store!r}", rows, lambda row: str(row[0]), item)
    return {item.key: item for item in result}


class ChangeSource(ConfigurationSource):
    """Source of the changes since the version it has seen."""

    def __init__(self, name: str, selection: Selection) -> None:
        self._name = name
        self._selection = selection
        self._keys = frozenset(selection.keys)
        self._seen = 0
        self._waiter: Waits | None = None

    @abstractmethod
    def _since(self, op: Operation, version: int) -> Sequence[Any]:
        """Return the store's version, its ``swept`` and what it has of an item, its key first: a row for each change behind a version. Without a change it is one row, with ``None`` behind the two; without a store none."""

    def _columns(self, row: Any) -> Iterable[Any]:
        """Return `COLUMNS` of what the store has of an item."""
        columns: Iterable[Any] = row
        return columns

    @abstractmethod
    def _subscribe(self) -> Waits:
        """Return what wakes it after a change."""

    def read_all(self, op: Operation) -> Update:
        """Return all that there is."""
        rows = self._since(op, 0)
        self._seen = rows[0][0] if rows else 0
        return Update({key: item for key, item in self._taken(rows).items() if not item.deleted}, True)

    def look(self) -> Update | None:
        op = self._operation()
        rows = self._since(op, self._seen)
        if (rows[0][0] if rows else 0) == self._seen:
            return None
        # tombstones that it never saw were swept, or versions went back (an older copy of the store)
        if not rows or rows[0][1] > self._seen or rows[0][0] < self._seen:
            return self.read_all(op)
        self._seen = rows[0][0]
        return Update(self._taken(rows), False)

    def _operation(self) -> Operation:
        return Operation(_LOOK, self._name, _TIMEOUT)

    def _taken(self, rows: Sequence[Any]) -> dict[str, ConfigurationItem]:
        changed = [row[2:] for row in rows if row[2] is not None and (not self._keys or row[2] in self._keys)]
        return items(self._name, changed, self._selection, self._columns)

    def wait(self, timeout: float, /) -> None:
        if self._waiter is not None:
            self._waiter.wait(timeout)
        else:  # what changed before has notified nobody: look first
            self._waiter = self._subscribe()

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()
