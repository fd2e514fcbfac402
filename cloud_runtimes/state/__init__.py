"""State: key-value storage with etags, expiry and transactions."""

from ..spi.state import StateDriver, StateWrite, StoredValue
from .service import StateService
from .transaction import StateTransaction
from .types import Concurrency, Consistency, StateItem

__all__ = [
    "Concurrency",
    "Consistency",
    "StateDriver",
    "StateItem",
    "StateService",
    "StateTransaction",
    "StateWrite",
    "StoredValue",
]
