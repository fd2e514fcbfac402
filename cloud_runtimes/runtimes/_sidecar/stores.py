"""Stores of a sidecar: state, secrets, locks. Dapr and Layotto have components of the same code.

Values have no content type there. JSON stands plain where that keeps it exact. Over HTTP numbers beyond 2⁵³ and fractions are decoded by Dapr into floats and by some stores into six digits; they, and whatever is no JSON, stand in a wrapper of JSON.
"""

from __future__ import annotations

import base64
import binascii
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import CloudRuntimesError, ConflictError, InternalError, NotFoundError, PayloadError, UnsupportedError
from ...spi import secret as spi
from ...spi.flow import both_apis
from ...spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from ...spi.operation import Operation
from ...spi.secret import Secret, SecretDriver
from ...spi.state import StateDriver, StateWrite, StoredValue
from .channel import Channel
from .transport import Flow, SidecarDriver, SidecarError, StateItem, StateValue

MARK: Final = "cloud_runtimes"
_MARK_BYTES: Final = b'"cloud_runtimes"'
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')  # one without an end is looked for once
_INEXACT: Final = re.compile(rb"[0-9][.eE]|[0-9]{16}")
_BATCH: Final = 1 << 20
"""Bytes of one bulk save; a sidecar takes 4 MiB unless told otherwise."""
_ABSENT: Final = "-1"
"""The etag by which Redis only creates: its ``first-write`` overwrites what was written otherwise."""
_NO_TTL: Final = "-1"
_UNLOCKED: Final = {0: UnlockStatus.SUCCESS, 1: UnlockStatus.NOT_FOUND, 2: UnlockStatus.NOT_OWNER}
_MOST_SECONDS: Final = 2**31 - 1


class SidecarState(SidecarDriver, StateDriver):
    """State driver of a store of the sidecar."""

    takes_hidden = False
    redis: bool  # it is treated as Redis, which has ways of its own to create and to forget a time to live

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        value = yield from self._transport.get_state(self._name, key, consistency, op.metadata or {})
        return None if value is None else _stored(value)

    get, get_async = both_apis(_get)

    def _get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> Flow[dict[str, StoredValue]]:
        values: dict[str, StoredValue] = {}
        if not keys:
            return values
        if consistency is not None:  # which the bulk form does not take
            for key in keys:
                item = yield from self._get(op, key, consistency)
                if item is not None:
                    values[key] = item
            return values
        items = yield from self._transport.get_states(self._name, keys, op.metadata or {})
        return {key: _stored(each) for key, each in items.items()}

    get_bulk, get_bulk_async = both_apis(_get_bulk)

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        raise UnsupportedError("a sidecar has no list of keys")

    def _write(
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
        end = 0
        while (begin := end) < len(writes):
            end, items = self._batch(op, writes, begin)
            if len(items) > 1:
                try:
                    yield from self._transport.save_states(self._name, items)
                    continue
                except SidecarError:
                    pass  # it does not say which of them failed: one by one they do
            for index in range(begin, end):
                try:
                    yield from self._write_one(op, writes[index])
                except SidecarError as refused:
                    failed[index] = refused.error(applied=True)
                except CloudRuntimesError as one:
                    failed[index] = one
        return failed

    write, write_async = both_apis(_write)

    def _learn(self) -> Flow[None]:
        """Find out, once, what a write needs to know of the store."""
        yield from ()

    def _batch(self, op: Operation, writes: Sequence[StateWrite], begin: int) -> tuple[int, list[StateItem]]:
        """Return saves without a condition that follow one another, and where they end; else the end of one write."""
        items: list[StateItem] = []
        size = 0
        for write in writes[begin:]:
            if write.data is None or write.etag is not None or write.create or size > _BATCH:
                break
            item = self._item(op, write)
            items.append(item)
            size += len(item.value or b"") + len(item.key)
        return begin + max(1, len(items)), items

    def _write_one(self, op: Operation, write: StateWrite) -> Flow[None]:
        item = self._item(op, write)
        try:
            if item.value is not None:
                yield from self._transport.save_states(self._name, [item])
            else:
                yield from self._transport.delete_state(self._name, item)
        except SidecarError as refused:
            if self._is_conflict(write, refused):
                raise conflict(write) from None
            raise

    def _is_conflict(self, write: StateWrite, refused: SidecarError) -> bool:
        """Return whether a refusal means that the condition of a write does not hold."""
        return refused.error_reply.status == 409

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


def _stored(value: StateValue) -> StoredValue:
    data, content_type = unwrap(value.data)
    return StoredValue(data, content_type, value.etag, _moment(value.expires))


def conflict(write: StateWrite) -> ConflictError:
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


class SidecarSecret(SidecarDriver, SecretDriver):
    """The secrets of one store of the sidecar."""

    features = frozenset({spi.BULK})

    def _get(self, op: Operation, key: str, /) -> Flow[Secret]:
        try:
            secret = yield from self._transport.get_secret(self._name, key, op.metadata or {})
        except SidecarError as refused:
            if not (yield from self._is_absent(op, key, refused)):
                raise
            secret = Secret({})
        if not secret:
            raise NotFoundError(
                f"there is no secret {key!r} in {self._name!r}: put it into the store that the sidecar has by this name"
            )
        return secret

    get, get_async = both_apis(_get)

    @abstractmethod
    def _is_absent(self, op: Operation, key: str, refused: SidecarError) -> Flow[bool]:
        """Return whether a refusal means that there is no such secret."""

    def _get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]:
        return (yield from self._transport.get_secrets(self._name, op.metadata or {}))

    get_bulk, get_bulk_async = both_apis(_get_bulk)


