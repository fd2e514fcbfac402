"""Locks: leases with fencing tokens, renewed while they are held."""

from ..spi.lock import Grant, LockDriver, LockRequest, UnlockStatus
from .lease import Lease
from .service import LockHold, LockService

__all__ = ["Grant", "Lease", "LockDriver", "LockHold", "LockRequest", "LockService", "UnlockStatus"]
