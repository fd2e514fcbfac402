"""State of a sidecar: what Dapr and Layotto have in common, with components of the same code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from ...errors import CloudRuntimesError, ConflictError, UnsupportedError
from ...spi.operation import Operation
from ...spi.state import StateDriver, StateWrite, StoredValue
from .driver import SidecarDriver, operation
from .failures import SidecarError
from .transport import Flow, StateItem, StateValue
from .values import unwrap, wrap

__all__ = ["SidecarState", "conflict"]

_BATCH: Final = 1 << 20
"""Bytes of one bulk save; a sidecar takes 4 MiB unless told otherwise."""
_ABSENT: Final = "-1"
"""The etag by which Redis only creates: its ``first-write`` overwrites what was written otherwise."""
_NO_TTL: Final = "-1"


class SidecarState(SidecarDriver, StateDriver):
    """One store of the sidecar.

    Attributes:
        redis: whether it is treated as Redis, which has ways of its own to create and to forget a time to live.
    """

    redis: bool

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        found = yield from self._transport.get_state(self._name, key, consistency, op.metadata or {})
        return None if found is None else _stored(found)

    get = operation(_get)

    @operation
    def get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> Flow[dict[str, StoredValue]]:
        found: dict[str, StoredValue] = {}
        if not keys:
            return found
        if consistency is not None:  # which the bulk form does not take
            for key in keys:
                item = yield from self._get(op, key, consistency)
                if item is not None:
                    found[key] = item
            return found
        items = yield from self._transport.get_states(self._name, keys, op.metadata or {})
        return {key: _stored(each) for key, each in items.items()}

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        raise UnsupportedError("a sidecar has no list of keys")

    # -- writing ------------------------------------------------------------

    @operation
    def write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Flow[Mapping[int, CloudRuntimesError]]:
        yield from self._learn()
        if atomic and op.method.name == "transaction":
            yield from self._transact(op, writes)
            return {}
        if atomic:
            yield from self._write_one(op, writes[0])
            return {}
        failed: dict[int, CloudRuntimesError] = {}
        place = 0
        while place < len(writes):
            end, items = self._batch(op, writes, place)
            if len(items) > 1:
                try:
                    yield from self._transport.save_states(self._name, items)
                except SidecarError:
                    pass
                else:
                    place = end
                    continue
            # one alone, or one by one, since the sidecar does not tell which of several failed
            for index in range(place, max(end, place + 1)):
                try:
                    yield from self._write_one(op, writes[index])
                except SidecarError as refused:
                    failed[index] = refused.error(applied=True)
                except CloudRuntimesError as one:
                    failed[index] = one
            place = max(end, place + 1)
        return failed

    @abstractmethod
    def _learn(self) -> Flow[None]:
        """Find out, once, what a write needs to know of the store."""

    def _batch(self, op: Operation, writes: Sequence[StateWrite], place: int) -> tuple[int, list[StateItem]]:
        """Return saves without a condition that follow one another, and where they end."""
        items: list[StateItem] = []
        size = 0
        for index in range(place, len(writes)):
            write = writes[index]
            if write.data is None or write.etag is not None or write.create or size > _BATCH:
                return index, items
            item = self._item(op, write)
            items.append(item)
            size += len(item.value or b"") + len(item.key)
        return len(writes), items

    def _write_one(self, op: Operation, write: StateWrite) -> Flow[None]:
        item = self._item(op, write)
        try:
            if item.value is not None:
                yield from self._transport.save_states(self._name, [item])
            else:
                yield from self._transport.delete_state(self._name, item)
        except SidecarError as refused:
            if (yield from self._is_conflict(op, write, refused)):
                raise conflict(write) from None
            raise

    @abstractmethod
    def _is_conflict(self, op: Operation, write: StateWrite, refused: SidecarError) -> Flow[bool]:
        """Tell whether a refusal means that the condition of a write does not hold."""

    @abstractmethod
    def _transact(self, op: Operation, writes: Sequence[StateWrite]) -> Flow[None]:
        """Write all or nothing."""

    def _item(self, op: Operation, write: StateWrite) -> StateItem:
        metadata = {**(op.metadata or {}), **(write.metadata or {})}
        redis = self.redis
        etag = _ABSENT if write.create and redis else write.etag
        if write.data is None:
            return StateItem(write.key, None, etag, write.create and not redis, write.consistency, metadata)
        metadata.pop("ttlInSeconds", None)
        metadata.pop("contentType", None)  # by which Dapr would take bytes for JSON, and spoil its numbers
        if write.ttl_ms is not None:
            metadata["ttlInSeconds"] = str(-(-write.ttl_ms // 1000))
        elif redis:  # which keeps an earlier one otherwise
            metadata["ttlInSeconds"] = _NO_TTL
        value = wrap(write.data, write.content_type, exact=self._transport.exact)
        return StateItem(write.key, value, etag, write.create and not redis, write.consistency, metadata)


def _stored(found: StateValue) -> StoredValue:
    data, content_type = unwrap(found.data)
    return StoredValue(data, content_type, found.etag, _moment(found.expires))


def conflict(write: StateWrite) -> ConflictError:
    """Return the error of a write whose condition does not hold."""
    if write.create:
        return ConflictError(f"{write.key!r} exists: concurrency='first-write' only creates")
    return ConflictError(f"{write.key!r} has changed: etag {write.etag!r} is not its current one; read it again")


def _moment(text: object) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None
