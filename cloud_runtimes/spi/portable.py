"""Interface for data that can be copied to another component; `cloud-runtimes copy` uses nothing else.

A *record* is a unit that moves whole. Its key is the same on both sides. So an interrupted copy continues by
comparing, and nobody has to note its progress.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from .configuration import ConfigurationItem
from .operation import Operation
from .schedule import StoredJob
from .state import StoredValue

__all__ = [
    "BATCH_BYTES",
    "BATCH_RECORDS",
    "ConfigurationRecord",
    "EventsRecord",
    "GroupRecord",
    "JobRecord",
    "JobRun",
    "Portable",
    "Record",
    "Slice",
    "StateRecord",
    "events_key",
]

BATCH_RECORDS: Final = 1000
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of data that `Portable.export` returns at once, where it is more than one record."""


_CLOCKS_MS: Final = 5_000
"""How far the clocks of two engines may be apart."""
Records: TypeAlias = Sequence[Any]
"""Of one kind, see `Record`; a portable takes those that the other one gave."""


class Record(Protocol):
    """Unit of a copy, which moves whole.

    Attributes:
        key: the same on both sides.
    """

    @property
    def key(self) -> Hashable: ...

    def content(self, source: Any) -> tuple[Any, ...]:
        """Return what must be equal on both sides: bytes, text, numbers, ``None``, and tuples of them. ``source`` is the record of the source, which may be this one."""


class StateRecord(NamedTuple):
    """A key of a state store.

    Attributes:
        key: of the store.
        value: what it holds; ``None``: nothing, and only the fence is left.
        fence: the highest that it saw.
    """

    key: str
    value: StoredValue | None
    fence: int | None

    def content(self, source: StateRecord) -> tuple[Any, ...]:
        """See `Record`. The etag may be another, and so may the time when it expires, a little, since engines have clocks of their own."""
        value = self.value
        if value is None:
            return (self.fence,)
        ends, other = value.expires_ms, source.value.expires_ms if source.value is not None else None
        if ends is not None and other is not None and abs(ends - other) <= _CLOCKS_MS:
            ends = other
        return self.fence, value.data, value.content_type, ends


class ConfigurationRecord(NamedTuple):
    """A key of a configuration store. Its version is the target's own.

    Attributes:
        key: group, label and key, ``""``: the default one.
        item: of the store.
    """

    key: tuple[str, str, str]
    item: ConfigurationItem

    def content(self, source: ConfigurationRecord) -> tuple[Any, ...]:
        """See `Record`."""
        return self.item.value, *(tuple(sorted(names.items())) for names in (self.item.tags, self.item.metadata))


class JobRun(NamedTuple):
    """A run of a job; all times are milliseconds since 1970 UTC.

    Attributes:
        run_id, fire_ms, last_ms, occurrences, status, attempt, started_ms, ended_ms, error: as in `RunRecord`, whose ``count`` is ``occurrences`` here; an open run is ``waiting``.
        failures: tries that ended with an error.
        due_ms: when an open run may begin, 0: at once; ``None``: it is over.
    """

    run_id: str
    fire_ms: int
    last_ms: int
    occurrences: int
    status: str
    attempt: int
    failures: int
    due_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    error: str | None


class JobRecord(NamedTuple):
    """A job of an application.

    Attributes:
        key: its name.
        job: with where it stands.
        runs: all that are known, in their order.
    """

    key: str
    job: StoredJob
    runs: tuple[JobRun, ...]

    def content(self, source: JobRecord) -> tuple[Any, ...]:
        """See `Record`. When an open run is due may be a little another, since engines have clocks of their own."""
        runs = tuple(run._replace(due_ms=None if run.due_ms is None else 0) for run in self.runs)
        return self.job.spec.data, repr(self.job), repr(runs)


class GroupRecord(NamedTuple):
    """A consumer group of a topic, which comes before the topic's events.

    Attributes:
        key: the topic and the group.
        parts: of a group with an order; ``None``: it has none.
    """

    key: tuple[str, str]
    parts: int | None = None

    def content(self, source: GroupRecord) -> tuple[Any, ...]:
        """See `Record`."""
        return (self.parts,)


class Slice(NamedTuple):
    """Events of a frame that a group has not settled.

    Attributes:
        start, length: positions in the frame.
        settled: bitmap over the slice of those that are settled all the same, least significant bit first; ``None``: none.
        due_ms: when they may be delivered, milliseconds since 1970 UTC; 0: at once.
        deliveries: so far.
    """

    start: int
    length: int
    settled: bytes | None
    due_ms: int
    deliveries: int


class EventsRecord(NamedTuple):
    """A frame of a topic, byte for byte. Its events keep their ids, keys and times.

    Attributes:
        key: the topic, and what names the frame; see `events_key`.
        position: of the frame in its store, for `Portable.export`.
        events: how many it has.
        body: the frame.
        due_ms: of a frame whose events are published later, milliseconds since 1970 UTC.
        groups: group → what of the frame it has not settled; ``None``: it has not come to this frame yet, nor to any behind it.
    """

    key: tuple[str, str]
    position: Any
    events: int
    body: bytes
    due_ms: int | None
    groups: Mapping[str, tuple[Slice, ...] | None]

    def content(self, source: EventsRecord) -> tuple[Any, ...]:
        """See `Record`: what each group of the source has not settled. When it is due may be a little another."""
        whole = (Slice(0, self.events, None, 0, 0),)
        unsettled: list[tuple[Any, ...]] = []
        for name in sorted(source.groups):
            # a group that the target lacks has nothing before it there
            slices = self.groups.get(name, ())
            ordered = sorted(whole if slices is None else slices, key=lambda each: each[:2])
            unsettled.append((name, *(tuple(each._replace(due_ms=0)) for each in ordered)))
        return self.body, self.due_ms, *unsettled


def events_key(body: bytes, *, number: int | None = None, due_ms: int | None = None) -> str:
    """Return what names a frame on both sides: its content, with its number at the source, so that a frame that was published twice is two, or with the time when it is due."""
    return blake2b(body, digest_size=16, key=f"{number} {due_ms}".encode()).hexdigest()


class Portable(ABC):
    """The data of one name of a service: of a state or configuration store, of a pub/sub name, or of the jobs of one application. `Component.portable` gives it."""

    @abstractmethod
    def count(self, op: Operation, /) -> int:
        """Return how many records there are, for a progress bar."""

    @abstractmethod
    def export(self, op: Operation, after: Any | None, /) -> Records:
        """Return the next records behind the record ``after``, in an order that does not change; none: that was all. At most `BATCH_RECORDS`, and `BATCH_BYTES` where it is more than one."""

    @abstractmethod
    def find(self, op: Operation, keys: Sequence[Any], /) -> Mapping[Any, Any]:
        """Return records by their keys; absent ones are left out."""

    @abstractmethod
    def put(self, op: Operation, records: Records, /) -> None:
        """Store records in one transaction. Those of state, configuration and jobs replace what has their key. Events are stored once, whatever became of them since."""

    def in_use(self, op: Operation, /) -> str | None:
        """Return who seems to be using it, for a warning; ``None``: nobody that is known.

        Raises:
            ConflictError: it cannot be copied as it is.
        """
        return None
