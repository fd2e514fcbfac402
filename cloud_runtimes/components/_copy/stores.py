"""State and configuration as records that move, by their drivers: for engines whose own data need not be read."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time
from typing import Any, Final, TypeAlias

from ...errors import CloudRuntimesError, UnsupportedError
from ...spi.configuration import ConfigurationDriver, Selection
from ...spi.operation import Operation
from ...spi.portable import BATCH_BYTES, BATCH_RECORDS, ConfigurationRecord, Portable, Records, StateRecord
from ...spi.state import StateDriver, StateWrite, StoredValue
from .._unreadable import skip

Fences: TypeAlias = Callable[[Operation, Sequence[str] | None], Mapping[str, int]]
"""Gives the fences of some keys, or of all."""
_AT_ONCE: Final = 16
_WRITES: Final = 200


class KeyedPortable(Portable):
    """Records in the order of their keys, which fit into memory."""

    def __init__(self) -> None:
        self._keys: list[Any] = []

    @abstractmethod
    def keys(self, op: Operation) -> Iterable[Any]:
        """Return all keys, in any order."""

    @abstractmethod
    def size(self, record: Any) -> int:
        """Return how many bytes a record has, about."""

    def count(self, op: Operation, /) -> int:
        return len(set(self.keys(op)))

    def export(self, op: Operation, after: Any | None, /) -> list[Any]:
        if after is None:
            self._keys = sorted(self.keys(op))
        index = 0 if after is None else bisect_right(self._keys, after.key)
        records: list[Any] = []
        size = 0
        while index < len(self._keys) and len(records) < BATCH_RECORDS and size < BATCH_BYTES:
            for record in self.find(op, self._keys[index : index + _AT_ONCE]).values():
                size += self.size(record)
                if records and (size > BATCH_BYTES or len(records) == BATCH_RECORDS):
                    break
                records.append(record)
            index += _AT_ONCE
        return records


class StoredState(KeyedPortable):
    """A state store.

    ``fences`` gives those that there are, ``ticks`` how many a second are in the tokens of locks, which count from 1970: a fence above them would lock its key for ever.
    """

    def __init__(self, driver: StateDriver, fences: Fences, ticks: int) -> None:
        super().__init__()
        self._driver = driver
        self._fences = fences
        self._ticks = ticks

    def keys(self, op: Operation) -> Iterable[str]:
        return {*self._driver.list_keys(op, "", None, None), *self._fences(op, None)}

    def size(self, record: StateRecord) -> int:
        return len(record.value.data) if record.value is not None else 0

    def find(self, op: Operation, keys: Sequence[str], /) -> dict[str, StateRecord]:
        fences = self._fences(op, keys)
        values: dict[str, StoredValue] = {}
        for key, value in self._driver.get_bulk(op, keys, None).items():
            if isinstance(value, CloudRuntimesError):
                skip("state", key, value)
            else:
                values[key] = value
        return {
            key: StateRecord(key, values.get(key), fences.get(key)) for key in keys if key in values or key in fences
        }

    def put(self, op: Operation, records: Records, /) -> None:
        seen = self._fences(op, [record.key for record in records if record.fence is not None])
        now = time()
        writes = []
        for key, value, fence in records:
            if fence is not None and fence > now * self._ticks:
                raise UnsupportedError(
                    f"the fence of {key!r} is higher than tokens of locks are here, so that nobody could write it: "
                    "save it without one, or leave its store out"
                )
            fence = None if fence is None else max(fence, seen.get(key, 0))
            if value is None:
                writes.append(StateWrite(key, None, fence=fence))
                continue
            ttl = None if value.expires_ms is None else max(1, value.expires_ms - int(now * 1000))
            writes.append(StateWrite(key, value.data, value.content_type, ttl_ms=ttl, fence=fence))
        for first in range(0, len(writes), _WRITES):
            self._driver.write(op, writes[first : first + _WRITES], True)


class StoredConfiguration(KeyedPortable):
    """A configuration store. ``scopes`` returns its groups and labels, ``""``: the default one."""

    def __init__(self, driver: ConfigurationDriver, scopes: Callable[[Operation], Sequence[tuple[str, str]]]) -> None:
        super().__init__()
        self._driver = driver
        self._scopes = scopes

    def keys(self, op: Operation) -> Iterable[tuple[str, str, str]]:
        return [key for scope in self._scopes(op) for key in self._selected(op, scope, ())]

    def size(self, record: ConfigurationRecord) -> int:
        return len(record.item.value)

    def _selected(
        self, op: Operation, scope: tuple[str, str], keys: tuple[str, ...]
    ) -> dict[tuple[str, str, str], ConfigurationRecord]:
        group, label = scope
        items = self._driver.get(op, Selection(keys, group or None, label or None, None))
        return {(*scope, key): ConfigurationRecord((*scope, key), item) for key, item in items.items()}

    def find(
        self, op: Operation, keys: Sequence[tuple[str, str, str]], /
    ) -> dict[tuple[str, str, str], ConfigurationRecord]:
        wanted: dict[tuple[str, str], list[str]] = {}
        for group, label, key in keys:
            wanted.setdefault((group, label), []).append(key)
        records: dict[tuple[str, str, str], ConfigurationRecord] = {}
        for scope, some in wanted.items():
            records |= self._selected(op, scope, tuple(some))
        return {key: records[key] for key in keys if key in records}

    def put(self, op: Operation, records: Records, /) -> None:
        self._driver.save(op, [record.item for record in records], None)
