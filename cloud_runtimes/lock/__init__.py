"""Locks: leases with fencing tokens, renewed while they are held."""

from ..spi.lock import UnlockStatus
from .lease import Lease
from .service import LockHold, LockService

__all__ = ["Lease", "LockHold", "LockService", "UnlockStatus"]
