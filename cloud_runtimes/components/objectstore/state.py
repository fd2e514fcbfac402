"""State in a bucket: an object for each key, and conditions by etags.

An object begins with a header. S3's etag is a digest of the content, so the header has a number that is new with every write. An object that will end, or marks a key deleted under a condition, has an odd size. So a listing need only read those.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from obstore import exceptions

from ...errors import CloudRuntimesError, InternalError
from ...spi import state as spi
from ...spi.flow import FlowDriver, both_apis
from ...spi.operation import Operation
from ...spi.state import StateDriver, StateWrite, StoredValue
from .._state import conflict, oversized
from .bucket import Flow, Step, Together
from .failures import bucket_gone
from .listing import list_files
from .names import Names

if TYPE_CHECKING:
    from . import ObjectstoreComponent

_MAGIC: Final = b"CR1\n"
_HEADER: Final = struct.Struct(">4s16sQBH")
"""Magic, nonce, when it ends (milliseconds since 1970 UTC, 0: never), bytes of padding, bytes of the content type."""
_DELETED_MS: Final = 1


def now_ms() -> int:
    """Return the time by this machine's clock: a bucket has none to ask."""
    return time.time_ns() // 1_000_000


class _Found(NamedTuple):
    """An object: its value, ``None`` once it has ended, its nonce, and its version as the store names it."""

    value: StoredValue | None
    nonce: bytes
    version: str


class ObjectState(FlowDriver, StateDriver):
    """State store below a prefix."""

    features = frozenset({spi.CONSISTENCY, spi.ETAG, spi.FIRST_WRITE, spi.LIST_KEYS, spi.TTL})

    def __init__(self, component: ObjectstoreComponent, name: str) -> None:
        settings = component.settings
        self.flows = self._bucket = component.bucket
        self.name = name
        self._max_value = settings.max_value_bytes
        self._versions = settings.scheme == "gs"
        self._names = Names(name, settings.root(name), settings.scheme == "az")

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        stored = yield from self._find(key)
        return None if stored is None else stored.value

    get, get_async = both_apis(_get)

    def _find(self, key: str) -> Flow[_Found | None]:
        try:
            result = yield Step("get", (self._names.key(key),))
        except FileNotFoundError as error:
            if bucket_gone(error):
                raise
            return None
        data: bytes = yield Step("bytes", on=result)
        if not data.startswith(_MAGIC) or len(data) < _HEADER.size:
            raise InternalError(
                f"{key!r} in {self.name!r} is an object that no state store wrote: give it a prefix of its own"
            )
        _, nonce, ends, padding, typed = _HEADER.unpack_from(data)
        version = str(result.meta["version"] if self._versions else result.meta["e_tag"]).strip('"')
        value = None
        if not ends or ends > now_ms():
            start = _HEADER.size + padding
            content_type = data[start : start + typed].decode() or None
            etag = f"{version}~{ends:x}" if ends else version
            value = StoredValue(data[start + typed :], content_type, etag, ends or None)
        return _Found(value, nonce, version)

    def _get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> Flow[dict[str, StoredValue]]:
        values = {}
        results = yield Together([self._get(op, key, consistency) for key in keys])
        for key, value in zip(keys, results, strict=True):
            if isinstance(value, CloudRuntimesError):
                raise value
            if value is not None:
                values[key] = value
        return values

    get_bulk, get_bulk_async = both_apis(_get_bulk)

    def _list(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> Flow[list[str]]:
        keys: list[str] = []
        while True:
            want = None if limit is None else limit - len(keys)
            page = yield from list_files(self._bucket, self._names, prefix, True, want, after)
            for entry in page:
                if not (entry.size or 0) % 2 or (yield from self._get(op, entry.name, None)) is not None:
                    keys.append(entry.name)
            if want is None or len(page) < want or len(keys) == limit:
                return keys
            after = page[-1].name

    list_keys, list_keys_async = both_apis(_list)

    # -- writing ----------------------------------------------------------

    def _write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Flow[Mapping[int, CloudRuntimesError]]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        for indexes in _rounds(writes, failed):
            results = yield Together([self._apply(writes[index]) for index in indexes])
            for index, result in zip(indexes, results, strict=True):
                error = conflict(self.name, writes[index]) if result is False else result
                if isinstance(error, CloudRuntimesError):
                    failed[index] = error
                    if atomic:  # which is alone
                        raise error
        return failed

    write, write_async = both_apis(_write)

    def _apply(self, write: StateWrite) -> Flow[bool]:
        """Apply one; return whether its condition held."""
        key = self._names.key(write.key)
        if write.data is None and write.etag is None:
            try:
                yield Step("delete", (key,))
            except FileNotFoundError as error:
                if bucket_gone(error):
                    raise
            return True
        mode: Any = "create" if write.create else "overwrite"
        if write.etag is not None:
            version, _, ends = write.etag.partition("~")
            if not version.isascii() or not version.isprintable() or '"' in version or (ends and _ended(ends)):
                return False
            mode = self._current(version)
        nonce, data = _pack(write)
        while True:
            try:
                yield Step("put", (key, data), {"mode": mode, "use_multipart": False})
                return True
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                stored = yield from self._find(write.key)
            if stored is not None and stored.nonce == nonce:  # an earlier answer was lost
                return True
            if not write.create or (stored is not None and stored.value is not None):
                return False
            mode = "create" if stored is None else self._current(stored.version)

    def _current(self, version: str) -> dict[str, str]:
        return {"version": version} if self._versions else {"e_tag": f'"{version}"'}


def _rounds(writes: Sequence[StateWrite], failed: Mapping[int, CloudRuntimesError]) -> list[list[int]]:
    """Return the places of writes that may be under way at once: a key's writes follow each other."""
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for index, write in enumerate(writes):
        if index not in failed:
            number = seen.get(write.key, -1) + 1
            seen[write.key] = number
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(index)
    return rounds


def _ended(ends: str) -> bool:
    try:
        return int(ends, 16) <= now_ms()
    except ValueError:
        return True


def _pack(write: StateWrite) -> tuple[bytes, bytes]:
    """Return a nonce and an object with it."""
    nonce = os.urandom(16)
    ends = 0 if write.ttl_ms is None else now_ms() + write.ttl_ms
    if write.data is None:
        ends = _DELETED_MS
    content_type = (write.content_type or "").encode()
    data = write.data or b""
    padding = (_HEADER.size + len(content_type) + len(data) + bool(ends)) % 2
    header = _HEADER.pack(_MAGIC, nonce, ends, padding, len(content_type))
    return nonce, b"".join((header, bytes(padding), content_type, data))
