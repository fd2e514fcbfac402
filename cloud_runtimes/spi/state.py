"""The SPI of the state service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ..errors import CloudRuntimesError
from .change import Change
from .driver import Driver
from .executor import in_thread
from .operation import Operation

__all__ = [
    "CONSISTENCY",
    "ETAG",
    "FENCE",
    "FIRST_WRITE",
    "LIST_KEYS",
    "OUTBOX",
    "TRANSACTION",
    "TRANSACTION_ETAG",
    "TTL",
    "StateDriver",
    "StateWrite",
    "StoredValue",
]

CONSISTENCY: Final = "consistency"
"""``consistency=`` is honoured."""
ETAG: Final = "etag"
"""Reads give etags; ``etag=`` makes a write conditional."""
FIRST_WRITE: Final = "first_write"
"""``concurrency="first-write"`` without an etag only creates."""
TTL: Final = "ttl"
TRANSACTION: Final = "transaction"
TRANSACTION_ETAG: Final = "transaction_etag"
"""Conditions inside a transaction, with full rollback."""
LIST_KEYS: Final = "list_keys"
OUTBOX: Final = "outbox"
"""A transaction publishes events: by changes of a pub/sub driver of the same engine, or of the engine's `RelayLog`, or as hidden keys (`StateDriver.has_order`)."""
FENCE: Final = "fence"


class StoredValue(NamedTuple):
    """Stored value of a key.

    Attributes:
        data: the encoded value.
        content_type: as it was saved, ``None`` where the store does not keep one.
        etag: not empty; ``None`` where the store has none.
        expires_ms: wall clock, milliseconds since 1970 UTC; ``None``: never.
    """

    data: bytes
    content_type: str | None
    etag: str | None
    expires_ms: int | None


class StateWrite(NamedTuple):
    """A write: a save, or with ``data=None`` a delete.

    Attributes:
        key: checked.
        data: the encoded value; ``None`` deletes.
        content_type: of ``data``.
        etag: only if it is the key's current one; any other, or an absent key, is `ConflictError`.
        create: only if the key is absent (or expired), else `ConflictError`.
        ttl_ms: time to live; ``None`` clears an earlier one.
        fence: refuse with `ConflictError` once the key, even deleted, saw a higher one.
        consistency: as the caller gave it.
        metadata: for the component.
    """

    key: str
    data: bytes | None
    content_type: str | None = None
    etag: str | None = None
    create: bool = False
    ttl_ms: int | None = None
    fence: int | None = None
    consistency: str | None = None
    metadata: Mapping[str, str] | None = None


class StateDriver(Driver, ABC):
    """Key-value storage of one store. Keys are compared byte for byte; an expired key is absent.

    Attributes:
        etags: regular expression of all etags that the store gives, where a sidecar tells what can be none from what is stale; ``None``: it does not.
        max_writes: of one transaction.
        has_order: whether `oldest` works.
        takes_hidden: whether it takes keys that no application may have, those with ``||``.
    """

    etags: str | None = None
    max_writes: int = 1000
    takes_hidden: bool = True
    has_order: bool = False

    @abstractmethod
    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        """Return what ``key`` holds, ``None`` where it is absent."""

    get_async = in_thread(get)

    @abstractmethod
    def get_bulk(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> Mapping[str, StoredValue | CloudRuntimesError]:
        """Return what the keys hold; absent ones are left out. In place of a value that cannot be read stands the error of that key."""

    get_bulk_async = in_thread(get_bulk)

    @abstractmethod
    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        """Return keys that begin with ``prefix`` (literally), in byte order, those behind ``after`` only, at most ``limit``."""

    list_keys_async = in_thread(list_keys)

    @abstractmethod
    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        """Apply writes in order.

        Atomic: all or nothing; the first that fails raises, with nothing applied. Otherwise each is tried, and the failures come back by index; an error that concerns all of them raises.
        """

    write_async = in_thread(write)

    def oldest(
        self, op: Operation, prefix: str, limit: int, /
    ) -> Sequence[tuple[str, StoredValue | CloudRuntimesError]]:
        """Return keys of an outbox and what they hold, at most ``limit``, in the order of their commits (`has_order`). Keys of one commit come by their names.

        A key is ``||outbox||<name>||<id>``, without ``||`` in the id; ``prefix`` ends before the id. It is written once and does not expire. `list_keys` may leave it out. In place of a value that cannot be read stands the error of that key.
        """
        raise NotImplementedError

    oldest_async = in_thread(oldest)

    def change(self, writes: Sequence[StateWrite], /) -> Change:
        """Return writes as a change: those of an atomic `write` (`OUTBOX`)."""
        raise NotImplementedError

    def commit(self, op: Operation, changes: Sequence[Change], /) -> None:
        """Apply changes of this and other drivers of the engine in one transaction; the first that fails raises, with nothing applied (`OUTBOX`)."""
        raise NotImplementedError

    commit_async = in_thread(commit)
