"""Values that a store keeps: their etags, how large they may be, why a write of one fails, and names beside them, without I/O."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from ..errors import CloudRuntimesError, ConflictError, PayloadError, ResourceExhaustedError
from ..spi import state as spi
from ..spi.state import StateWrite, StoredValue
from ._unreadable import unreadable

T = TypeVar("T")

FEATURES: Final = frozenset(
    {
        spi.CONSISTENCY,
        spi.ETAG,
        spi.FIRST_WRITE,
        spi.TTL,
        spi.TRANSACTION,
        spi.TRANSACTION_ETAG,
        spi.LIST_KEYS,
        spi.FENCE,
    }
)
"""What a store does that checks conditions in the transaction of the write."""
_new_tuple = tuple.__new__  # half the cost of a NamedTuple's own


def new_etag() -> int:
    """Return an etag as the store keeps it."""
    return random.getrandbits(63)


def parse_etag(etag: str) -> int:
    """Return an etag as a number, that of another store as one that is never current."""
    try:
        value = int(etag, 16)
    except ValueError:
        return -1
    return value if f"{value:016x}" == etag and value < 2**63 else -1


def stored(row: Sequence[Any]) -> StoredValue:
    """Return a row of value, content type, etag and expiry."""
    data, content_type, etag, expires = row
    return _new_tuple(StoredValue, (data, content_type, "%016x" % etag, expires))  # noqa: UP031


def read_value(store: str, key: str, stored: T, read: Callable[[T], StoredValue | None]) -> StoredValue | None:
    """Return a value as ``read`` makes it of what the store has.

    Raises:
        PayloadError: it cannot be read.
    """
    try:
        return read(stored)
    except Exception as error:
        raise unreadable(f"the value of {key!r} in {store!r}", error) from error


def try_value(
    store: str, key: str, stored: T, read: Callable[[T], StoredValue | None]
) -> StoredValue | PayloadError | None:
    """Return a value of several, or the error for its key."""
    try:
        return read_value(store, key, stored, read)
    except PayloadError as error:
        return error


def read_fence(store: str, key: str, stored: bytes | None) -> int:
    """Return the highest fence that a key saw, 0 without one.

    Raises:
        PayloadError: it cannot be read.
    """
    try:
        return int(stored) if stored else 0
    except ValueError as error:
        raise unreadable(f"the fence of {key!r} in {store!r}", error) from error


def too_large(store: str, key: str, size: int, limit: int) -> ResourceExhaustedError:
    """Return why a value is refused."""
    return ResourceExhaustedError(
        f"the value of {key!r} has {size:,} bytes; {store!r} takes {limit:,}: split it, or raise max_value_bytes"
    )


def oversized(store: str, writes: Sequence[StateWrite], limit: int, atomic: bool) -> dict[int, CloudRuntimesError]:
    """Return the errors of writes with more than ``limit`` bytes by index; with ``atomic`` the first is raised."""
    failed: dict[int, CloudRuntimesError] = {}
    for index, write in enumerate(writes):
        if write.data is not None and len(write.data) > limit:
            failed[index] = too_large(store, write.key, len(write.data), limit)
            if atomic:
                raise failed[index]
    return failed


def conflict(store: str, write: StateWrite) -> ConflictError | None:
    """Return why a write changed nothing; ``None``: it deleted what was not there."""
    return refused(store, write) if write.create or write.etag is not None else None


def refused(store: str, write: StateWrite) -> ConflictError:
    """Return why a write whose condition does not hold is refused."""
    if write.create:
        return ConflictError(f"{write.key!r} exists already in {store!r}: first-write only creates")
    return ConflictError(f"the etag given is not the current one of {write.key!r} in {store!r}: read it again")


def passed_fence(write: StateWrite, token: int) -> ConflictError:
    """Return why a fenced write is refused, once its key saw ``token``."""
    return ConflictError(f"{write.key!r} saw the fence {token}, higher than {write.fence}: this holder's lease is over")


def resolve(
    store: str, writes: Sequence[StateWrite], etags: dict[str, str | None], fences: dict[str, int]
) -> dict[str, StateWrite]:
    """Look at the conditions of writes, each with those before it in mind; return the last write of each key.

    Args:
        store: for messages.
        writes: in their order.
        etags: of the keys that have conditions; ``None``: absent. Changed as the writes change them.
        fences: that the fenced keys saw; likewise.

    Raises:
        ConflictError: a condition does not hold.
    """
    last: dict[str, StateWrite] = {}
    for write in writes:
        if write.fence is not None:
            if fences[write.key] > write.fence:
                raise passed_fence(write, fences[write.key])
            fences[write.key] = write.fence
        current = etags.get(write.key)
        if (write.create and current is not None) or (write.etag is not None and write.etag != current):
            raise refused(store, write)
        # nobody can have the etag of what this same call writes
        etags[write.key] = None if write.data is None else ""
        last[write.key] = write
    return last


def dump_names(names: Mapping[str, str] | None) -> str | None:
    """Return tags or metadata as a column."""
    return json.dumps(dict(names)) if names else None


def load_names(column: str | None) -> dict[str, str]:
    """Return tags or metadata from their column.

    Raises:
        ValueError: it has none.
    """
    names = {} if column is None else json.loads(column)
    if not isinstance(names, dict) or not all(isinstance(value, str) for value in names.values()):
        raise ValueError("tags and metadata are an object of texts")
    return names
