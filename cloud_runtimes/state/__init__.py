"""State: key-value storage with etags, expiry and transactions."""

from .service import StateService
from .transaction import StateTransaction
from .types import Concurrency, Consistency, StateItem

__all__ = ["Concurrency", "Consistency", "StateItem", "StateService", "StateTransaction"]
