"""What the lock service gives back besides a lease."""

from __future__ import annotations

from enum import Enum

__all__ = ["UnlockStatus"]


class UnlockStatus(Enum):
    """How an `unlock` ended."""

    SUCCESS = "success"
    """The lock was the owner's and is free now."""
    NOT_FOUND = "not_found"
    """Nobody holds it; an expired lock is held by nobody."""
    NOT_OWNER = "not_owner"
    """Somebody else holds it; nothing was changed."""
