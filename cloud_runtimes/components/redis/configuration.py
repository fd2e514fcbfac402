"""Configuration on Redis: five keys per store; see `_configuration`.

An item is a field of one hash: its version, a colon, and its text (tags, metadata and value as JSON), which is empty once it was deleted. Three sorted sets have the fields of a store: by name those that there are, by version all, by the time of their end those that were deleted. A version is the server's microseconds since 1970, or one more than the last where the clock is behind that, so that versions which were lost do not come again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.flow import both_apis
from ...spi.operation import Operation
from .._configuration import FEATURES, ChangeSource, channel, columns, group_and_label, items
from .._net.engines import EngineDriver
from .._net.notify import Waiter
from .._unreadable import read_entries
from . import RedisComponent
from .engine import Script
from .failures import checked
from .resp import Batch, Flow, Value

TOMBSTONE_MS: Final = 3_600_000
"""How long a deleted item leaves a trace at least. For that long, subscribers read only changes."""

# KEYS: versions (v: last, s: swept), items, names, changes, deleted. ARGV: channel, then a field and its text for each change.
# What changes is known before anything is written; a user who may not publish changes nothing
_CHANGE: Final = Script(f"""
local time = redis.call('TIME')
local now, us = time[1] * 1000, time[1] * 1000000 + time[2]
local texts, changes = {{}}, {{}}
for i = 2, #ARGV, 2 do
  local field, text = ARGV[i], ARGV[i + 1]
  if texts[field] == nil then
    local item = redis.call('HGET', KEYS[2], field)
    texts[field] = item and string.sub(item, (string.find(item, ':', 1, true) or 0) + 1) or ''
  end
  if texts[field] ~= text then
    texts[field] = text
    changes[#changes + 1] = i
  end
end
if #changes == 0 then return 0 end
redis.call('PUBLISH', ARGV[1], '')
local version = math.max(tonumber(redis.call('HGET', KEYS[1], 'v') or 0), us - 1)
for _, i in ipairs(changes) do
  local field, text = ARGV[i], ARGV[i + 1]
  version = version + 1
  local number = string.format('%.0f', version)
  redis.call('HSET', KEYS[2], field, number .. ':' .. text)
  redis.call('ZADD', KEYS[4], number, field)
  if text == '' then
    redis.call('ZREM', KEYS[3], field)
    redis.call('ZADD', KEYS[5], now, field)
  else
    redis.call('ZADD', KEYS[3], 0, field)
    redis.call('ZREM', KEYS[5], field)
  end
end
redis.call('HSET', KEYS[1], 'v', string.format('%.0f', version))
local swept = tonumber(redis.call('HGET', KEYS[1], 's') or 0)
for _, field in ipairs(redis.call('ZRANGE', KEYS[5], '-inf', now - {TOMBSTONE_MS}, 'BYSCORE', 'LIMIT', 0, 200)) do
  swept = math.max(swept, tonumber(redis.call('ZSCORE', KEYS[4], field)))
  redis.call('HDEL', KEYS[2], field)
  redis.call('ZREM', KEYS[4], field)
  redis.call('ZREM', KEYS[5], field)
end
redis.call('HSET', KEYS[1], 's', string.format('%.0f', swept))
return #changes
""")
# KEYS: versions, items, names, changes. ARGV: what fields begin with, version.
# Returns what changed since, with 0 all that there is: the last version, the swept one, fields and items by turns
_SINCE: Final = Script("""
local versions = redis.call('HMGET', KEYS[1], 'v', 's')
local found, fields = {versions[1], versions[2]}, nil
if ARGV[2] == '0' then
  fields = redis.call('ZRANGE', KEYS[3], '[' .. ARGV[1], '(' .. ARGV[1] .. '\\255', 'BYLEX')
else
  fields = redis.call('ZRANGE', KEYS[4], '(' .. ARGV[2], '+inf', 'BYSCORE')
end
for _, field in ipairs(fields) do
  if string.sub(field, 1, #ARGV[1]) == ARGV[1] then
    found[#found + 1] = field
    found[#found + 1] = redis.call('HGET', KEYS[2], field)
  end
end
return found
""")


def columns_of(row: tuple[str, bytes]) -> tuple[Any, ...]:
    """Return a key and its item in the columns of `_configuration`."""
    key, item = row
    version, _, text = item.partition(b":")
    tags, metadata, value = json.loads(text) if text else (None, None, "")
    return key, int(version), tags, metadata, value, None if text else 0


class RedisConfiguration(EngineDriver[RedisComponent], ConfigurationDriver):
    """Configuration store: keys with one hash tag."""

    features = FEATURES

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        self._channel = channel(name)
        self._max_value = component.settings.max_value_bytes
        self._keys = [
            component.key("configuration", name, kind) for kind in ("versions", "items", "names", "changes", "deleted")
        ]

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        if not selection.keys:
            rows = (yield from self.since(selection, 0))[1]
            return items(self.name, rows, selection, columns_of)
        keys = sorted(selection.keys)
        prefix = _prefix(selection)
        (values,) = checked((yield Batch(("HMGET", self._keys[1], *[prefix + key.encode() for key in keys]))))
        rows = [(key, item) for key, item in zip(keys, values, strict=True) if item is not None]
        read = items(self.name, rows, selection, columns_of)
        return {key: item for key, item in read.items() if not item.deleted}

    get, get_async = both_apis(_get)

    def since(self, selection: Selection, version: int) -> Flow[tuple[Sequence[int], list[tuple[str, bytes]]]]:
        """Return the last version and the swept one, none where nothing was ever saved, and the keys that changed since a version with their items."""
        prefix = _prefix(selection)
        last, swept, *fields = yield from _SINCE.run(self._keys[:4], prefix, version)
        keys = [field[len(prefix) :].decode(errors="replace") for field in fields[::2]]
        rows = list(zip(keys, fields[1::2], strict=True))
        return (() if last is None else (int(last), int(swept))), rows

    def scopes(self) -> Flow[list[tuple[str, str]]]:
        """Return the groups and labels that there are."""
        (fields,) = checked((yield Batch(("ZRANGE", self._keys[2], 0, -1))))
        pairs = read_entries(f"configuration {self.name!r}", fields, repr, _group_and_label)
        return sorted(set(pairs))

    # -- writing ----------------------------------------------------------

    def _save(
        self, op: Operation, saved: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> Flow[None]:
        rows = zip(saved, columns(self.name, saved, self._max_value), strict=True)
        return self._change(
            [part for item, row in rows for part in (_prefix(item) + item.key.encode(), json.dumps(row[3:]))]
        )

    save, save_async = both_apis(_save)

    def _delete(self, op: Operation, selection: Selection, /) -> Flow[None]:
        prefix = _prefix(selection)
        return self._change([part for key in selection.keys for part in (prefix + key.encode(), b"")])

    delete, delete_async = both_apis(_delete)

    def _change(self, changes: Iterable[Value]) -> Flow[None]:
        yield from _CHANGE.run(self._keys, self.component.engine.notifier.name(self._channel), *changes)

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self.component, self, self.name, selection)
        return source, source.read_all(op)


class _Source(ChangeSource):
    """Source of changes on the server."""

    def __init__(self, component: RedisComponent, driver: RedisConfiguration, name: str, selection: Selection) -> None:
        super().__init__(name, selection)
        self.component = component
        self._driver = driver
        self._changes = component.engine.changes

    def look(self) -> Update | None:
        changes = self.component.engine.changes
        if changes == self._changes:
            return super().look()
        # perhaps another server, which does not have the last changes that this source saw
        update = self.read_all(self._operation())
        self._changes = changes
        return update

    def _since(self, op: Operation, version: int) -> list[Any]:
        versions, rows = self.component.engine.run(op, self._driver.since(self._selection, version))
        changed: list[Any] = rows or [(None,)]
        return [(*versions, *row) for row in changed] if versions else []

    def _columns(self, row: Any) -> tuple[Any, ...]:
        return columns_of(row)

    def _subscribe(self) -> Waiter:
        return self.component.engine.notifier.subscribe(channel(self._name))


def _prefix(where: Selection | ConfigurationItem) -> bytes:
    """Return what the fields of a group and label begin with. Neither holds a NUL."""
    group, label = group_and_label(where)
    return f"{group}\0{label}\0".encode()


def _group_and_label(field: bytes) -> tuple[str, str]:
    group, label, _ = field.decode().split("\0", 2)
    return group, label
