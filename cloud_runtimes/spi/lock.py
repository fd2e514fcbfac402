"""The SPI of the lock service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from .driver import Driver
from .executor import in_thread
from .operation import Operation

if TYPE_CHECKING:
    from .inventory import LockInfo

__all__ = ["BREAK_LOCK", "FAIR", "LOCKS", "RENEW", "TOKEN", "Grant", "LockDriver", "LockRequest", "UnlockStatus"]


class UnlockStatus(Enum):
    """How an `unlock` ended."""

    SUCCESS = "success"
    """The lock was the owner's and is free now."""
    NOT_FOUND = "not_found"
    """Nobody holds it; an expired lock is held by nobody."""
    NOT_OWNER = "not_owner"
    """Somebody else holds it; nothing was changed."""


RENEW: Final = "renew"
"""A lease can be made longer while it is held."""
TOKEN: Final = "token"
"""A grant has a fencing token that only grows."""
FAIR: Final = "fair"
"""``acquire`` can wait, and who waits is served in the order of coming, between processes too."""
LOCKS: Final = "locks"
BREAK_LOCK: Final = "break_lock"
"""`LockDriver.locks` and `LockDriver.break_lock`."""


class LockRequest(NamedTuple):
    """Request for a lease, and the identity of the lease afterwards.

    Attributes:
        resource_id: checked.
        owner: as the caller named it; several leases may have the same.
        claim: text that no other lease has.
        expiry_ms: how long the lease lasts from its grant or renewal, ≥ 1.
        now: the holder's clock, seconds; see `Grant`.
    """

    resource_id: str
    owner: str
    claim: str
    expiry_ms: int
    now: Callable[[], float]


class Grant(NamedTuple):
    """A lease given.

    Attributes:
        token: higher than every one given before for the resource, over release, expiry, deletion and restart; ``None`` where the store has none.
        asked: what the holder's clock said just before the request was sent that this answers.
        holds: tells at once, without asking the store, whether the lease is still worth something; ``None``: nothing but time ends it.
    """

    token: int | None
    asked: float
    holds: Callable[[], bool] | None = None


class LockDriver(Driver, ABC):
    """Locks of one store.

    The store's clock decides when a lease ends, never before ``expiry_ms`` have passed since it received the request. The service counts from before it sent it, so that the holder is the first to know.

    What an ``acquire`` or ``release`` that raises or is interrupted may have written, the driver undoes or completes by itself, without waiting; where it cannot, the lease expires.
    """

    @abstractmethod
    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        """Take the lock, atomically with its token; ``None`` where others have it, or were there before.

        Not re-entrant: an owner that has it is another. With ``wait``, which is given only to a driver that declares `FAIR`, it waits for its turn until the operation's deadline. For others the service asks again after growing random pauses.
        """

    acquire_async = in_thread(acquire)

    @abstractmethod
    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        """Let the lease last ``expiry_ms`` from now; ``False``, with nothing changed, where it has ended."""

    renew_async = in_thread(renew)

    @abstractmethod
    def release(self, op: Operation, request: LockRequest, /) -> bool:
        """End the lease; ``False`` where it had ended. Another's lock stays."""

    release_async = in_thread(release)

    @abstractmethod
    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        """End whatever lease of this owner holds the lock."""

    unlock_async = in_thread(unlock)

    def locks(self, op: Operation, prefix: str, limit: int, /) -> Sequence[LockInfo]:
        """Return the locks whose names begin so that are held, or waited for, in the order of their names (`LOCKS`)."""
        raise NotImplementedError

    locks_async = in_thread(locks)

    def break_lock(self, op: Operation, resource_id: str, token: int, /) -> UnlockStatus:
        """End the lease that has this token, as `release` does: what its holder does with it afterwards is refused (`BREAK_LOCK`)."""
        raise NotImplementedError

    break_lock_async = in_thread(break_lock)