class SidecarLock(SidecarDriver, LockDriver):
    """Locks of one store of the sidecar.

    A sidecar knows a holder by its owner's name alone, so two leases of one name are the same to it. A lease with a given owner that has ended is therefore not released: another may hold the lock by that name.
    """

    def __init__(self, transport: Channel, name: str) -> None:
        super().__init__(transport, name)
        # claim → when the lease ends by its holder's clock, of leases whose owner was named
        self._ends: dict[str, float] = {}

    def _acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Flow[Grant | None]:
        seconds = min(_MOST_SECONDS, -(-request.expiry_ms // 1000))
        asked = request.now()
        taken = yield from self._transport.try_lock(self._name, request.resource_id, request.owner, seconds)
        if not taken:
            return None
        if request.owner != request.claim:
            for claim in [claim for claim, end in list(self._ends.items()) if end <= asked]:
                self._ends.pop(claim, None)
            self._ends[request.claim] = asked + seconds
        return Grant(None, asked)

    acquire, acquire_async = both_apis(_acquire)

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        raise UnsupportedError("a sidecar has no renewal of locks")

    def _release(self, op: Operation, request: LockRequest, /) -> Flow[bool]:
        if request.owner != request.claim and self._ends.pop(request.claim, 0.0) <= request.now():
            return False
        return (yield from self._unlock(op, request.resource_id, request.owner)) is UnlockStatus.SUCCESS

    release, release_async = both_apis(_release)

    def _unlock(self, op: Operation, resource_id: str, owner: str, /) -> Flow[UnlockStatus]:
        number = yield from self._transport.unlock(self._name, resource_id, owner)
        status = _UNLOCKED.get(number)
        if status is None:
            raise InternalError(f"the store {self._name!r} failed to release {resource_id!r}", maybe_applied=True)
        return status

    unlock, unlock_async = both_apis(_unlock)


def is_exact(data: bytes) -> bool:
    """Return whether JSON is the same after Dapr has decoded its numbers into floats."""
    return _INEXACT.search(_STRING.sub(b"", data)) is None


def is_wrapped(data: bytes, content_type: str | None, *, exact: bool = False) -> bool:
    """Return whether a value stands in a wrapper; ``exact``: the transport leaves numbers as they are."""
    return content_type != JSON or _MARK_BYTES in data or not (exact or is_exact(data))


def wrapper(data: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object that holds a value."""
    return {MARK: 1, "datacontenttype": content_type or OCTETS, "data_base64": base64.b64encode(data).decode()}


def wrap(data: bytes, content_type: str | None, *, exact: bool = False) -> bytes:
    """Return the JSON that stands for a value; ``exact``: the transport leaves its numbers as they are."""
    if is_wrapped(data, content_type, exact=exact):
        return json.encode(wrapper(data, content_type))
    return bytes(data)


def unwrap(data: bytes) -> tuple[bytes, str]:
    """Return a value and its content type: what `wrap` made, other JSON, or bytes."""
    try:
        value: Any = json.decode(data)
    except PayloadError:
        return data, OCTETS
    if isinstance(value, dict) and value.get(MARK) == 1 and len(value) == 3:
        content_type, text = value.get("datacontenttype"), value.get("data_base64")
        if isinstance(content_type, str) and isinstance(text, str):
            try:
                return base64.b64decode(text, validate=True), content_type
            except binascii.Error:
                pass
    return data, JSON
