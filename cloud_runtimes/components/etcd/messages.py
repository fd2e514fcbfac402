"""etcd's messages, as ``rpc.proto`` and ``kv.proto`` have them: what is asked, and what of the answers is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

WATCH: Final = "/etcdserverpb.Watch/Watch"
AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"

_LARGE: Final = 0x80
Field: TypeAlias = tuple[int, int | bytes | str]


# -- protocol buffers -----------------------------------------------------------


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= _LARGE:
        encoded.append(value & 0x7F | _LARGE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL: Final = [_varint(value) for value in range(1024)]
"""Numbers that are encoded once: tags of all fields, and sizes of most."""


def pack(*fields: Field) -> bytes:
    """Return a message; fields of the value 0 or ``b""`` are left out."""
    parts: list[bytes] = []
    for number, value in fields:
        if not value:
            continue
        if isinstance(value, int):
            parts += _SMALL[number << 3], _varint(value)
            continue
        if isinstance(value, str):
            value = value.encode()
        size = len(value)
        parts += _SMALL[number << 3 | 2], _SMALL[size] if size < len(_SMALL) else _varint(size), value
    return b"".join(parts)


def _one(number: int, message: bytes) -> bytes:
    """Return a field that is a message, an empty one too."""
    return _varint(number << 3 | 2) + _varint(len(message)) + message


def read_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message.

    Raises:
        ValueError: it is none.
    """
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = data[at], at + 1
            if tag >= _LARGE:
                tag, at = _read(data, at - 1)
            value: Any = data[at]
            at += 1
            if value >= _LARGE:
                value, at = _read(data, at - 1)
            if tag & 7 == 2:
                at += value
                value = data[at - value : at]
            elif tag & 7:
                raise ValueError(f"field {tag}")
            yield tag >> 3, value
    except IndexError:
        raise ValueError("a message is cut") from None


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < _LARGE:
        return value, at
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _LARGE:
            return value, at
    raise ValueError("a number has more than 64 bits")


# -- what is asked --------------------------------------------------------------


