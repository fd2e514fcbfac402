"""A member of a group whose events come in the order of their keys (``order="key"``).

It reads the stream by position, past the group's own place, which says only what may be trimmed. So nothing is pending: a hash of the group has the owner of each part and how far it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ...spi.broker.ordered import PARTS, SURVEY_EVERY, WRITE_EVERY, OrderedInFlight, Progress
from ...spi.broker.policy import DeliveryPolicy
from ...spi.operation import Operation
from ...spi.pubsub import SubscribeRequest
from . import RedisComponent
from .engine import Pipeline
from .entries import STREAM, take_in
from .failures import checked
from .member import RedisMember
from .resp import Batch, Flow, Value
from .streams import ORDER, PROGRESS, GroupKeys, TopicKeys

if TYPE_CHECKING:
    from .connection import Connection
    from .pubsub import RedisPubSub

_TELL_EVERY: Final = 0.05
"""Seconds after which the progress is written of parts, too, of which nothing was settled: `lag` reads what is behind it."""
_BEGIN: Final[Value] = "0-0"
_PAGE: Final = 1000
_MOST: Final = 8192
"""Events of all parts that are read at once at most."""


class OrderedRedisMember(RedisMember):
    """See the module; made by `RedisPubSub.subscribe` once the group exists."""

    in_flight: OrderedInFlight

    def __init__(self, component: RedisComponent, driver: RedisPubSub, policy: DeliveryPolicy, now_ms: int) -> None:
        super().__init__(component, driver, policy, now_ms, _in_flight)
        keys = driver.keys(policy.request.topic)
        group = GroupKeys.of(keys, policy.request.group)
        stream, retry, *_, dead, counters = self._settling
        self._order = (stream, retry, group.parts, group.members, keys.seen, dead, counters)
        self._surveyed = self._written = self._told = 0.0
        self._bell = _BEGIN  # the last entry of the second stream, which has bells and what was redriven
        self._rung = self._bell
        self.valid_until = 0.0

    @property
    def revision(self) -> int:  # type: ignore[override]
        """See `EventSource`."""
        return self.in_flight.revision

    # -- reading ----------------------------------------------------------

    def _exchange(self, want: int) -> None:
        if not self._blocked and self.in_flight.position is None:
            want = 0
        super()._exchange(min(self.in_flight.share(want), _MOST) if want else 0)

    def _reading(self, count: int, block: tuple[Value, ...]) -> tuple[Value, ...]:
        assert self.in_flight.position is not None
        self._after = self.in_flight.position
        self._rung = self._bell
        last = id_of(self._after)
        return ("XREAD", "COUNT", count, *block, "STREAMS", *reversed(self._streams.values()), self._bell, last)

    def _read(self, reply: Any) -> None:
        self.in_flight.read_after(self._after)
        super()._read(reply)
        self.in_flight.read_all()

    def _take_in(self, origin: int, entries: Sequence[Any], deliveries: int) -> int:
        if origin == STREAM:
            return super()._take_in(origin, entries, deliveries)
        if self._bell == self._rung:
            self._bell = entries[-1][0]
        with self.in_flight.take_beside():
            return super()._take_in(origin, entries, deliveries)

    def _recover(self, connection: Connection, op: Operation) -> None:
        """Do nothing: a read that did not come is made again."""

    # -- settling ---------------------------------------------------------

    def _due(self) -> float:
        if self.in_flight.take or self.in_flight.drained():
            return 0.0
        return min(self._surveyed + SURVEY_EVERY, self._look_at, self._renewed + self._ack_wait / 3)

    def _keep(self, pipeline: Pipeline, now: float, count: int) -> None:
        """Do nothing: `_settlements` renews the lease."""

    def _settlements(self, pipeline: Pipeline) -> None:
        in_flight, now = self.in_flight, monotonic()
        take, give = in_flight.take, in_flight.drained()
        surveys = now >= self._surveyed + SURVEY_EVERY or not self.valid_until
        beside = in_flight.settled_beside() if in_flight.beside else {}
        must = surveys or take or give or in_flight.unacked or beside or now >= self._renewed + self._ack_wait / 3
        changed = []
        if must or now >= self._written + WRITE_EVERY:
            everything = surveys or bool(give) or now >= self._told + _TELL_EVERY
            changed = list(in_flight.changed(everything=everything))
            self._told = now if everything else self._told
        if must or changed:
            self._written = now
            parts = list(in_flight.unacked)
            arguments = self._arguments("survey" if surveys else "renew", take, give, changed)
            taken = partial(self._ordered, now, give, changed, beside, len(parts))
            pipeline.run(taken, ORDER, self._order, *arguments)
        in_flight.done.clear()
        self._count_expired(pipeline)

    def _arguments(
        self, what: str, take: Sequence[int], give: Sequence[int], changed: Sequence[tuple[int, Progress]]
    ) -> list[Value]:
        progress: list[Value] = []
        for part, its in changed:
            progress += (part, f"{id_of(its.done)} {its.text()}")
        head = (self._group, self._me, self.policy.ack_wait_ms, self.policy.label, what)
        return [*head, _joined(take), _joined(give), len(changed), *progress, *self._parts()]

    def _parts(self) -> list[Value]:
        """Return what becomes of events that were not acknowledged, and which redriven ones are settled."""
        parts: list[Value] = []
        for each in self.in_flight.unacked:
            part: Any = each.held.origin
            if each.frame is None:
                parts += (part, "drop", each.events, b"", b"")
                continue
            letters = self._driver.letters(each.frame)
            topic = self.policy.request.topic
            parts += chain.from_iterable((part, "dead", each.events // len(letters), data, topic) for data in letters)
        for held in self.in_flight.settled_beside().values():
            owner: Any = held.origin
            parts += (owner, "done", 0, held.tokens[0], b"")
        return parts

    def _ordered(
        self,
        begun: float,
        give: Sequence[int],
        changed: Sequence[tuple[int, Progress]],
        beside: Iterable[int],
        parts: int,
        reply: Any,
    ) -> None:
        lost, taken, live, owners = reply
        in_flight = self.in_flight
        del in_flight.unacked[:parts]
        self._renewed = begun
        self.valid_until = begun + self._ack_wait
        for part, progress in changed:
            in_flight.told(part, progress)
        in_flight.lost([*lost, *give])
        in_flight.take = ()
        for position in beside:
            in_flight.beside.pop(position, None)
        if taken:
            self._bell = _BEGIN
        for part, text, last in taken:
            progress = progress_of(text)
            in_flight.own(part, progress.after_death(position_of(last)) if last else progress)
            in_flight.told(part, progress)
        if live:
            self._surveyed = begun
            in_flight.survey(self.policy.name, list(map(bytes.decode, live)), list(map(bytes.decode, owners)))

    def _leaving(self) -> Flow[None]:
        changed = list(self.in_flight.changed(everything=True))
        yield from ORDER.run(self._order, *self._arguments("leave", (), (), changed))


def lag(keys: TopicKeys, group: str, topic: str) -> Flow[tuple[int, str] | None]:
    """Return how many events a group with an order has not settled, and after which entry all others are to be counted; ``None``: it has no order."""
    reply = yield from PROGRESS.run((GroupKeys.of(keys, group).parts,))
    if reply is None:
        return None
    places = list(map(progress_of, reply))
    begins = 0.0
    if any(place.open for place in places):
        (first,) = checked((yield Batch(("XRANGE", keys.stream, "-", "+", "COUNT", 1))))
        begins = position_of(first[0][0]) if first else inf
    in_flight = OrderedInFlight(
        DeliveryPolicy("", SubscribeRequest(topic, group, None, None, None, None, False, None)),
        position_of,
        len(places),
    )
    events = 0
    for part, place in enumerate(places):
        if place.done + 1 >= begins:  # nothing was purged of what it has open
            events += place.events
            place = places[part] = Progress(place.read, {})
        in_flight.own(part, place)
    position, last = min(place.done for place in places), max(place.read for place in places)
    while position < last:
        (entries,) = yield Batch(("XRANGE", keys.stream, f"({id_of(position)}", id_of(last), "COUNT", _PAGE))
        in_flight.read_after(position)
        take_in(in_flight, STREAM, entries, 1)
        in_flight.read_all()
        position = position_of(entries[-1][0]) if len(entries) == _PAGE else last
    return in_flight.count + events, id_of(last)


def position_of(id: bytes) -> int:
    """Return the id of an entry as a number."""
    milliseconds, _, number = id.partition(b"-")
    return int(milliseconds) << 64 | int(number)


def id_of(position: int) -> str:
    """Return a number as the id of an entry."""
    return f"{position >> 64}-{position & 2**64 - 1}"


def progress_of(text: bytes) -> Progress:
    """Read what the store has of a part: how far all is settled, and unless nothing was read yet the rest."""
    done, _, rest = text.partition(b" ")
    return Progress.of(rest.decode()) if rest else Progress(position_of(done), {})


def _in_flight(policy: DeliveryPolicy) -> OrderedInFlight:
    return OrderedInFlight(policy, position_of, PARTS)


def _joined(parts: Sequence[int]) -> str:
    return ",".join(map(str, parts))
