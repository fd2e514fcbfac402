"""``client.admin`` on NATS: dead letters are removed and delivered again, topics are purged, groups moved, and both deleted.

The server deletes single messages, but in no batch with others. So a message has a claim, and one atomic batch writes it together with what is published in the message's place. A batch is refused where there is a claim. So whoever finds one deletes the message, and of all who want it gone one publishes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from math import inf
from time import sleep
from typing import Final, NamedTuple

from ...errors import ConflictError, UnsupportedError
from ...spi.admin import Position, Target
from ...spi.broker.in_flight import Held
from ...spi.broker.mending import BACK, group_is_gone, has_members, sent_back
from ...spi.broker.policy import LATEST, DeliveryHistory
from ...spi.broker.redelivery import write_history
from ...spi.broker.showing import Shown, all_parts, in_order, milliseconds
from ...spi.events import EventRecord
from ...spi.operation import Operation
from ...spi.pubsub import Delivery, SubscribeRequest
from .admin import NatsAdmin, position_of, taken, unless_absent
from .buckets import write_all
from .consumers import begin_policy
from .entries import API, Put, read_leaders, read_reply
from .failures import NO_BATCHES, NO_SEQUENCE, WRONG_SEQUENCES, ServerError
from .messages import DUE, PAST, TOPIC
from .parts import GroupParts, Place
from .protocol import Message
from .requests import Batch, Flow, Request
from .streams import END, MAIN, RETRY

_TOGETHER: Final = 300
"""Messages that one batch removes; it may have 1,000 writes."""
_SCHEDULED: Final = "Nats-Schedule-Target"
_ASKS: Final = 0.2
"""Seconds within which a new member has asked for messages."""


class _Removal(NamedTuple):
    """Message that goes.

    Attributes:
        sequence: of it.
        events: how many of it were to go.
        puts: what is published in its place.
    """

    sequence: int
    events: int
    puts: Sequence[Put] = ()


class NatsMender(NatsAdmin):
    """The topics of a pub/sub name, and what mends them."""

    def _parts(self, topic: str, group: str) -> GroupParts:
        return GroupParts(self._engine, self._driver.name, topic, group)

    # -- removing ---------------------------------------------------------

    def remove(self, op: Operation, topic: str, letters: Sequence[Delivery], to: Target | None, /) -> int:
        return self._engine.run(op, unless_absent(self._remove(topic, letters, to), 0))

    def _remove(self, topic: str, letters: Sequence[Delivery], to: Target | None) -> Flow[int]:
        picked: dict[int, dict[int, EventRecord]] = {}
        for record, (token, index), *_ in letters:
            picked.setdefault(position_of(token), {})[index] = record
        targets: dict[tuple[str, str], str] = {}
        if to:
            for target in {sent_back(record, to)[0] for record, *_ in letters}:
                targets[target] = yield from self._place_of(*target)
        removals = []
        for message in (yield from self._messages(picked)):
            sequence = int(message.headers["Nats-Sequence"])
            for held in taken(Shown(topic, self._id), MAIN, [message]).held:
                puts = (
                    [self._put(targets, *sent_back(record, to)) for record in picked[sequence].values()] if to else []
                )
                left = [index for index in range(held.length) if index not in picked[sequence]]
                if left:
                    headers = {TOPIC: held.frame.topic}
                    puts.append(Put(self._stream.topic(topic), held.frame.select(left), headers=headers))
                removals.append(_Removal(sequence, len(picked[sequence]), puts))
        removed = yield from self._remove_all(removals)
        ids = {(record.id, record.extensions.get("dlgroup")) for record, *_ in letters}
        for subject, behind in (yield from self._again(topic)):
            yield from self._forget(
                topic, subject, behind, END, lambda event, _: (event.id, event.extensions.get("dlgroup")) in ids
            )
        return removed

    def _put(self, targets: Mapping[tuple[str, str], str], target: tuple[str, str], frame: bytes) -> Put:
        if target[1]:
            return Put(targets[target], frame, headers={PAST: write_history(0, BACK)})
        ((_, data),) = self._driver.messages([frame], raw=False)
        return Put(targets[target], data)

    def _place_of(self, topic: str, group: str) -> Flow[str]:
        """Return the subject of what goes to a group, or to all groups of a topic."""
        if not group:
            return self._stream.topic(topic)
        place = yield from self._parts(topic, group).find()
        if place is not None:
            return self._stream.back(place.log)
        known = {each["name"] for each in (yield from self._stream.consumers())}
        if not known.issuperset(self._stream.consumer(origin, topic, group) for origin in (MAIN, RETRY)):
            raise group_is_gone(self._driver.name, topic, group)
        return self._stream.subject(RETRY, topic, group)

    def _messages(self, sequences: Iterable[int]) -> Flow[list[Message]]:
        """Return messages that are still there."""
        subject = f"{API}DIRECT.GET.{self._stream.name}"
        answers = yield Batch(*(Request(subject, json.dumps({"seq": each}).encode()) for each in sequences))
        return [message for (message,) in answers if not message.status]

    def _remove_all(self, removals: Sequence[_Removal]) -> Flow[int]:
        """Remove messages, each with what is published in its place; returns how many events went by this."""
        count, rest = 0, iter(removals)
        while chunk := list(islice(rest, _TOGETHER)):
            left = chunk
            while left and not (yield from self._commit(left)):
                claimed = yield from self._claimed(left)
                left = [each for each in left if each.sequence not in claimed]
            count += sum(each.events for each in left)
            yield from self._delete(each.sequence for each in chunk)
        return count

    def _commit(self, removals: Sequence[_Removal]) -> Flow[bool]:
        """Claim messages and publish what is in their place; ``False``: another has claimed some of them."""
        puts = [Put(self._stream.claim(each.sequence), b"", 0) for each in removals]
        try:
            yield from write_all([*puts, *(put for each in removals for put in each.puts)])
        except ServerError as error:
            if error.code in WRONG_SEQUENCES:
                return False
            if error.code == NO_BATCHES:
                raise UnsupportedError(
                    f"nats {self._engine.where}: the stream {self._stream.name!r} lacks allow_atomic: "
                    "set it by nats stream edit, or by STREAM.UPDATE"
                ) from error
            raise
        return True

    def _claimed(self, removals: Sequence[_Removal]) -> Flow[set[int]]:
        subject = f"{API}STREAM.MSG.GET.{self._stream.name}"
        asked = [{"last_by_subj": self._stream.claim(each.sequence)} for each in removals]
        answers = yield Batch(*(Request(subject, json.dumps(each).encode()) for each in asked))
        entries = [read_leaders(message) for (message,) in answers]
        return {each.sequence for each, entry in zip(removals, entries, strict=True) if entry.sequence}

    def _delete(self, sequences: Iterable[int]) -> Flow[None]:
        subject = f"{API}STREAM.MSG.DELETE.{self._stream.name}"
        bodies = [json.dumps({"seq": each, "no_erase": True}).encode() for each in sequences]
        for (message,) in (yield Batch(*(Request(subject, body) for body in bodies), writes=True)) if bodies else ():
            try:
                read_reply(message)
            except ServerError as error:
                if error.code != NO_SEQUENCE and "message found" not in error.text:  # an error of several numbers
                    raise

    # -- what comes again -------------------------------------------------

    def _again(self, topic: str) -> Flow[list[tuple[str, int]]]:
        """Return the subjects of what comes again for the groups of a topic, and up to where each has settled all."""
        known = {each["name"]: each for each in (yield from self._stream.consumers())}
        of = [name for name, each in known.items() if each["config"].get("filter_subject") == self._stream.topic(topic)]
        both = [known[f"{name}=again"] for name in of if f"{name}=again" in known]
        return [(each["config"]["filter_subject"], each["ack_floor"]["stream_seq"]) for each in both]

    def _forget(
        self, topic: str, subject: str, behind: int, last: int, goes: Callable[[EventRecord, DeliveryHistory], bool]
    ) -> Flow[None]:
        """Remove some of the events that come again."""
        while messages := (yield from self._stream.read(subject, behind, last)):
            removals = []
            for message in messages:
                behind = int(message.headers["Nats-Sequence"])
                for held in taken(Shown(topic, self._id), RETRY, [message]).held:
                    left = [index for index in range(held.length) if not goes(held.frame[index], held.history)]
                    if len(left) < held.length:
                        rest = [_rest(message, held, left, subject)] if left else []
                        removals.append(_Removal(behind, held.length - len(left), rest))
            yield from self._remove_all(removals)

    # -- purging ----------------------------------------------------------

    def purge(self, op: Operation, topic: str, before: datetime | None, dry_run: bool, /) -> int:
        limit = None if before is None else milliseconds(before)
        return self._engine.run(op, unless_absent(self._purge(topic, limit, dry_run), 0))

    def _purge(self, topic: str, limit: int | None, dry_run: bool) -> Flow[int]:
        stream, subject = self._stream, self._stream.topic(topic)
        last = yield from stream.place(topic, LATEST if limit is None else limit)
        if dry_run:
            return (yield from stream.count(subject, 0)) - (yield from stream.count(subject, last))
        purged: int = (yield from stream.clear(subject, last))["purged"]
        until = inf if limit is None else limit * 1000
        for again, behind in (yield from self._again(topic)):
            yield from self._forget(
                topic, again, behind, last, lambda event, history: event.time_us < until and not history.redriven
            )
        return purged

    # -- moving -----------------------------------------------------------

    def seek(self, op: Operation, topic: str, group: str, to: Position, /) -> bool:
        begins = milliseconds(to) if isinstance(to, datetime) else {"earliest": None, "latest": LATEST}[to]
        run = self._engine.run
        if (place := run(op, self._parts(topic, group).find())) is None:
            return run(op, unless_absent(self._seek(topic, group, begins), False))
        self._check_order_unused(op, topic, group, place)
        if not run(op, self._seek_in_order(topic, group, place, begins)):
            raise self._in_use(topic, group, ["one that came just now"])
        return True

    def _seek(self, topic: str, group: str, begins: int | None) -> Flow[bool]:
        """Make the consumer of a group anew."""
        stream = self._stream
        name, again = (stream.consumer(origin, topic, group) for origin in (MAIN, RETRY))
        known = {each["name"]: each for each in (yield from stream.consumers())}
        if name not in known:
            return False
        last = yield from stream.last()
        request = SubscribeRequest(topic, group, None, None, None, None, False, None)
        policy, wanted = "", begin_policy(begins)["deliver_policy"]
        while policy != wanted:  # else a member was faster, which makes it from the beginning
            yield from stream.remove(name)
            ack_wait_ms = known[name]["config"]["ack_wait"] // 1_000_000
            yield from stream.join_origin(MAIN, request, ack_wait_ms, begins, moves=True)
            policy = (yield from stream.api("CONSUMER.INFO", None, f".{name}"))["config"]["deliver_policy"]
        if known[name].get("paused"):
            yield from stream.pause(topic, group, True)
        if again in known:
            subject, floor = stream.subject(RETRY, topic, group), known[again]["ack_floor"]["stream_seq"]
            yield from self._forget(topic, subject, floor, last, lambda _, history: not history.redriven)
        return True

    def _seek_in_order(self, topic: str, group: str, place: Place, begins: int | None) -> Flow[bool]:
        """Move a group without members. What was sent back to it and is not settled must be behind its new place, what is settled must not."""
        parts, subject = self._parts(topic, group), self._stream.back(place.log)
        survey = yield from parts.survey(place)
        start = yield from self._stream.place(topic, begins)
        in_flight = all_parts(topic, [each.progress for each in survey.parts] if survey else [], position_of, self._id)
        messages: dict[int, Message] = {}
        behind = 0
        while page := (yield from self._stream.read(subject, behind, END)):
            in_flight.read_after(behind)
            taken(in_flight, MAIN, page, deliveries=1)
            behind = in_flight.read_all()
            messages |= {int(each.headers["Nats-Sequence"]): each for each in page}
        open = {position_of(each.token[0]) for each in in_order(in_flight, position_of)}
        removals = [_Removal(each, 1) for each in messages.keys() - open if each > start]
        for each in sorted(open):
            if each <= start:
                data, headers = messages[each].data, {PAST: write_history(0, BACK)}
                removals.append(_Removal(each, 1, [Put(subject, data, headers=headers)]))
        yield from self._remove_all(removals)
        return (yield from parts.move(place, start))

    # -- deleting ---------------------------------------------------------

    def delete_group(self, op: Operation, topic: str, group: str, dry_run: bool, /) -> int | None:
        lag = self._driver.lag(op, topic, group)
        if lag is not None:
            self._delete_groups(op, topic, [group], dry_run)
        return lag

    def delete_topic(self, op: Operation, topic: str, dry_run: bool, /) -> int | None:
        run, subject = self._engine.run, self._stream.topic(topic)
        groups = [each.name for each in self.groups(op, topic)]
        count = run(op, unless_absent(self._stream.count(subject, 0), 0))
        if not count and not groups:
            return None
        self._delete_groups(op, topic, groups, dry_run)
        if not dry_run:
            run(op, self._stream.clear(subject))
            run(op, self._forget_delayed(subject))
        return count

    def _forget_delayed(self, subject: str) -> Flow[None]:
        behind = 0
        while messages := (yield from self._stream.read(self._stream.delayed(">"), behind, END)):
            behind = int(messages[-1].headers["Nats-Sequence"])
            of = [each.headers for each in messages if each.headers.get(_SCHEDULED) == subject]
            yield from self._delete(int(each["Nats-Sequence"]) for each in of)

    def _delete_groups(self, op: Operation, topic: str, groups: Sequence[str], dry_run: bool) -> None:
        run = self._engine.run
        places = {group: run(op, self._parts(topic, group).find()) for group in groups}
        sleep(_ASKS)
        for group, place in places.items():
            if place is not None:
                self._check_order_unused(op, topic, group, place)
            elif members := run(op, self._members(topic, group)):
                raise self._in_use(topic, group, members)
        for group, place in () if dry_run else places.items():
            if place is None:
                run(op, self._delete_consumers(topic, group))
            elif not run(op, self._parts(topic, group).delete(place)):
                raise self._in_use(topic, group, ["one that came just now"])
            else:
                run(op, self._stream.clear(self._stream.back(place.log)))

    def _members(self, topic: str, group: str) -> Flow[list[str]]:
        """Return the members of a group without an order, as far as they have a name: those that wait for messages have none."""
        names = [self._stream.consumer(origin, topic, group) for origin in (MAIN, RETRY)]
        waiting = sum(each["num_waiting"] for each in (yield from self._stream.consumers()) if each["name"] in names)
        found = yield from self._stream.present(names[0])
        return [*found, *([f"{waiting} requests for messages"] if waiting else [])]

    def _delete_consumers(self, topic: str, group: str) -> Flow[None]:
        for origin in (RETRY, MAIN):  # one without the other is a group whose move was interrupted
            yield from self._stream.remove(self._stream.consumer(origin, topic, group))
        yield from self._stream.clear(self._stream.subject(RETRY, topic, group))

    def _check_order_unused(self, op: Operation, topic: str, group: str, place: Place) -> None:
        survey = self._engine.run(op, self._parts(topic, group).survey(place))
        if survey is not None and survey.live:
            raise self._in_use(topic, group, list(survey.live))

    def _in_use(self, topic: str, group: str, members: Sequence[str]) -> ConflictError:
        return has_members(self._driver.name, topic, group, members, 30)


def _rest(message: Message, held: Held, left: Sequence[int], subject: str) -> Put:
    """Return what is left of a message that comes again."""
    headers = {PAST: write_history(held.deliveries, held.history)}
    if due := message.headers.get(DUE):
        headers[DUE] = due
    return Put(subject, held.select(left), headers=headers)
