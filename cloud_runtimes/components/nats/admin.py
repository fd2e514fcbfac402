"""``client.admin`` on NATS: what the server tells of the stream and its consumers. Messages are read past consumers."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...spi.admin import GroupInfo, Position, PubSubAdmin, TopicInfo
from ...spi.broker.in_flight import InFlight
from ...spi.broker.policy import member_info
from ...spi.broker.showing import Shown, all_parts, in_order, is_full, milliseconds, oldest_of, time_of
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .entries import API, read_direct
from .failures import NO_STREAM, ServerError
from .messages import Reader, sequence_of
from .parts import GroupParts, Survey, groups_in_order
from .protocol import Message
from .requests import Batch, Flow, Request
from .streams import END, MAIN, RETRY

if TYPE_CHECKING:
    from .pubsub import NatsPubSub

R = TypeVar("R")
T = TypeVar("T", bound=InFlight)
_PAGE: Final = 200
"""Messages, or topics, that are asked for at once."""


class NatsAdmin(PubSubAdmin):
    """The topics of a pub/sub name."""

    def __init__(self, driver: NatsPubSub) -> None:
        self._driver = driver
        self._stream = driver.stream
        self._engine = driver.component.engine

    # -- topics and groups ------------------------------------------------

    def topics(self, op: Operation, prefix: str, limit: int, /) -> Sequence[TopicInfo]:
        return self._engine.run(op, unless_absent(self._topics(prefix, limit), []))

    def names(self, op: Operation, limit: int, /) -> Sequence[str]:
        names, *_ = self._engine.run(op, unless_absent(self._subjects(), ({},)))
        return sorted(names)[:limit]

    def _subjects(self) -> Flow[tuple[dict[str, str], dict[str, int], Counter[str]]]:
        """Return topics with their subjects, and how many events and groups subjects have."""
        stream = self._stream
        events: dict[str, int] = {}
        while True:
            info = yield from stream.api("STREAM.INFO", {"subjects_filter": stream.topics, "offset": len(events)})
            page = info["state"].get("subjects") or {}
            events |= page
            if not page or len(events) >= info.get("total", 0):
                break
        counts = Counter(subject for subject, _ in (yield from self._consumers()))
        counts.update(stream.topic(topic) for topic, _ in (yield from self._in_order()))
        return {stream.topic_of(subject): subject for subject in {*events, *counts}}, events, counts

    def _topics(self, prefix: str, limit: int) -> Flow[list[TopicInfo]]:
        names, events, counts = yield from self._subjects()
        wanted = sorted(name for name in names if name.startswith(prefix))[:limit]
        found: list[TopicInfo] = []
        for start in range(0, len(wanted), _PAGE):
            some = wanted[start : start + _PAGE]
            ends = [
                end for name in some for end in ({"seq": 1, "next_by_subj": names[name]}, {"last_by_subj": names[name]})
            ]
            times = yield from self._times(ends)
            for number, name in enumerate(some):
                first, last = times[2 * number : 2 * number + 2]
                subject = names[name]
                found.append(TopicInfo(name, events.get(subject, 0), None, first, last, counts[subject]))
        return found

    def _times(self, wanted: Sequence[dict[str, Any]]) -> Flow[list[datetime | None]]:
        """Return when messages were published."""
        subject = f"{API}DIRECT.GET.{self._stream.name}"
        answers = yield Batch(*(Request(subject, json.dumps(each).encode()) for each in wanted))
        entries = [read_direct(message) for (message,) in answers]
        return [time_of(entry.written_ms) if entry.sequence else None for entry in entries]

    def _consumers(self) -> Flow[list[tuple[str, dict[str, Any]]]]:
        """Return the consumers of topics, each with the subject: groups without an order."""
        known = yield from self._stream.consumers()
        root = self._stream.topics[:-1]
        of = [(each["config"].get("filter_subject", ""), each) for each in known if "durable_name" in each["config"]]
        return [(subject, each) for subject, each in of if subject.startswith(root)]

    def _in_order(self) -> Flow[list[tuple[str, str]]]:
        return groups_in_order(self._engine, self._driver.name)

    def groups(self, op: Operation, topic: str, /) -> Sequence[GroupInfo]:
        return self._found(op, topic)

    def backlogs(self, op: Operation, limit: int, /) -> Sequence[GroupInfo]:
        return self._found(op, None)

    def _found(self, op: Operation, only: str | None) -> list[GroupInfo]:
        """Return the groups of a topic, ``None``: of all."""
        found = self._engine.run(op, unless_absent(self._groups(only), []))
        in_order = self._engine.run(op, self._in_order())
        for topic, name in [each for each in in_order if only in (each[0], None)]:
            survey = self._engine.run(op, self._survey(topic, name))
            if survey is not None:
                left = self._engine.run(op, self._unsettled_in_order(topic, survey, 1))
                members = tuple(member_info(member, None) for member in sorted(survey.live))
                lag = self._driver.lag(op, topic, name)
                parts = GroupParts(self._engine, self._driver.name, topic, name)
                paused = self._engine.run(op, parts.is_paused())
                found.append(GroupInfo(topic, name, lag, oldest_of(left), None, members, paused=paused, order="key"))
        return sorted(found, key=lambda group: (group.topic, group.name))

    def _groups(self, only: str | None) -> Flow[list[GroupInfo]]:
        consumers = yield from self._stream.consumers()
        known = {each["name"]: each for each in consumers if "durable_name" in each["config"]}
        root, wanted = self._stream.topics[:-1], []
        for name, info in known.items():
            subject = info["config"].get("filter_subject", "")
            if subject.startswith(root) and (only is None or subject == self._stream.topic(only)):
                topic = self._stream.topic_of(subject) if only is None else only
                wanted.append((topic, name, [info, *filter(None, [known.get(f"{name}=again")])]))
        oldest = yield from self._oldest([(topic, both) for topic, _, both in wanted])
        found = []
        for (topic, name, both), time in zip(wanted, oldest, strict=True):
            held = sum(each["num_ack_pending"] for each in both)
            lag = held + sum(each["num_pending"] for each in both)
            paused = any(each.get("paused", False) for each in both)
            found.append(GroupInfo(topic, self._stream.group_of(name), lag, time, held, None, paused=paused, order=""))
        return found

    def _oldest(self, groups: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> Flow[list[datetime | None]]:
        """Return when the oldest event of each group was published that it has not settled; many are asked for at once."""
        behind = [
            (number, origin, info["config"]["filter_subject"], self._settled_up_to(info))
            for number, (_, both) in enumerate(groups)
            for origin, info in zip((MAIN, RETRY), both, strict=False)
            if info["num_ack_pending"] or info["num_pending"]
        ]
        found: list[datetime | None] = [None] * len(groups)
        for start in range(0, len(behind), _PAGE):
            some = behind[start : start + _PAGE]
            answers = yield Batch(*(self._stream.following(subject, after) for _, _, subject, after in some))
            for (number, origin, *_), (message,) in zip(some, answers, strict=True):
                if not message.status:
                    events = taken(Shown(groups[number][0], self._id), origin, [message]).events()
                    times = filter(None, (found[number], oldest_of(events)))
                    found[number] = min(times, default=None)
        return found

    @staticmethod
    def _settled_up_to(info: dict[str, Any]) -> int:
        """Return the message behind which is the first that a consumer has not settled."""
        floor, delivered = (int(info[each]["stream_seq"]) for each in ("ack_floor", "delivered"))
        return floor if info["num_ack_pending"] else max(delivered, floor)

    def _survey(self, topic: str, group: str) -> Flow[Survey | None]:
        """Return what is known of a group with an order; ``None``: there is none of the name."""
        parts = GroupParts(self._engine, self._driver.name, topic, group)
        place = yield from parts.find()
        return None if place is None else (yield from parts.survey(place))

    def pause(self, op: Operation, topic: str, group: str, paused: bool, /) -> bool:
        parts = GroupParts(self._engine, self._driver.name, topic, group)
        if self._engine.run(op, parts.find()) is None:
            return self._engine.run(op, self._stream.pause(topic, group, paused))
        self._engine.run(op, parts.pause(paused))
        return True

    # -- events -----------------------------------------------------------

    def peek(
        self, op: Operation, topic: str, group: str | None, start: Position, limit: int, /
    ) -> Sequence[Delivery] | None:
        if group is None:
            return self._engine.run(op, unless_absent(self._read(topic, start, limit), []))
        if (survey := self._engine.run(op, self._survey(topic, group))) is not None:
            return self._engine.run(op, self._unsettled_in_order(topic, survey, limit))
        return self._engine.run(op, unless_absent(self._unsettled_of(topic, group, limit), None))

    def _read(self, topic: str, start: Position, limit: int) -> Flow[list[Delivery]]:
        subject = self._stream.topic(topic)
        if start == "latest":
            return (yield from self._latest(topic, limit))
        behind, after = 0, None
        if isinstance(start, datetime):
            behind = yield from self._stream.place(topic, milliseconds(start))
        elif start != "earliest":
            behind, after = int(sequence_of(start[0])) - 1, start
        return (yield from self._from(topic, MAIN, subject, behind, END, limit, after))

    def _from(
        self,
        topic: str,
        origin: int,
        subject: str,
        behind: int,
        last: int,
        limit: int,
        after: tuple[bytes, int] | None = None,
    ) -> Flow[list[Delivery]]:
        found: list[Delivery] = []
        while not is_full(found, limit):
            messages = yield from self._stream.read(subject, behind, last, min(limit, _PAGE))
            if not messages:
                break
            found += taken(Shown(topic, self._id), origin, messages).events(after)
            behind = int(messages[-1].headers["Nats-Sequence"])
        return found[:limit]

    def _latest(self, topic: str, limit: int) -> Flow[list[Delivery]]:
        last, back = (yield from self._stream.last()), limit
        while True:
            kept: deque[Message] = deque(maxlen=limit)
            behind = begin = max(0, last - back)
            while messages := (yield from self._stream.read(self._stream.topic(topic), behind, last)):
                kept.extend(messages)
                behind = int(messages[-1].headers["Nats-Sequence"])
            if len(kept) >= limit or not begin:
                return taken(Shown(topic, self._id), MAIN, kept).events()[-limit:]
            back *= 8  # other topics have messages between

    def _unsettled_of(self, topic: str, group: str, limit: int) -> Flow[list[Delivery] | None]:
        name = self._stream.consumer(MAIN, topic, group)
        known = {each["name"]: each for each in (yield from self._stream.consumers())}
        if name not in known:
            return None
        return (yield from self._unsettled([known[name], *filter(None, [known.get(f"{name}=again")])], topic, limit))

    def _unsettled(self, consumers: Sequence[dict[str, Any]], topic: str, limit: int) -> Flow[list[Delivery]]:
        """Return what a group has not settled. Of what is delivered the server tells the first that is not acknowledged, and how many are: the others are shown where these are all."""
        held: list[Delivery] = []
        fresh: list[Delivery] = []
        for origin, info in zip((MAIN, RETRY), consumers, strict=False):
            subject, floor = info["config"]["filter_subject"], info["ack_floor"]["stream_seq"]
            delivered = info["delivered"]["stream_seq"]
            if pending := info["num_ack_pending"]:
                want = 1 if limit == 1 else pending + 1
                first = yield from self._from(topic, origin, subject, floor, delivered, want)
                whole = len({each.token[0] for each in first}) == pending
                held += [each._replace(deliveries=None) for each in (first if whole else first[:1])]
            fresh += yield from self._from(topic, origin, subject, max(delivered, floor), END, limit)
        return [*held, *fresh][:limit]

    def _unsettled_in_order(self, topic: str, survey: Survey, limit: int) -> Flow[list[Delivery]]:
        places = [its.progress for its in survey.parts]
        in_flight = all_parts(topic, places, position_of, self._id)
        position = min(each.done for each in places)
        read, log = self._stream.read_log, survey.place.log
        while in_flight.count < limit and (messages := (yield from read(topic, log, position, END, _PAGE))):
            in_flight.read_after(position)
            taken(in_flight, MAIN, messages, deliveries=1)
            in_flight.read_all()
            position = int(messages[-1].headers["Nats-Sequence"])
        return in_order(in_flight, position_of)[:limit]

    def _id(self, token: bytes) -> str:
        return f"{self._stream.name}-{sequence_of(token)}"


def unless_absent(flow: Flow[R], default: R) -> Flow[R]:
    """Return what a flow does, or something else where there is no stream."""
    try:
        return (yield from flow)
    except ServerError as error:
        if error.code == NO_STREAM:
            return default
        raise


def taken(in_flight: T, origin: int, messages: Iterable[Message], deliveries: int = 0) -> T:
    """Take in messages that were read past a consumer, as if one had delivered them so often."""
    tokens = ((each, f"$JS.ACK.s.c.{deliveries}.{each.headers['Nats-Sequence']}.1.0.0") for each in messages)
    Reader(in_flight).take(origin, [each._replace(reply=token.encode()) for each, token in tokens], END)
    return in_flight


def position_of(token: bytes) -> int:
    return int(sequence_of(token))
