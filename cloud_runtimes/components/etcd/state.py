"""State on etcd: a key for each value. An etag is the revision that wrote it; fences are keys of their own beside the values.

A value is a line with what it is (when it expires, in milliseconds since 1970 UTC or 0, and its content type), then its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from time import monotonic, time
from typing import Any, Final

from ...errors import CloudRuntimesError, ConflictError, PayloadError, ResourceExhaustedError
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.state import OUTBOX, StateDriver, StateWrite, StoredValue
from .._net.engines import EngineDriver
from .._state import FEATURES, oversized, read_fence, read_value, refused, resolve, try_value
from .._unreadable import read_entries
from . import EtcdComponent
from .engine import Flow, Lease, Request
from .failures import ServerError
from .messages import KeyValue, after, changed_by, delete, put, range_of, read_range, read_txn, then, txn, under

_PAGE: Final = 10_000
"""Keys of one answer."""
_TOGETHER: Final = 1 << 20
"""Bytes of values that one transaction has, where several would do."""
_NO_LEASE: Final = Lease(0, 0.0)


class EtcdState(EngineDriver[EtcdComponent], StateDriver):
    """A state store: the keys below its name."""

    features = FEATURES | {OUTBOX}
    has_order = True

    def __init__(self, component: EtcdComponent, name: str) -> None:
        super().__init__(component, name)
        self._max_value = component.settings.max_value_bytes
        self._max_operations = self.max_writes = component.settings.max_operations
        self._values = component.key("state", name, "v", "")
        self._fences = component.key("state", name, "f", "")

    # -- reading ----------------------------------------------------------

    def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[StoredValue | None]:
        asked = Request(range_of, self._values + key.encode(), serializable=consistency == "eventual")
        items = read_range((yield asked)).items
        return read_value(self.name, key, items[0], _stored) if items else None

    get, get_async = both_apis(_get)

    def _get_bulk(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> Flow[dict[str, StoredValue | PayloadError]]:
        items = yield from self._read([self._values + key.encode() for key in keys], consistency == "eventual")
        held = [(key, item) for key, item in zip(keys, items, strict=True) if item is not None]
        values = {key: try_value(self.name, key, item, _stored) for key, item in held}
        return {key: value for key, value in values.items() if value is not None}

    get_bulk, get_bulk_async = both_apis(_get_bulk)

    def _read(self, keys: Sequence[bytes], eventual: bool = False) -> Flow[list[KeyValue | None]]:
        """Return what keys hold."""
        items: list[KeyValue | None] = []
        for first in range(0, len(keys), self._max_operations):
            some = [then(range_of, key, serializable=eventual) for key in keys[first : first + self._max_operations]]
            for answer in read_txn((yield Request(txn, (), some))).answers:
                values = read_range(answer).items
                items.append(values[0] if values else None)
        return items

    def _list(self, op: Operation, prefix: str, limit: int | None, after_key: str | None, /) -> Flow[list[str]]:
        where = self._values
        first, end = where + prefix.encode(), under(where + prefix.encode())
        if after_key is not None:
            first = max(first, after(where + after_key.encode()))
        names: list[str] = []
        revision = 0
        while first < end and (limit is None or len(names) < limit):
            page = _PAGE if limit is None else min(_PAGE, limit - len(names))
            asked = Request(range_of, first, end, limit=page, revision=revision, keys_only=True)
            result = read_range((yield asked))
            keys = (item.key[len(where) :] for item in result.items)
            names += read_entries(f"keys of {self.name!r}", keys, repr, bytes.decode)
            if not result.more:
                break
            revision, first = revision or result.revision, after(result.items[-1].key)
        return names

    list_keys, list_keys_async = both_apis(_list)

    def _oldest(
        self, op: Operation, prefix: str, limit: int, /
    ) -> Flow[list[tuple[str, StoredValue | CloudRuntimesError]]]:
        where = self._values
        first = where + prefix.encode()
        # etcd has the keys of one commit in no order, and they must not be cut before they are in one
        most = limit + self._max_operations
        asked = Request(range_of, first, under(first), limit=most, keys_only=True, oldest_first=True)
        items = sorted(read_range((yield asked)).items, key=attrgetter("created", "key"))
        names = (item.key[len(where) :] for item in items[:limit])
        keys = list(read_entries(f"keys of {self.name!r}", names, repr, bytes.decode))
        return list((yield from self._get_bulk(op, keys, None)).items())

    oldest, oldest_async = both_apis(_oldest)

    # -- writing ----------------------------------------------------------

    def _write(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Flow[dict[int, CloudRuntimesError]]:
        failed = oversized(self.name, writes, self._max_value, atomic)
        if atomic:
            yield from self._apply(writes)
            return failed
        together: dict[str, StateWrite] = {}
        size = 0
        for index, write in enumerate(writes):
            if index in failed:
                continue
            plain = write.etag is None and not write.create and write.fence is None
            size += len(write.data or b"")
            if together and (not plain or size > _TOGETHER or len(together) == self._max_operations):
                yield from self._commit(list(together.values()))
                together, size = {}, len(write.data or b"")
            if plain:
                together[write.key] = write
                continue
            try:
                yield from self._apply([write])
            except (ConflictError, PayloadError) as error:
                failed[index] = error
        if together:
            yield from self._commit(list(together.values()))
        return failed

    write, write_async = both_apis(_write)

    def _apply(self, writes: Sequence[StateWrite]) -> Flow[None]:
        """Apply writes together; again where another changed meanwhile what a condition looked at."""
        if len(writes) == 1 and writes[0].fence is None:  # the transaction itself finds out
            (write,) = writes
            revisions: dict[bytes, int] = {}
            if write.create or write.etag is not None:
                expected = _revision(write.etag)
                if write.etag is not None and not expected:
                    raise refused(self.name, write)
                revisions[self._values + write.key.encode()] = expected
            if not (yield from self._commit(writes, revisions)):
                raise refused(self.name, write)
            return
        self._check_count(writes)
        last = list({write.key: write for write in writes}.values())
        while not (yield from self._commit(last, *(yield from self._checked(writes)))):
            pass

    def _check_count(self, writes: Sequence[StateWrite]) -> None:
        values = {write.key for write in writes}
        fences = {write.key for write in writes if write.fence is not None}
        if (count := len(values) + len(fences)) > self._max_operations:
            raise ResourceExhaustedError(
                f"a transaction of {count:,} writes (a fence is one); etcd takes {self._max_operations:,} at once: split it, "
                "or raise --max-txn-ops of the servers and max_operations"
            )

    def _checked(self, writes: Sequence[StateWrite]) -> Flow[tuple[dict[bytes, int], dict[bytes, int]]]:
        """Look at the conditions of writes, each with those before it in mind. Returns revisions that keys must still have (0: none), and fences to write."""
        looked = list(dict.fromkeys(write.key for write in writes if write.create or write.etag is not None))
        fenced = list(dict.fromkeys(write.key for write in writes if write.fence is not None))
        keys = [self._values + key.encode() for key in looked] + [self._fences + key.encode() for key in fenced]
        items = yield from self._read(keys)
        etags = {key: item and str(item.modified) for key, item in zip(looked, items, strict=False)}
        seen = {
            key: read_fence(self.name, key, item and item.value)
            for key, item in zip(fenced, items[len(looked) :], strict=True)
        }
        resolve(self.name, writes, etags, seen)
        revisions = {key: item.modified if item else 0 for key, item in zip(keys, items, strict=True)}
        return revisions, {self._fences + key.encode(): token for key, token in seen.items()}

    def _commit(
        self, writes: Sequence[StateWrite], revisions: Mapping[bytes, int] = {}, tokens: Mapping[bytes, int] = {}
    ) -> Flow[bool]:
        """Write keys, each once, if others have the revisions; ``False``: one has another."""
        while True:
            leases = {}
            for seconds in {-(-write.ttl_ms // 1000) for write in writes if write.data is not None and write.ttl_ms}:
                leases[seconds] = yield from self.component.engine.lease(seconds)
            try:
                return (yield from self._sent(writes, leases, revisions, tokens))
            except ServerError as error:
                if not error.no_lease:
                    raise
                for lease in leases.values():
                    self.component.engine.forget(lease)

    def _sent(
        self,
        writes: Sequence[StateWrite],
        leases: Mapping[int, Lease],
        revisions: Mapping[bytes, int],
        tokens: Mapping[bytes, int],
    ) -> Flow[bool]:
        operations: list[tuple[Any, tuple[Any, ...]]] = []
        for write in writes:
            key = self._values + write.key.encode()
            if write.data is None:
                operations.append((delete, (key,)))
                continue
            lease = leases[-(-write.ttl_ms // 1000)] if write.ttl_ms else _NO_LEASE
            expires = int((time() + lease.until - monotonic()) * 1000) if lease.id else 0
            head = b"%d %b\n" % (expires, (write.content_type or "").encode())
            operations.append((put, (key, head + write.data, lease.id)))
        for key, token in tokens.items():
            operations.append((put, (key, b"%d" % token)))
        if not revisions and len(operations) == 1 and operations[0][0] is put:
            yield Request(put, *operations[0][1], writes=True)
            return True
        compares = [changed_by(key, revision) for key, revision in revisions.items()]
        sent = [then(make, *given) for make, given in operations]
        return read_txn((yield Request(txn, compares, sent, writes=True))).succeeded


def _stored(item: KeyValue) -> StoredValue:
    head, _, data = item.value.partition(b"\n")
    expires, _, content_type = head.decode().partition(" ")
    return StoredValue(data, content_type or None, str(item.modified), int(expires) or None)


def _revision(etag: str | None) -> int:
    """Return the revision that an etag stands for; 0: of no value."""
    return int(etag) if etag and etag.isascii() and etag.isdigit() and etag[0] != "0" and len(etag) < 19 else 0