def under(prefix: bytes) -> bytes:
    """Return the end of the range of keys that begin so; no prefix here ends with 0xff."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def after(key: bytes) -> bytes:
    """Return the first key behind another."""
    return key + b"\0"


def range_of(
    key: bytes,
    end: bytes = b"",
    *,
    limit: int = 0,
    revision: int = 0,
    serializable: bool = False,
    keys_only: bool = False,
    since: int = 0,
    created_before: int = 0,
    oldest_first: bool = False,
    newest_first: bool = False,
) -> bytes:
    """Return a ``RangeRequest``: for a key, or for those from it to ``end``, with changes from ``since``. ``oldest_first`` and ``newest_first`` go by when they were created."""
    return pack(
        (1, key),
        (2, end),
        (3, limit),
        (4, revision),
        (5, oldest_first + 2 * newest_first),
        (6, 2 * (oldest_first or newest_first)),
        (7, serializable),
        (8, keys_only),
        (10, since),
        (13, max(0, created_before - 1)),
    )


def put(key: bytes, value: bytes, lease: int = 0) -> bytes:
    """Return a ``PutRequest``."""
    return pack((1, key), (2, value), (3, lease))


def delete(key: bytes, end: bytes = b"") -> bytes:
    """Return a ``DeleteRangeRequest``."""
    return pack((1, key), (2, end))


def created_by(key: bytes, revision: int) -> bytes:
    """Return a ``Compare``: whether a revision made a key."""
    return pack((2, 1), (3, key), (5, revision))


def changed_by(key: bytes, revision: int, end: bytes = b"") -> bytes:
    """Return a ``Compare``: whether a revision changed a key last, or each to ``end``; 0: whether there is none."""
    what = 2 if revision else 1
    return pack((2, what), (3, key), (4 + what, revision), (64, end))


_OPERATIONS: Final = {range_of: 1, put: 2, delete: 3}


def then(make: Any, *arguments: Any, **options: Any) -> bytes:
    """Return a ``RequestOp`` of a transaction, of `range_of`, `put` or `delete`."""
    return _one(_OPERATIONS[make], make(*arguments, **options))


def txn(compares: Iterable[bytes], success: Iterable[bytes], failure: Iterable[bytes] = ()) -> bytes:
    """Return a ``TxnRequest``."""
    parts = [*(_one(1, each) for each in compares), *(_one(2, each) for each in success)]
    return b"".join([*parts, *(_one(3, each) for each in failure)])


def grant(seconds: int, id: int = 0) -> bytes:
    """Return a ``LeaseGrantRequest``."""
    return pack((1, seconds), (2, id))


def renewal(id: int) -> bytes:
    """Return a ``LeaseKeepAliveRequest``. It is one of a stream, of which one call sends one message and gets one."""
    return pack((1, id))


def revocation(id: int) -> bytes:
    """Return a ``LeaseRevokeRequest``."""
    return pack((1, id))


METHODS: Final[Mapping[Any, str]] = {
    range_of: "/etcdserverpb.KV/Range",
    put: "/etcdserverpb.KV/Put",
    txn: "/etcdserverpb.KV/Txn",
    grant: "/etcdserverpb.Lease/LeaseGrant",
    renewal: "/etcdserverpb.Lease/LeaseKeepAlive",
    revocation: "/etcdserverpb.Lease/LeaseRevoke",
}
"""Maker of a message → the method that it is for."""


def watch(id: int, key: bytes, end: bytes = b"", start: int = 0) -> bytes:
    """Return a ``WatchRequest``; ``start``: the first revision that it tells, 0: the next."""
    return _one(1, pack((1, key), (2, end), (3, start), (7, id)))


def unwatch(id: int) -> bytes:
    """Return the ``WatchRequest`` that ends a watch."""
    return _one(2, pack((1, id)))


# -- what is answered -----------------------------------------------------------


class KeyValue(NamedTuple):
    """A key with its value, and the revisions that created and last changed it."""

    key: bytes
    created: int
    modified: int
    value: bytes
    lease: int


class Range(NamedTuple):
    """Items of a range; ``more``: the limit cut it."""

    header: bytes
    items: Sequence[KeyValue]
    more: bool

    @property
    def revision(self) -> int:
        """Revision of all data. It is read when it is asked for, since few ask and a header has long numbers."""
        return _revision(self.header)


class Txn(NamedTuple):
    """How a transaction ended: whether its conditions held, and the answers of its operations."""

    header: bytes
    succeeded: bool
    answers: Sequence[bytes]

    @property
    def revision(self) -> int:
        """Revision of all data after it."""
        return _revision(self.header)


class Event(NamedTuple):
    """A change: of a delete only key and revision are told."""

    deleted: bool
    item: KeyValue


class Watched(NamedTuple):
    """Response of a watch.

    Attributes:
        id: of the watch.
        revision: of all data.
        created: it has begun.
        cancelled: it has ended, by ``reason``; ``compacted``: revisions below are gone.
    """

    id: int
    revision: int
    created: bool
    cancelled: bool
    compacted: int
    reason: str
    events: Sequence[Event]


def _item(data: bytes) -> KeyValue:
    fields: list[Any] = [b"", b"", 0, 0, 0, b"", 0]
    for number, value in read_fields(data):
        fields[number] = value
    return KeyValue(fields[1], fields[2], fields[3], fields[5], fields[6])


def _revision(header: bytes) -> int:
    for number, value in read_fields(header):
        if number == 3:
            revision: int = value
            return revision
    return 0


def read_range(data: bytes) -> Range:
    """Read a ``RangeResponse``."""
    header, more = b"", False
    items = []
    for number, value in read_fields(data):
        if number == 2:
            items.append(_item(value))
        elif number == 1:
            header = value
        elif number == 3:
            more = bool(value)
    return Range(header, items, more)


def read_txn(data: bytes) -> Txn:
    """Read a ``TxnResponse``."""
    header, succeeded = b"", False
    answers: list[bytes] = []
    for number, value in read_fields(data):
        if number == 3:
            answers += [each for _, each in read_fields(value)] or [b""]
        elif number == 1:
            header = value
        elif number == 2:
            succeeded = bool(value)
    return Txn(header, succeeded, answers)


def read_lease(data: bytes) -> tuple[int, int]:
    """Return the id of a lease that was granted or renewed, and its seconds; 0: there is none."""
    fields = dict(read_fields(data))
    return fields.get(2, 0), fields.get(3, 0)


def read_token(data: bytes) -> str:
    """Return the token of an ``AuthenticateResponse``."""
    token: bytes = dict(read_fields(data)).get(2, b"")
    return token.decode()


def read_watched(data: bytes) -> Watched:
    """Read a ``WatchResponse``."""
    fields: dict[int, Any] = {}
    events = []
    for number, value in read_fields(data):
        if number == 11:
            event = dict(read_fields(value))
            events.append(Event(bool(event.get(1)), _item(event.get(2, b""))))
        else:
            fields[number] = value
    return Watched(
        fields.get(2, 0),
        _revision(fields.get(1, b"")),
        bool(fields.get(3)),
        bool(fields.get(4)),
        fields.get(5, 0),
        fields.get(6, b"").decode(),
        events,
    )
