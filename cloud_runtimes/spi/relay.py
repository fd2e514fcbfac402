"""Events that wait in a store for a broker of another engine. They lie there in the commit that made them, until a forwarder of `cloud_runtimes.pubsub` has published them.

A store with a log of its own is a `RelayLog`; see `Component.relay`. In other stores the events are hidden keys of the
state (`StateDriver.oldest`), or rows of a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from .._core.arguments import HIDDEN, OUTBOX
from ..config import build, duration, setting
from ..errors import InvalidArgumentError
from .change import Change
from .operation import Operation
from .pubsub import OutgoingBatch, PubSubDriver
from .state import StateDriver

__all__ = [
    "OTLP",
    "OUTBOX",
    "SPOOL",
    "Backlog",
    "RelayLog",
    "Spool",
    "SpoolLog",
    "SpoolSettings",
    "Waiting",
    "choose",
    "read_relay_name",
    "relay_name",
    "spool_settings",
]

SPOOL: Final = f"{HIDDEN}spool{HIDDEN}"
OTLP: Final = "otlp"
"""The vendor of what waits for a collector of telemetry, under the name of its signal."""
_REFUSED: Final = "!"


def relay_name(kind: str, vendor: str, pubsub_name: str, *, refused: bool = False) -> str:
    """Return the hidden name under which events wait for a broker, or lie that it refused.

    A process that has another ``vendor`` under this ``pubsub_name`` does not take them.
    """
    return f"{kind}{_REFUSED if refused else ''}{vendor}{HIDDEN}{pubsub_name}"


def read_relay_name(name: str) -> tuple[str, str, str] | None:
    """Return the kind, the vendor and the pub/sub name of a hidden name; ``None``: it is none of a relay."""
    for kind in (OUTBOX, SPOOL):
        vendor, separator, pubsub_name = name.removeprefix(kind).partition(HIDDEN)
        if name.startswith(kind) and separator and pubsub_name:
            return kind, vendor.removeprefix(_REFUSED), pubsub_name
    return None


class Waiting(NamedTuple):
    """Events that wait together.

    Attributes:
        token: by which the log removes them; hashable.
        frame: the events.
        events: how many they are.
        due_ms: when they may be delivered, in milliseconds since 1970 UTC; ``None``: at once.
        created_ms: when they came, likewise; ``None``: the log does not tell.
    """

    token: Any
    frame: bytes
    events: int
    due_ms: int | None = None
    created_ms: int | None = None


def choose(sizes: Iterable[Sequence[Any]], limit: int, held: Collection[Any]) -> list[Any]:
    """Return the tokens, of pairs of tokens and sizes, that are not held and have ``limit`` bytes together; at least one where there is one."""
    chosen: list[Any] = []
    for token, size in sizes:
        if token not in held and (limit > 0 or not chosen):
            chosen.append(token)
            limit -= size
    return chosen


class Backlog(NamedTuple):
    """Counts of what waits under a name.

    Attributes:
        events: that wait.
        bytes: of their frames.
        oldest_ms: when the first of them came, in milliseconds since 1970 UTC; ``None``: none waits.
        forwarded: events that were published so far; ``None``: the log does not count.
        dropped: events that were given up so far, since the log was full or they were too old; likewise.
        rejected: records of telemetry that the collector refused for good so far; likewise.
    """

    events: int
    bytes: int
    oldest_ms: int | None
    forwarded: int | None = None
    dropped: int | None = None
    rejected: int | None = None


class RelayLog(ABC):
    """Events that wait under a name. Only the holder of its lease removes any.

    Attributes:
        leases: a state store of the same engine, which commits changes of this log.
    """

    leases: StateDriver

    @abstractmethod
    def change(self, batch: OutgoingBatch, /) -> Change:
        """Return events as a change for a transaction of the engine: they wait once it is committed."""

    @abstractmethod
    def waiting(self, op: Operation, after: Any, limit: int, held: Collection[Any], /) -> tuple[Sequence[Waiting], Any]:
        """Return what waits, in the order of the commits as far as these waited for each other, and where to go on.

        What is committed later may lie before what was returned, and must be returned before anything that its writer committed after it.

        Args:
            op: the operation.
            after: where an earlier call ended; ``None``: begin with the oldest.
            limit: bytes of frames that are enough; no call returns less than one frame where there is one.
            held: tokens of what the caller has, who may get it again.
        """

    @abstractmethod
    def removal(self, waiting: Sequence[Waiting], forwarded: int, dropped: int, /) -> Change:
        """Return the removal of what waited as a change; so many of its events were published, or dropped by an operator. What is there no more, since the log was full, was not dropped after all."""

    @abstractmethod
    def backlog(self, op: Operation, /) -> Backlog:
        """Count what waits."""

    @abstractmethod
    def names(self, op: Operation, /) -> Sequence[str]:
        """Return all names of the engine under which something waits."""


class SpoolLog(RelayLog):
    """Log on this machine that has limits, and takes what is opaque to it.

    Attributes:
        lock_path: file that whoever forwards what waits has locked.
    """

    lock_path: str

    @abstractmethod
    def append(self, op: Operation, body: bytes, records: int, /) -> None:
        """Store what stands for so many records; it is durable then.

        Raises:
            ResourceExhaustedError: there is no room.
        """

    @abstractmethod
    def settle(self, op: Operation, sent: Sequence[Waiting], forwarded: int, rejected: int, /) -> None:
        """Remove what was sent, and count its records. Any that were given up meanwhile are not counted as dropped any more."""

    @abstractmethod
    def expire(self, op: Operation, max_age: float, /) -> None:
        """Give up, and count, what has waited for longer than ``max_age`` seconds."""


class Spool:
    """Log on this machine in which the events for a broker wait first.

    Args:
        target: the broker's driver.
        log: returns the log of a name.
        expire: gives up, and counts, what is too old; it is called often.

    Attributes:
        wake: has the forwarder of this process look at once.
    """

    def __init__(self, target: PubSubDriver, log: Callable[[str], RelayLog], expire: Callable[[], None]) -> None:
        self.target = target
        self.log = log
        self.expire = expire
        self.wake: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Settings of a table ``spool``.

    Attributes:
        max_bytes: that may wait.
        max_age: seconds for which an event waits at most; older ones are dropped, and counted.
        on_full: at ``max_bytes``: ``"block"`` until there is room, ``"raise"``, or ``"drop_oldest"``, counted.
    """

    max_bytes: int = setting(1 << 30, help="how much may wait")
    max_age: float = setting(7 * 86400.0, parse=duration, help="how long events wait at most")
    on_full: Literal["block", "raise", "drop_oldest"] = setting("block", help="what happens at max_bytes")

    @property
    def when_full(self) -> str:
        """Setting of the embedded store that means the same as ``on_full``, but for waiting."""
        return "drop_oldest" if self.on_full == "drop_oldest" else "refuse"

    def __post_init__(self) -> None:
        if self.max_bytes < 1024 * 1024:
            raise ValueError("max_bytes must be at least 1,048,576")


def spool_settings(value: object, where: str) -> SpoolSettings | None:
    """Return the settings of a spool; ``None``: it is off.

    Raises:
        InvalidArgumentError: they are wrong.
    """
    if value is False:
        return None
    if value is not True and not isinstance(value, dict):
        raise InvalidArgumentError(f"{where}: spool: give true, or a table with max_bytes, max_age, on_full")
    return build(SpoolSettings, {} if value is True else value, f"{where}: spool")
