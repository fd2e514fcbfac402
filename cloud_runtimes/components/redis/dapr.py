"""Dapr's own layout of keys, so that applications of Dapr and ours share a store and its topics.

A value of state is a hash ``<prefix>||<key>`` with ``data`` and ``version``, which is its etag (components-contrib, ``state/redis``). Beside them stands the content type, with the version that it belongs to: Dapr's writes leave it as it is. A topic is the stream of its name (``pubsub/redis``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from ..._native import events as kernel
from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import CloudRuntimesError
from ...spi import pubsub, state
from ...spi.operation import Operation
from ...spi.state import StateWrite, StoredValue
from .._state import FEATURES, conflict, oversized, read_value, try_value
from . import RedisComponent
from .engine import Script
from .entries import NOTE, encode_note
from .pubsub import RedisPubSub, Topic
from .resp import Flow, Value, pack
from .state import RedisState
from .streams import TopicKeys

_PREFIXES: Final = ("appid", "name", "none")
# KEYS: of values. Returns data, version, content type and expiry of each, of one moment
_READ: Final = Script(
    """
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('HMGET', key, 'data', 'version', 'content-type')
  found[i][4] = redis.call('PEXPIRETIME', key)
end
return found
""",
    "no-writes",
)
# KEYS: of a value for each write. ARGV: atomic, then 6 for each write: whether it saves, data, content type, wanted version,
# whether it only creates, milliseconds to live; "" is none. Conditions are looked at before anything is written, each with the
# writes before it in mind. A version is the server's microseconds, or one more than the last, so that none comes again after a
# delete. Who creates marks the key, as Dapr does, whose own first-write heeds nothing else
_WRITE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local atomic, versions, last, made, failed = ARGV[1] == '1', {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 6
  if versions[key] == nil then
    versions[key] = redis.call('HGET', key, 'version')
    last[key] = tonumber(versions[key] or 0) or 0
  end
  local wanted = ARGV[at + 3]
  if (ARGV[at + 4] == '1' and versions[key]) or (wanted ~= '' and versions[key] ~= wanted) then
    failed[#failed + 1] = i - 1
    if atomic then return failed end
  else
    if ARGV[at] == '1' then last[key] = math.max(last[key] + 1, now) end
    versions[key] = ARGV[at] == '1' and string.format('%.0f', last[key])
    made[i] = versions[key] or ''
  end
end
for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 6
  if made[i] == '' then
    redis.call('DEL', key)
  elseif made[i] then
    redis.call('HSET', key, 'data', ARGV[at + 1], 'version', made[i], 'content-type', made[i] .. ' ' .. ARGV[at + 2])
    if ARGV[at + 4] == '1' then redis.call('HSET', key, 'first-write', '0') end
    if ARGV[at + 5] == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ARGV[at + 5]) end
  end
end
return failed
""")


class DaprState(RedisState):
    """A store whose keys are Dapr's. They have no hash tag: on a cluster each key is a call of its own."""

    features = FEATURES - {state.FENCE, state.LIST_KEYS}
    has_order = False
    etags = r"[+-]?[0-9]+"

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        kind = component.settings.key_prefix
        prefix = dict(zip(_PREFIXES, (component.context.app_id, name, ""), strict=True)).get(kind, kind)
        self._prefix = f"{prefix}||".encode() if prefix else b""
        self._alone = component.is_cluster
        if self._alone:
            self.features -= {state.TRANSACTION, state.TRANSACTION_ETAG}

    def _parts(self, indexes: Sequence[int]) -> Iterator[Sequence[int]]:
        """Give what may be in one script."""
        yield from [[index] for index in indexes] if self._alone else [indexes]

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        ((*row,),) = yield from _READ.run((self._key(key),))
        return read_value(self.name, key, row, _value)

    def _get_bulk(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> Flow[dict[str, StoredValue | CloudRuntimesError]]:
        values: dict[str, StoredValue | CloudRuntimesError] = {}
        for part in self._parts(range(len(keys))) if keys else ():
            rows = yield from _READ.run([self._key(keys[index]) for index in part])
            for index, row in zip(part, rows, strict=True):
                if (value := try_value(self.name, keys[index], row, _value)) is not None:
                    values[keys[index]] = value
        return values

    def _write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Flow[dict[int, CloudRuntimesError]]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        indexes = [index for index in range(len(writes)) if index not in failed]
        for part in self._parts(indexes) if indexes else ():
            arguments: list[Value] = [int(atomic)]
            for index in part:
                write = writes[index]
                arguments += (0, "", "") if write.data is None else (1, write.data, write.content_type or "")
                arguments += (write.etag or "", int(write.create), "" if write.ttl_ms is None else write.ttl_ms)
            for number in (yield from _WRITE.run([self._key(writes[index].key) for index in part], *arguments)):
                error = conflict(self.name, writes[part[number]])
                assert error is not None
                failed[part[number]] = error
                if atomic:
                    raise error
        return failed


def _value(row: list[Any]) -> StoredValue | None:
    data, version, noted, expires = row
    if data is None or version is None:
        return None
    of, _, content_type = (noted or b"").partition(b" ")
    kind = content_type.decode() or None if of == version else _kind(data)
    return StoredValue(data, kind, version.decode(), expires if expires >= 0 else None)


def _kind(data: bytes) -> str:
    """Return what a value of an application of Dapr is: it keeps no content types."""
    try:
        json.decode(data)
    except CloudRuntimesError:
        return OCTETS
    return JSON


class DaprPubSub(RedisPubSub):
    """Topics that are streams of their names. What a topic has beside its stream is in the stream's slot."""

    expiry_extension = "expiration"

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        # members of Dapr's in a group would know nothing of its order, and any stream may be a topic
        self.features -= {pubsub.KEY_ORDER, pubsub.TOPICS}
        if component.is_cluster:  # a dead letter is in another slot
            self.features -= {pubsub.DEAD_LETTER, pubsub.REDRIVE}

    def keys_of(self, topic: str) -> TopicKeys:
        return TopicKeys.of(partial(self._key, topic), topic)._replace(stream=topic.encode())

    def commands(self, topic: Topic, frame: bytes, raw: bool) -> bytes:
        events = kernel.Frame(frame)
        noted = [encode_note(record.metadata) for record in map(events.__getitem__, range(len(events)))]
        if not any(noted) or raw:
            return super().commands(topic, frame, raw)
        head = ("XADD", topic.keys.stream, "*", "data")
        pairs = zip(events.structured(), noted, strict=True)
        return b"".join([pack((*head, event, *((NOTE, note) if note else ()))) for event, note in pairs])

    def _key(self, topic: str, *parts: str) -> bytes:
        return ":".join((f"{{{_tag(topic)}}}:{self._settings.prefix}:pubsub", *parts)).encode()


def _tag(key: str) -> str:
    """Return what of a key tells its slot (redis.io, "Redis cluster specification")."""
    _, _, rest = key.partition("{")
    tag, end, _ = rest.partition("}")
    return tag if tag and end else key
