"""Messages that a member holds until all of their events are settled; `reading` says what a message may be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from time import time_ns
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ..._core.logs import repeated
from ..._native import events as kernel
from ...errors import CloudRuntimesError
from ..events import cause_of, changed
from ..pubsub import Cause, Deliveries, Settled, Settlement, Settlements
from .policy import NO_HISTORY, DeliveryHistory, DeliveryPolicy
from .reading import LaterVersionError, is_frame, pack_payload, read_message, text_of
from .redelivery import as_messages

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Held(kernel.Marks):
    """Message with many events, or many messages (``single``) with one each. Its marks use the indexes of the frame.

    Attributes:
        origin: where it came from, for the driver.
        frame: the events.
        tokens: of the messages, for the driver.
        deliveries: this one included.
        history: of the events.
        at: when they were delivered, microseconds since 1970 UTC.
        next: the first index that was not delivered.
        holes: whether some undelivered events have gone to another member.
        released: the indexes that nobody has, and that come again in their old place; see `InFlight.stays`.
        unread: the message, if it cannot be read; its frame is then the content of its dead letter.
    """

    def __init__(
        self,
        origin: Hashable,
        frame: kernel.Frame,
        tokens: Sequence[Any],
        single: bool,
        deliveries: int,
        history: DeliveryHistory,
        unread: bytes | None = None,
        settled: bytes | None = None,
    ) -> None:
        super().__init__(len(frame), settled)
        self.origin = origin
        self.frame = frame
        self.tokens = tokens
        self.single = single
        self.deliveries = deliveries
        self.history = history
        self.at = 0
        self.next = 0
        self.holes = False
        self.released: set[int] = set()
        self.unread = unread

    def select(self, indexes: Sequence[int]) -> bytes:
        """Return events as they come again."""
        if self.unread is not None:
            return self.unread
        body: bytes = self.frame.select(indexes)
        return body


class Unacked(NamedTuple):
    """Events of one message that were not acknowledged: they come again, are dead letters, or are dropped. Without events it only says that the message is done with.

    A driver publishes them in their order, then acknowledges the message where it is ``done``.

    Attributes:
        held: what they belong to.
        tokens: of the messages they are in.
        done: whether nothing else of these messages is left.
        frame: the events; those of dead letters tell why. ``None``: they are dropped.
        events: how many.
        delay_ms: milliseconds until they come again; ``None``: they do not.
        deliveries: so far.
        history: of the events.
    """

    held: Held
    tokens: Sequence[Any]
    done: bool
    frame: bytes | None
    events: int
    delay_ms: int | None
    deliveries: int
    history: DeliveryHistory

    def structured(self) -> list[bytes]:
        """Return each event as CloudEvents structured JSON; none where they are dropped."""
        return [] if self.frame is None else [data for _, data in as_messages([self.frame], raw=False)]


def token_text(token: Any) -> str:
    """Return a token as the id of its message."""
    return token.decode(errors="replace") if isinstance(token, bytes) else str(token)


class InFlight:
    """The messages of one member.

    Args:
        policy: of the member.
        id_of: returns the id of the message of a token.
        prefix: of headers that are attributes of an event; see `read_binary`.

    Attributes:
        topic: of the subscription.
        held: all of them with anything left.
        done: origin → tokens of messages whose events are acknowledged or expired; see `take_done`.
        unacked: what was not acknowledged; see `take_unacked`.
        expired: how many events were; the driver counts them.
        dropped: how many events were, as their handler wanted; the driver may count them.
        stays: whether what is given back (`Settlement.RELEASE`) comes again by itself in its old place, as with an order.
        removed: returns which events of a message nobody gets; ``None``: there are none.
    """

    def __init__(self, policy: DeliveryPolicy, id_of: Callable[[Any], str] = token_text, prefix: str = "ce-") -> None:
        self._policy = policy
        self._id_of = id_of
        self._prefix = prefix
        self.topic = policy.request.topic
        self._ready: deque[Held] = deque()
        self.held: dict[Held, None] = {}
        self.done: dict[Hashable, list[Any]] = {}
        self.unacked: list[Unacked] = []
        self.expired = self.dropped = 0
        self.stays = False
        self.removed: Callable[[Held], Iterable[int]] | None = None

    # -- what came --------------------------------------------------------

    def add(self, origin: Hashable, tokens: Sequence[Any], messages: Sequence[bytes]) -> int:
        """Take in messages of one origin, in their order, of which nothing but the body matters; return how many events they have."""
        if is_frame(messages[0]):
            bad = [index for index, message in enumerate(messages) if is_frame(message)]
        else:
            body, bad = kernel.pack_cloudevents(messages, self.topic)
            if body is not None and not bad:
                return self.add_packed(origin, tokens, body)
        count = 0
        for alone, group in groupby(range(len(messages)), set(bad).__contains__):
            indices = list(group)
            if alone:
                count += sum(self.add_message(origin, tokens[index], messages[index]) for index in indices)
            else:
                count += self.add(origin, [tokens[index] for index in indices], [messages[index] for index in indices])
        return count

    def add_message(
        self,
        origin: Hashable,
        token: Any,
        data: bytes,
        headers: Mapping[str, str] = _NO_HEADERS,
        deliveries: int = 1,
        history: DeliveryHistory = NO_HISTORY,
        topic: Any = None,
        key: str | None = None,
    ) -> int:
        """Take in one message; return how many events it has.

        Args:
            origin, token: of the message.
            data: its body.
            headers: ``content-type``, and those of an event in binary mode; names in lower case.
            deliveries: this one included.
            history: of its events.
            topic: it was first published to; ``None``: where it is.
            key: of an event alone that has none.
        """
        topic = self.topic if topic is None else text_of(topic, self.topic)
        id = self._id_of(token)
        cause: Cause | None = None
        try:
            body = read_message(data, headers.get("content-type"), headers, topic=topic, id=id, prefix=self._prefix)
        except LaterVersionError as error:
            cause = cause_of("undecodable", error)
            body = pack_payload(data, None, topic, id)
        if key is not None and body is not data and (record := kernel.Frame(body)[0]).key is None:
            with suppress(CloudRuntimesError):  # its other attributes may be none that ours have
                body = kernel.build_frame(record.source, record.type, topic, (changed(record, key=key),))
        unread = None if cause is None else data
        held = Held(origin, kernel.Frame(body), (token,), body is not data, deliveries, history, unread)
        return self._hold(held, cause)

    def add_packed(self, origin: Hashable, tokens: Sequence[Any], frame: bytes) -> int:
        """Take in messages that have one event each, of which the driver made a frame."""
        return self._hold(Held(origin, kernel.Frame(frame), tokens, True, 1, NO_HISTORY))

    def _hold(self, held: Held, cause: Cause | None = None) -> int:
        """Keep a message for delivery. ``cause``: it cannot be read, and is delivered to nobody."""
        if self.removed is not None and not self._without(held, self.removed(held)):
            return held.length
        if held.remaining:
            self.held[held] = None
        if self._policy.is_exhausted(held.deliveries):
            # the last holder died with it
            indexes = held.open(0, held.length) if held.holes else range(held.length)
            self._give_up(held, indexes, Cause("deliveries"), held.deliveries - 1, held.history)
        elif cause is not None:
            self._refuse(held, cause)
        elif held.remaining:
            self._ready.append(held)
        else:
            self._finish(held, None)
        return held.length

    def _without(self, held: Held, indexes: Iterable[int]) -> bool:
        """Settle events that nobody gets; return whether there are others."""
        for index in indexes:
            held.holes = True
            held.settle(index)
            if held.single:
                self._finish(held, index)
        if not held.remaining and not held.single:
            self._finish(held, None)
        return bool(held.remaining)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to deliver."""
        return bool(self._ready)

    def deliver(self, want: int, now_us: int) -> Deliveries:
        """Return at most so many events; those that have expired are not among them."""
        deliveries = Deliveries()
        while want > 0 and self._ready:
            held = self._ready[0]
            start, stop = held.next, min(held.next + want, held.length)
            records: list[kernel.ClaimedRecord] = []
            indexes = held.open(start, stop) if held.holes else range(start, stop)
            gone = held.frame.deliver(0, indexes, now_us, held, records)
            held.next, held.at = stop, now_us
            if stop == held.length:
                self._ready.popleft()
            for index in gone:
                held.settle(index)
                self._finish(held, index)
            self.expired += len(gone)
            if records:
                deliveries.groups.append((records, held.deliveries))
            want -= len(records)
        return deliveries

    # -- what became of it ------------------------------------------------

    def settle(self, settled: Sequence[Settled]) -> None:
        """Note what a member says of deliveries."""
        answers = Settlements(settled)
        if self.stays:
            released, answers = answers.split(Settlement.RELEASE)
            for record in released:
                record.marks.released.add(record.position)
        for tokens, settlement, delay, cause in answers.groups:
            ranges = kernel.mark_ranges(tokens)
            if settlement is Settlement.ACK:
                self._acknowledge(ranges)
                continue
            positions: dict[Held, list[int]] = {}
            for held, start, stop in ranges:
                positions.setdefault(held, []).extend(range(start, stop))
            for held, indexes in positions.items():
                answer = self._policy.decide(settlement, delay, cause, held.deliveries)
                history = held.history.after(held.at, held.deliveries, cause)
                for each in [[index] for index in indexes] if held.single else [indexes]:
                    if isinstance(answer, Cause):
                        self._give_up(held, each, answer, held.deliveries, history)
                    else:
                        self._part(held, each, held.select(each), answer, held.deliveries, history)

    def take_done(self) -> list[Any]:
        """Return the tokens of messages that the broker may forget, and forget them here."""
        done = [token for tokens in self.done.values() for token in tokens]
        self.done.clear()
        return done

    def take_unacked(self) -> list[Unacked]:
        """Return what was not acknowledged, and forget it here. A driver whose writes may fail removes from `unacked` what it has written instead."""
        unacked, self.unacked = self.unacked, []
        return unacked

    def _acknowledge(self, ranges: list[tuple[Held, int, int]]) -> None:
        for held, start, stop in ranges:
            if held.single:
                self.done.setdefault(held.origin, []).extend(held.tokens[start:stop])
                if not held.remaining:
                    self.held.pop(held, None)
            elif held in self.held:  # else an earlier range has finished it
                self._finish(held, None)

    def _finish(self, held: Held, index: int | None) -> None:
        """Note that an event, or a message without any, needs nothing more."""
        if held.single and index is not None:
            self.done.setdefault(held.origin, []).append(held.tokens[index])
        elif not held.remaining and any(part.held is held for part in self.unacked):
            # acknowledged before the parts of it are written, they would be lost
            self.unacked.append(Unacked(held, held.tokens, True, None, 0, None, held.deliveries, held.history))
        elif not held.remaining:
            self.done.setdefault(held.origin, []).append(held.tokens[0])
        if not held.remaining:
            self.held.pop(held, None)

    def _give_up(
        self, held: Held, indexes: Sequence[int], cause: Cause, deliveries: int, history: DeliveryHistory
    ) -> None:
        for index in indexes:
            held.settle(index)
        frame = None
        if self._policy.request.dead_letter_topic is not None:
            of = held.frame
            records = [self._policy.dead_letter(of, index, cause, deliveries, history) for index in indexes]
            frame = kernel.build_frame(of.source, of.type, of.topic, records)
        elif cause.reason == "dropped":
            self.dropped += len(indexes)
        else:
            self._policy.log_lost(len(indexes), cause)
        self._part(held, indexes, frame, None, deliveries, history)

    def _refuse(self, held: Held, cause: Cause) -> None:
        """Have a message that cannot be read become a dead letter, or come again: a newer member may read it."""
        settlement = Settlement.DROP if self._policy.request.dead_letter_topic else Settlement.RETRY
        answer = self._policy.decide(settlement, None, cause, held.deliveries)
        again = isinstance(answer, int)
        then = "is tried again" if again else "becomes a dead letter" if settlement is Settlement.DROP else "is dropped"
        name = self._policy.label
        repeated(f"poison {name}", "%s: a message cannot be read and %s: %s", name, then, cause.error)
        history = held.history.after(time_ns() // 1000, held.deliveries, cause)
        if isinstance(answer, Cause):
            self._give_up(held, range(held.length), answer, held.deliveries, history)
        else:
            held.settle(0)
            self._part(held, (0,), held.select((0,)), answer, held.deliveries, history)

    def _part(
        self,
        held: Held,
        indexes: Sequence[int],
        frame: bytes | None,
        delay: int | None,
        deliveries: int,
        history: DeliveryHistory,
    ) -> None:
        tokens = [held.tokens[index] for index in indexes] if held.single else held.tokens
        self.unacked.append(
            Unacked(held, tokens, held.single or not held.remaining, frame, len(indexes), delay, deliveries, history)
        )
        if not held.remaining:
            self.held.pop(held, None)

    def release(self, which: Callable[[Held], bool] = lambda held: True) -> None:
        """Make parts of all that is left, which the member did not hand out: it does not count as a delivery."""
        for held in list(filter(which, self.held)):
            self._rest(held, held.open(0, held.length), held.deliveries - 1)
        self._ready = deque(held for held in self._ready if held.remaining)

    def release_begun(self, handed: Sequence[Any]) -> None:
        """Make parts of what is left of messages that come again as a whole otherwise, though something of them is settled. ``handed``: events that somebody has; only these count as delivered."""
        for held in list(self.held):
            if not held.single and held.remaining < held.length:
                theirs = {each.position for each in handed if each.marks is held}
                indexes = held.open(0, held.length)
                self._rest(held, [index for index in indexes if index in theirs], held.deliveries)
                self._rest(held, [index for index in indexes if index not in theirs], held.deliveries - 1)

    def _rest(self, held: Held, indexes: Sequence[int], deliveries: int) -> None:
        if indexes:
            for index in indexes:
                held.settle(index)
            self._part(held, indexes, held.select(indexes), 0, deliveries, held.history)

    def forget(self, origin: Hashable = None) -> None:
        """Hold nothing, or nothing of an origin: what was held is delivered again, and settlements of it are void."""
        for held in list(self.held):
            if origin is None or held.origin == origin:
                held.void = True
                del self.held[held]
        self._ready = deque(held for held in self._ready if not held.void)

    def withhold(self, origin: Hashable) -> None:
        """Deliver nothing more of an origin, and have the service give back what nobody has taken."""
        for held in self.held:
            if held.origin == origin:
                held.leaving = True
                held.released.update(held.open(held.next, held.length))
        self._ready = deque(held for held in self._ready if held.origin != origin)

    def is_drained(self, origin: Hashable) -> bool:
        """Return whether nobody has anything of an origin that is not settled."""
        return all(held.remaining <= len(held.released) for held in self.held if held.origin == origin)

    def lose(self, origin: Hashable, tokens: set[Any]) -> None:
        """Let go of messages that have gone to another member; settlements of them are void."""
        for held in list(self.held):
            if held.origin != origin or tokens.isdisjoint(held.tokens):
                continue
            for index in range(held.length):
                if held.tokens[index if held.single else 0] in tokens:
                    held.settle(index)
                    held.holes = True
            if not held.remaining:
                held.void = True
                del self.held[held]

    def leave(self, origin: Hashable) -> bool:
        """Let go of what was not delivered of an origin; returns whether anything delivered is left."""
        self._ready = deque(held for held in self._ready if held.origin != origin)
        has_delivered = False
        for held in [held for held in self.held if held.origin == origin]:
            held.leaving = True
            if held.next == held.length:
                has_delivered = True
                continue
            if held.single:
                for index in held.open(held.next, held.length):
                    held.settle(index)
                held.next = held.length
            else:  # it comes again as a whole
                held.void = True
            if held.remaining and not held.void:
                has_delivered = True
            else:
                del self.held[held]
        return has_delivered

    def tokens(self, origin: Hashable) -> Iterator[Any]:
        """Return the tokens of the messages of an origin that have anything left."""
        for held in self.held:
            if held.origin == origin:
                if held.single:
                    yield from (held.tokens[index] for index in held.open(0, held.length))
                else:
                    yield held.tokens[0]
