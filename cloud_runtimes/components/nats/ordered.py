"""A member of a group whose events come in the order of their keys (``order="key"``).

It reads its topic by a consumer of its own, that nobody acknowledges to. How far the group is stands with its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from ...errors import UnavailableError
from ...spi.broker.in_flight import Unacked
from ...spi.broker.ordered import SURVEY_EVERY, WRITE_EVERY, OrderedInFlight, Progress
from ...spi.broker.policy import DeliveryPolicy
from ...spi.pubsub import SubscribeRequest
from . import NatsComponent
from .failures import ServerError
from .member import NatsMember
from .messages import Events, Reader, sequence_of
from .parts import GroupParts, Owned, Place
from .protocol import Message
from .requests import Flow
from .streams import END, MAIN, RETRY

if TYPE_CHECKING:
    from .pubsub import NatsPubSub

_MOST: Final = 8192
"""Events of all parts that are asked for at most."""
_IDLE: Final = 60.0
"""Seconds after which a consumer that nobody reads from is removed."""
_KEEP_EVERY: Final = 60.0
_TELL_EVERY: Final = 0.25
"""Seconds after which the progress is written of parts, too, of which nothing was settled: `lag` reads what is behind it."""


class OrderedNatsMember(NatsMember):
    """See the module; made by `NatsPubSub.subscribe` once the group exists."""

    in_flight: OrderedInFlight

    def __init__(
        self, component: NatsComponent, driver: NatsPubSub, rules: DeliveryPolicy, parts: GroupParts, place: Place
    ) -> None:
        super().__init__(component, driver, rules, partial(_in_flight, place.parts))
        del self._names[RETRY]  # events wait in memory to come again
        self._parts = parts
        self._place = place
        self._owned = [Owned(0, "", Progress(place.start, {}))] * place.parts
        self._at = 0  # the message behind which the consumer goes on; 0: there is none
        self._surveyed = self._kept = self._written = self._told = 0.0
        self.valid_until = 0.0

    @property
    def revision(self) -> int:  # type: ignore[override]
        """See `EventSource`."""
        return self.in_flight.revision

    def _paused(self) -> Flow[bool]:
        return self._parts.is_paused()

    # -- reading ----------------------------------------------------------

    def _connect(self) -> None:
        super()._connect()
        position = self.in_flight.position
        self._reads = position is not None
        if position is not None:
            self._at = position
            topic = self.policy.request.topic
            self._names[MAIN], _ = self._run(self._stream.reader(topic, self._place.log, position, _IDLE))

    def _exchange(self, want: int) -> None:
        self._settle(leaving=False)
        position = self.in_flight.position
        if position is not None and (not self._reads or position < self._at):
            self._disconnect()
            self._connect()
        if want and position is not None and not self.in_flight.is_ready:
            self._ask(min(self.in_flight.share(want), _MOST))
        self._flush()

    def _ask(self, want: int) -> None:
        if self._reads:
            super()._ask(want)

    def _wait(self, want: int, timeout: float | None) -> None:
        due = min(self._surveyed + SURVEY_EVERY, self._renewed + self._ack_wait / 3) - monotonic()
        if self.in_flight.take or self.in_flight.drained():
            due = 0.0
        later = self.in_flight.next_due_ms / 1000 - self._now_us() / 1e6
        super()._wait(want, max(0.0, min(due, later, due if timeout is None else timeout)))

    def _take(self, origin: int, messages: list[Message | Events]) -> None:
        self.in_flight.read_after(self._at)
        super()._take(origin, messages)
        self._at = self.in_flight.read_all()

    def _rejoin(self) -> None:
        self._gone = 0
        self._disconnect()
        raise UnavailableError(f"nats {self._where}: the consumer of {self.policy.label} had gone")

    # -- settling ---------------------------------------------------------

    def _source_of(self, part: Unacked) -> str:
        return self._stream.consumer(MAIN, self.policy.request.topic, self.policy.request.group)

    def _renew(self) -> None:
        """Do nothing: `_settle` renews the lease."""

    def _settle(self, leaving: bool) -> None:
        in_flight = self.in_flight
        must = leaving or bool(in_flight.unacked)
        self._write(in_flight.unacked)
        in_flight.unacked.clear()
        in_flight.done.clear()
        in_flight.expired = 0
        begun = monotonic()
        renews = begun >= self._renewed + self._ack_wait / 3 or not self.valid_until
        if begun >= self._surveyed + SURVEY_EVERY and not leaving:
            self._survey(begun)
            must = True
        me, owned = self.policy.name, self._owned
        give = range(self._place.parts) if leaving else in_flight.drained()
        everything = leaving or bool(give) or begun >= self._told + _TELL_EVERY
        if not (must or everything or renews or in_flight.take or begun >= self._written + WRITE_EVERY):
            return
        self._written = begun
        self._told = begun if everything else self._told
        changed = in_flight.changed(everything=everything)
        writes = {part: owned[part]._replace(progress=progress) for part, progress in changed}
        for part in give:
            if owned[part].owner == me:
                writes[part] = writes.get(part, owned[part])._replace(owner="")
        take = () if leaving else in_flight.take
        last = self._run(self._stream.last()) if any(owned[part].owner not in ("", me) for part in take) else 0
        for part in take:
            its = owned[part]
            progress = its.progress if its.owner in ("", me) else its.progress.after_death(last)
            writes[part] = its._replace(owner=me, progress=progress)
        puts = [self._parts.part(self._place, part, its) for part, its in writes.items()]
        if renews or leaving:
            puts.append(self._parts.member(me, None if leaving else self.policy.ack_wait_ms))
        if not puts:
            return
        try:
            done = self._run(self._parts.write(puts))
        except BaseException:
            self._surveyed = 0.0  # which tells what was written
            self._written = self._told = 0.0
            raise
        if renews:
            self._renewed = begun
            self.valid_until = begun + self._ack_wait
        in_flight.take = ()
        for (part, its), sequence in zip(writes.items(), done, strict=False):
            if isinstance(sequence, ServerError):  # it is another's
                in_flight.lost([part])
                self._surveyed = 0.0
                continue
            owned[part] = its._replace(sequence=sequence)
            if its.owner != me:
                in_flight.lost([part])
            elif part in take:
                in_flight.own(part, its.progress)
            else:
                in_flight.told(part, its.progress)

    def _survey(self, begun: float) -> None:
        """Look who is there, and who owns what."""
        survey = self._run(self._parts.survey(self._place))
        if survey is None:
            self._begin_again()
            return
        self._surveyed = begun
        # of a server that is behind, what was written last counts
        self._owned = [
            new if new.sequence >= old.sequence else old for new, old in zip(survey.parts, self._owned, strict=True)
        ]
        self.in_flight.survey(self.policy.name, survey.live, [each.owner for each in self._owned])
        if begun >= self._kept + _KEEP_EVERY:
            self._run(self._parts.keep(survey.place))
            self._kept = begun

    def _begin_again(self) -> None:
        """Make the group again where it has gone, from the beginning: what is there may come twice, and nothing is missed."""
        self._stream.forget()
        self._run(self._stream.ensure())
        self._place = self._run(self._parts.make(0))
        self.in_flight.forget()
        self._owned = [Owned(0, "", Progress(self._place.start, {}))] * self._place.parts
        raise UnavailableError(f"nats {self._where}: the group {self.policy.label} had gone, and was made again")

    def _leave(self) -> None:
        self._settle(leaving=True)
        if self._connection is not None and self._reads:
            self._run(self._stream.remove(self._names[MAIN]))


def join(driver: NatsPubSub, request: SubscribeRequest, begins: int | None) -> Flow[tuple[GroupParts, Place]]:
    """Make a group with an order, unless it is there.

    Raises:
        ConflictError: it has none.
    """
    stream = driver.stream
    yield from stream.ensure()
    parts = GroupParts(driver.component.engine, driver.name, request.topic, request.group)
    place = yield from parts.find()
    if place is None:
        if (yield from stream.has_group(request.topic, request.group)):
            DeliveryPolicy(driver.name, request).check_order(has_order=False)
        place = yield from parts.make((yield from stream.place(request.topic, begins)))
    return parts, place


def lag(driver: NatsPubSub, topic: str, group: str) -> Flow[int | None]:
    """Return how many events a group with an order has not settled; ``None``: it has none."""
    parts = GroupParts(driver.component.engine, driver.name, topic, group)
    place = yield from parts.find()
    survey = None if place is None else (yield from parts.survey(place))
    if place is None or survey is None:
        return None
    places = [its.progress for its in survey.parts]
    stream, events, begins = driver.stream, 0, 0
    if any(its.open for its in places):
        first = yield from stream.read_log(topic, place.log, 0, END, 1)
        begins = int(first[0].headers["Nats-Sequence"]) if first else END
    request = SubscribeRequest(topic, group, None, None, None, None, False, None)
    in_flight = _in_flight(place.parts, DeliveryPolicy("", request), sequence_of)
    for part, its in enumerate(places):
        if its.done + 1 >= begins:  # nothing was purged of what it has open
            events += its.events
            its = places[part] = Progress(its.read, {})
        in_flight.own(part, its)
    position, last = min(its.done for its in places), max(its.read for its in places)
    while position < last and (messages := (yield from stream.read_log(topic, place.log, position, last))):
        in_flight.read_after(position)
        for message in messages:
            sequence = message.headers["Nats-Sequence"]
            token = f"$JS.ACK.s.c.1.{sequence}.1.0.0".encode()
            Reader(in_flight).take(MAIN, [message._replace(reply=token)], END)
        position = in_flight.read_all()
    for subject in (stream.topic(topic), stream.back(place.log)):
        events += yield from stream.count(subject, last)
    return in_flight.count + events


def _in_flight(parts: int, policy: DeliveryPolicy, id_of: Callable[[bytes], str]) -> OrderedInFlight:
    return OrderedInFlight(policy, lambda token: int(sequence_of(token)), parts, id_of)
