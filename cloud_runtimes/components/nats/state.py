"""State on NATS: a bucket for each store. An etag is the number of the message; fences are keys of their own beside the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final

from ..._core.arguments import HIDDEN, OUTBOX
from ...errors import CloudRuntimesError, DeadlineExceededError, UnavailableError
from ...spi import state
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.state import StateDriver, StateWrite, StoredValue
from .._net.engines import EngineDriver
from .._state import FEATURES, oversized, read_fence, refused, resolve
from .._unreadable import read_entries
from . import NatsComponent
from .entries import Entry, Put, decode, encode
from .failures import ServerError
from .keys import KeyBucket
from .requests import Flow

_TYPE: Final = "Content-Type"
_BRIEF: Final = {"Nats-TTL": "1s"}
"""Of the markers that deletes in an outbox leave: `_oldest` reads through them."""
_WINDOW: Final = 500
"""Requests that are under way for one call."""


class NatsState(EngineDriver[NatsComponent], StateDriver):
    """State store in a bucket."""

    features = FEATURES | {state.OUTBOX}
    has_order = True

    def __init__(self, component: NatsComponent, name: str) -> None:
        super().__init__(component, name)
        self._max_value = component.settings.max_value_bytes
        self._bucket = KeyBucket(component.engine, "state", name)
        self._emptied: dict[str, int] = {}  # prefix of an outbox → sequence up to which all its keys are deleted

    def _value(self, key: str) -> str:
        if key.startswith(OUTBOX):
            outbox, bars, id = key.rpartition(HIDDEN)
            return self._outbox(outbox + bars) + encode(id)
        return self._bucket.subject("v", key)

    def _outbox(self, prefix: str) -> str:
        """Return the beginning of the subjects of an outbox, beside those of other keys, so that no list of keys goes through them."""
        return f"{self._bucket.root}o.{encode(prefix)}."

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        (entry,) = yield from self._bucket.read([self._value(key)], strong=consistency != "eventual")
        return (yield from self._stored(entry))

    get, get_async = both_apis(_get)

    def _stored(self, entry: Entry) -> Flow[StoredValue | None]:
        if not (yield from self._lives(entry)):
            return None
        return StoredValue(entry.data, entry.headers.get(_TYPE), _etag(entry), entry.expires_ms)

    def _lives(self, entry: Entry) -> Flow[bool]:
        if entry.deleted:
            return False
        return entry.expires_ms is None or entry.expires_ms > (yield from self._bucket.now_ms())

    def _get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> Flow[dict[str, StoredValue]]:
        values = {}
        for first in range(0, len(keys), _WINDOW):
            some = keys[first : first + _WINDOW]
            entries = yield from self._bucket.read([self._value(key) for key in some], strong=consistency != "eventual")
            for key, entry in zip(some, entries, strict=True):
                value = yield from self._stored(entry)
                if value is not None:
                    values[key] = value
        return values

    get_bulk, get_bulk_async = both_apis(_get_bulk)

    def _list(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> Flow[list[str]]:
        return (yield from self._bucket.keys("v", prefix, limit, after))

    list_keys, list_keys_async = both_apis(_list)

    def _oldest(
        self, op: Operation, prefix: str, limit: int, /
    ) -> Flow[list[tuple[str, StoredValue | CloudRuntimesError]]]:
        where = self._outbox(prefix)

        def key_of(entry: tuple[str, Entry]) -> tuple[str, Entry]:
            return prefix + decode(entry[0][len(where) :]), entry[1]

        while True:
            # markers of deletes lie behind the keys for a second: each is passed once
            _, entries = yield from self._bucket.since(f"{where}*", self._emptied.get(prefix, 0), limit)
            living = [(subject, entry) for subject, entry in entries if not entry.deleted][:limit]
            held = dict(read_entries(f"keys of {self.name!r}", living, itemgetter(0), key_of))
            if (yield from self._bucket.ensure()).replicated:  # a replica may not know yet what was deleted
                values = yield from self._get_bulk(op, list(held), None)
            else:
                values = {
                    key: StoredValue(entry.data, entry.headers.get(_TYPE), _etag(entry), None)
                    for key, entry in held.items()
                }
            if entries:
                sequence = living[0][1].sequence - 1 if values else (living or entries)[-1][1].sequence
                self._emptied[prefix] = sequence
            if values or not entries:
                return list(values.items())

    oldest, oldest_async = both_apis(_oldest)

    def fences(self, keys: Sequence[str] | None) -> Flow[dict[str, int]]:
        """Return the fences of keys, ``None``: of all."""
        values: dict[str, int] = {}
        wanted = (yield from self._bucket.keys("f")) if keys is None else keys
        for first in range(0, len(wanted), _WINDOW):
            some = wanted[first : first + _WINDOW]
            entries = yield from self._bucket.read([self._bucket.subject("f", key) for key in some])
            held = [(key, entry.data) for key, entry in zip(some, entries, strict=True) if entry.data]
            values |= {key: read_fence(self.name, key, data) for key, data in held}
        return values

    # -- writing ----------------------------------------------------------

    def _write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Flow[dict[int, CloudRuntimesError]]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        if atomic:
            yield from self._apply(writes)
            return failed
        yield from self._bucket.ensure()
        failed |= self._refused(writes)
        plain: list[Put] = []
        for index, write in enumerate(writes):
            if index in failed:
                continue
            if _is_plain(write):
                plain.append(self._put(write))
            if plain and (not _is_plain(write) or len(plain) == _WINDOW):
                yield from self._bucket.put(plain)
                plain = []
            if not _is_plain(write):
                try:
                    yield from self._one(write)
                except (DeadlineExceededError, UnavailableError):
                    raise
                except CloudRuntimesError as error:
                    failed[index] = error
        if plain:
            yield from self._bucket.put(plain)
        return failed

    write, write_async = both_apis(_write)

    def _refused(self, writes: Sequence[StateWrite]) -> dict[int, CloudRuntimesError]:
        """Return the errors of writes that the server would not take, by index."""
        engine = self.component.engine
        refused: dict[int, CloudRuntimesError] = {}
        for index, write in enumerate(writes):
            if write.data is not None and len(write.data) > engine.max_payload // 2:
                error = engine.too_large(self._put(write).request({}), engine.max_payload)
                if error is not None:
                    refused[index] = error
        return refused

    def _put(self, write: StateWrite, expected: int | None = None) -> Put:
        headers = {} if write.content_type is None else {_TYPE: write.content_type}
        if write.data is None:
            headers = _BRIEF if write.key.startswith(OUTBOX) else {}
        return Put(self._value(write.key), write.data, expected, write.ttl_ms, headers)

    def _one(self, write: StateWrite) -> Flow[None]:
        """Apply one conditional write; without a fence it mostly needs no look before."""
        if write.fence is None and (write.create or write.etag is not None):
            expected = 0 if write.etag is None else (yield from self._expected(write.etag))
            if expected is None:
                raise refused(self.name, write)
            (done,) = yield from self._bucket.put([self._put(write, expected)])
            if not isinstance(done, ServerError):
                return
            if not write.create:
                raise refused(self.name, write)
        yield from self._apply([write])

    def _expected(self, etag: str) -> Flow[int | None]:
        """Return the number that an etag stands for; ``None``: of no value, or of one that has expired."""
        sequence, _, expires = etag.partition("-")
        try:
            number = int(sequence, 16)
            ends = int(expires, 16) if expires else None
        except ValueError:
            return None
        if number <= 0 or _text(number, ends) != etag:
            return None
        return None if ends is not None and ends <= (yield from self._bucket.now_ms()) else number

    def _apply(self, writes: Sequence[StateWrite]) -> Flow[None]:
        """Apply writes together, with conditions that are looked at before and hold on to what was seen."""
        if not writes:
            return
        if all(map(_is_plain, writes)):
            last = {write.key: write for write in writes}
            yield from self._bucket.put_all(sorted(map(self._put, last.values())))
            return
        while True:
            keys = list(dict.fromkeys(write.key for write in writes if write.create or write.etag is not None))
            fenced = list(dict.fromkeys(write.key for write in writes if write.fence is not None))
            subjects = [*map(self._value, keys), *[self._bucket.subject("f", key) for key in fenced]]
            entries = yield from self._bucket.read(subjects)
            values = dict(zip(keys, entries, strict=False))
            fences = dict(zip(fenced, entries[len(keys) :], strict=True))
            puts = yield from self._checked(writes, values, fences)
            if (yield from self._bucket.put_all(sorted(puts))):
                return

    def _checked(
        self, writes: Sequence[StateWrite], values: Mapping[str, Entry], fences: Mapping[str, Entry]
    ) -> Flow[list[Put]]:
        """Look at the conditions of writes, each with those before it in mind; returns what is to be written."""
        etags: dict[str, str | None] = {}
        for key, entry in values.items():
            etags[key] = _etag(entry) if (yield from self._lives(entry)) else None
        tokens = {key: read_fence(self.name, key, entry.data) for key, entry in fences.items()}
        last = resolve(self.name, writes, etags, tokens)
        puts = [self._put(write, values[key].sequence if key in values else None) for key, write in last.items()]
        for key, entry in fences.items():
            puts.append(Put(self._bucket.subject("f", key), b"%d" % tokens[key], entry.sequence))
        return puts


def _is_plain(write: StateWrite) -> bool:
    return write.etag is None and not write.create and write.fence is None


def _text(sequence: int, expires_ms: int | None) -> str:
    return f"{sequence:x}" if expires_ms is None else f"{sequence:x}-{expires_ms:x}"


def _etag(entry: Entry) -> str:
    """Return the etag of a value; that of one that expires tells when, so that it is known without a look."""
    return _text(entry.sequence, entry.expires_ms)
