"""The toolkit of drivers whose broker hands out messages.

A member of a consumer group owes more than most brokers have: retries with a delay, counted deliveries, dead letters, messages of neighbours that nobody can read. It is written here once, without I/O. A driver passes what its broker hands out to `InFlight`, returns what `InFlight.deliver` has, and carries out what `InFlight.take_done` and `InFlight.take_unacked` give back (docs/how-to/write-a-component.md). `OrderedInFlight` is for a log that can be read by position, where a group may keep the order of keys.
"""

from .in_flight import Held, InFlight, Unacked
from .member import SocketMember
from .ordered import OrderedInFlight, Progress
from .policy import FEATURES, DeliveryHistory, DeliveryPolicy, begins_at
from .redelivery import as_messages, read_history, spread, write_history

__all__ = [
    "FEATURES",
    "DeliveryHistory",
    "DeliveryPolicy",
    "Held",
    "InFlight",
    "OrderedInFlight",
    "Progress",
    "SocketMember",
    "Unacked",
    "as_messages",
    "begins_at",
    "read_history",
    "spread",
    "write_history",
]
