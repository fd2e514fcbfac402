"""Locks: leases with fencing tokens, renewed while they are held."""

from .driver import Grant, LockDriver, LockRequest
from .lease import Lease
from .service import LockHold, LockService
from .types import UnlockStatus

__all__ = ["Grant", "Lease", "LockDriver", "LockHold", "LockRequest", "LockService", "UnlockStatus"]
