"""``client.admin`` on Redis: what the server tells of streams and their groups, read by commands that change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ...spi.admin import GroupInfo, MemberInfo, Position, PubSubAdmin, TopicInfo
from ...spi.broker.policy import member_info
from ...spi.broker.showing import Shown, all_parts, in_order, is_full, milliseconds, oldest_of, time_of
from ...spi.operation import Operation
from ...spi.pubsub import Delivery
from .engine import Script
from .entries import RETRY, STREAM, take_in
from .failures import checked
from .ordered import id_of, position_of, progress_of
from .resp import Batch, Flow, ReplyError, Value
from .scanning import pages, scan
from .streams import PROGRESS, GroupKeys

if TYPE_CHECKING:
    from .pubsub import RedisPubSub

PAGE: Final = 200
"""Entries, or topics, that are asked for at once."""
# KEYS: a stream. ARGV: an entry. Returns the id of the one behind it, without what it holds
_FIRST: Final = Script(
    "local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)\nreturn found[1] and found[1][1]",
    flags="no-writes",
)
DIGITS: Final = 22
"""Of what stands before a message that waits, see `streams`."""


class RedisAdmin(PubSubAdmin):
    """The topics of a pub/sub name."""

    def __init__(self, driver: RedisPubSub) -> None:
        self._driver = driver
        self._engine = driver.component.engine

    # -- topics and groups ------------------------------------------------

    def topics(self, op: Operation, prefix: str, limit: int, /) -> Sequence[TopicInfo]:
        return self._engine.run(op, self._topics(prefix, limit))

    def _topics(self, prefix: str, limit: int) -> Flow[list[TopicInfo]]:
        head = self._driver.keys("").stream
        names = {prefix.encode() + rest for rest in (yield from scan(head + prefix.encode()))}
        found, wanted = [], sorted(names)[:limit]
        for start in range(0, len(wanted), PAGE):
            some = [name.decode() for name in wanted[start : start + PAGE]]
            replies = yield Batch(*(("XINFO", "STREAM", self._driver.keys(name).stream) for name in some), key=head)
            found += [
                _topic(name, _fields(reply)) for name, reply in zip(some, replies, strict=True) if _is_there(reply)
            ]
        return found

    def groups(self, op: Operation, topic: str, /) -> Sequence[GroupInfo]:
        names = sorted(self._engine.run(op, self._names(topic)))
        return [self._group(op, topic, name) for name in names]

    def backlogs(self, op: Operation, limit: int, /) -> Sequence[GroupInfo]:
        found, others = self._engine.run(op, self._backlogs(limit))
        return found + [self._group(op, topic, name) for topic, name in others]

    def _backlogs(self, limit: int) -> Flow[tuple[list[GroupInfo], list[tuple[str, str]]]]:
        """Return groups that the server tells all of, and others, of which more must be asked: with an order, or with events that come again."""
        names = yield from scan(self._driver.keys("").stream)
        groups: list[tuple[str, dict[str, Any]]] = []
        for some in pages(sorted(name.decode() for name in names)[:limit]):
            replies = yield Batch(*(("XINFO", "GROUPS", self._driver.keys(topic).stream) for topic in some))
            groups += [
                (topic, _fields(each))
                for topic, reply in zip(some, replies, strict=True)
                if _is_there(reply)
                for each in reply
            ]
        found: list[GroupInfo] = []
        others: list[tuple[str, str]] = []
        for few in pages(groups):
            replies = yield Batch(*(ask for topic, info in few for ask in self._asks(topic, info)))
            for (topic, info), *told in zip(few, *(replies[each::6] for each in range(6)), strict=True):
                if not _is_there(told[0]):  # deleted meanwhile
                    continue
                pending, ordered, again, later, paused, first = checked(told)
                name = info["name"].decode()
                if ordered or again or later or info.get("lag") is None:
                    others.append((topic, name))
                    continue
                oldest = min((id for id in (pending[1], first) if id), key=position_of, default=None)
                time = None if oldest is None else time_of(int(oldest.partition(b"-")[0]))
                lag = info["lag"] + info["pending"]
                found.append(GroupInfo(topic, name, lag, time, info["pending"], None, paused=bool(paused), order=""))
        return found, others

    def _asks(self, topic: str, info: dict[str, Any]) -> list[tuple[Value, ...]]:
        """Return what is asked of a group."""
        keys, name = self._driver.keys(topic), info["name"].decode()
        own = GroupKeys.of(keys, name)
        return [
            ("XPENDING", keys.stream, name),
            ("EXISTS", own.parts),
            ("XLEN", own.retry),
            ("ZCARD", own.later),
            ("SISMEMBER", keys.paused, name),
            _FIRST.command((keys.stream,), info["last-delivered-id"], whole=True),
        ]

    def _names(self, topic: str) -> Flow[list[str]]:
        stream = self._driver.keys(topic).stream
        (reply,) = yield Batch(("XINFO", "GROUPS", stream), key=stream)
        return [_fields(each)["name"].decode() for each in reply] if _is_there(reply) else []

    def _group(self, op: Operation, topic: str, name: str) -> GroupInfo:
        parts = self._engine.run(op, self._parts(topic, name))
        is_ordered = parts is not None
        members = self._engine.run(op, self._members(topic, name, is_ordered=is_ordered))
        keys = self._driver.keys(topic)
        (paused,) = checked(self._engine.run(op, _asked(Batch(("SISMEMBER", keys.paused, name), key=keys.stream))))
        return GroupInfo(
            topic,
            name,
            self._driver.lag(op, topic, name),
            self._engine.run(op, self._oldest(topic, name, parts)),
            None if is_ordered else sum(each.in_flight or 0 for each in members),
            members,
            paused=bool(paused),
            order="key" if is_ordered else "",
        )

    def _oldest(self, topic: str, name: str, parts: list[bytes] | None) -> Flow[datetime | None]:
        """Return when the oldest event was published that a group has not settled; ``None`` also where much of it comes again, which is in no order."""
        if parts is not None:
            found = (yield from self._unsettled_in_order(topic, name, 1, parts))[:1]
        else:
            found, last = yield from self._held(topic, name, PAGE)
            if len(found) >= PAGE:
                return None
            found += yield from self._entries(topic, b"(" + last, 1)
        return oldest_of(found)

    def _parts(self, topic: str, group: str) -> Flow[list[bytes] | None]:
        """Return the progress of the parts of a group; ``None``: it has no order."""
        reply: list[bytes] | None = yield from PROGRESS.run((GroupKeys.of(self._driver.keys(topic), group).parts,))
        return reply

    def _members(self, topic: str, group: str, *, is_ordered: bool) -> Flow[tuple[MemberInfo, ...]]:
        keys = self._driver.keys(topic)
        own = GroupKeys.of(keys, group)
        if is_ordered:
            (seconds, _), living = checked(
                (yield Batch(("TIME",), ("ZRANGE", own.members, 0, -1, "WITHSCORES"), key=keys.stream))
            )
            now = int(seconds) * 1000
            names = [name for name, until in zip(living[::2], living[1::2], strict=True) if float(until) > now]
            return tuple(member_info(name.decode(), None) for name in sorted(names))
        held: dict[str, int] = {}
        replies = yield Batch(
            *(("XINFO", "CONSUMERS", stream, group) for stream in (keys.stream, own.retry)), key=keys.stream
        )
        for each in [_fields(each) for reply in replies if _is_there(reply) for each in reply]:
            name = each["name"].decode()
            held[name] = held.get(name, 0) + each["pending"]
        return tuple(member_info(name, count) for name, count in sorted(held.items()))

    def pause(self, op: Operation, topic: str, group: str, paused: bool, /) -> bool:
        if group not in self._engine.run(op, self._names(topic)):
            return False
        keys = self._driver.keys(topic)
        command = ("SADD" if paused else "SREM", keys.paused, group)
        checked(self._engine.run(op, _asked(Batch(command, key=keys.stream))))
        return True

    # -- events -----------------------------------------------------------

    def peek(
        self, op: Operation, topic: str, group: str | None, start: Position, limit: int, /
    ) -> Sequence[Delivery] | None:
        if group is None:
            return self._engine.run(op, self._read(topic, start, limit))
        if group not in self._engine.run(op, self._names(topic)):
            return None
        return self._engine.run(op, self._unsettled(topic, group, limit))

    def _read(self, topic: str, start: Position, limit: int) -> Flow[list[Delivery]]:
        stream, after = self._driver.keys(topic).stream, None
        begin: Value = "-"
        if start == "latest":
            (entries,) = checked((yield Batch(("XREVRANGE", stream, "+", "-", "COUNT", limit))))
            return _shown(topic, STREAM, reversed(entries))[-limit:]
        if isinstance(start, datetime):
            begin = milliseconds(start)
        elif start != "earliest":
            begin, after = start[0], start
        return (yield from self._entries(topic, begin, limit, after))

    def _entries(
        self, topic: str, begin: Value, limit: int, after: tuple[bytes, int] | None = None
    ) -> Flow[list[Delivery]]:
        found: list[Delivery] = []
        while not is_full(found, limit):
            (entries,) = checked(
                (yield Batch(("XRANGE", self._driver.keys(topic).stream, begin, "+", "COUNT", min(limit, PAGE))))
            )
            found += _shown(topic, STREAM, entries, after)
            if len(entries) < min(limit, PAGE):
                break
            begin = b"(" + entries[-1][0]
        return found[:limit]

    def _unsettled(self, topic: str, group: str, limit: int) -> Flow[list[Delivery]]:
        parts = yield from self._parts(topic, group)
        if parts is not None:
            return (yield from self._unsettled_in_order(topic, group, limit, parts))
        found, last = yield from self._held(topic, group, limit)
        if len(found) < limit:
            found += yield from self._entries(topic, b"(" + last, limit - len(found))
        return found[:limit]

    def _held(self, topic: str, group: str, limit: int) -> Flow[tuple[list[Delivery], bytes]]:
        """Return what members hold and what comes again, so many of each, and behind which entry nothing was delivered."""
        keys = self._driver.keys(topic)
        own = GroupKeys.of(keys, group)
        pending, again, later, groups = yield Batch(
            ("XPENDING", keys.stream, group, "-", "+", limit),
            ("XRANGE", own.retry, "-", "+", "COUNT", limit),
            ("ZRANGE", own.later, 0, limit - 1),
            ("XINFO", "GROUPS", keys.stream),
            key=keys.stream,
        )
        if not _is_there(pending) or not _is_there(groups):
            return [], b"0"
        found: list[Delivery] = []
        if pending:
            replies = yield Batch(*(("XRANGE", keys.stream, each[0], each[0]) for each in pending), key=keys.stream)
            for (*_, count), entries in zip(pending, checked(replies), strict=True):
                found += [event._replace(deliveries=count) for event in _shown(topic, STREAM, entries)]
        found += _shown(topic, RETRY, checked([again])[0])
        found += _shown(topic, RETRY, map(as_entry, checked([later])[0]))
        last = next(each["last-delivered-id"] for each in map(_fields, groups) if each["name"] == group.encode())
        return found, last

    def _unsettled_in_order(self, topic: str, group: str, limit: int, parts: list[bytes]) -> Flow[list[Delivery]]:
        places = list(map(progress_of, parts))
        in_flight = all_parts(topic, places, position_of)
        position = min(place.done for place in places)
        while in_flight.count < limit:
            (entries,) = checked(
                (yield Batch(("XRANGE", self._driver.keys(topic).stream, f"({id_of(position)}", "+", "COUNT", PAGE)))
            )
            in_flight.read_after(position)
            take_in(in_flight, STREAM, entries, 1)
            in_flight.read_all()
            if len(entries) < PAGE:
                break
            position = position_of(entries[-1][0])
        found = in_order(in_flight, position_of)[:limit]
        own = GroupKeys.of(self._driver.keys(topic), group)
        (again,) = checked((yield Batch(("XRANGE", own.retry, "-", "+", "COUNT", limit))))
        return [*found, *_shown(topic, RETRY, again)][:limit]


def _asked(batch: Batch) -> Flow[Any]:
    return (yield batch)


def _shown(topic: str, origin: int, entries: Iterable[Any], after: tuple[bytes, int] | None = None) -> list[Delivery]:
    """Return the events of entries, with their deliveries so far."""
    messages = Shown(topic)
    if read := list(entries):
        take_in(messages, origin, read, 0)
    return messages.events(after)


def as_entry(member: bytes) -> tuple[bytes, list[bytes]]:
    """Return a message that waits as an entry, see `streams`."""
    past, kind, data = member[DIGITS:].split(b"\n", 2)
    fields = [b"data", data, b"past", past]
    return member[:DIGITS], [*fields, b"datacontenttype", kind] if kind else fields


def _topic(name: str, info: dict[str, Any]) -> TopicInfo:
    first, last = (info[f"{which}-entry"] for which in ("first", "last"))
    oldest, newest = (None if each is None else time_of(int(each[0].partition(b"-")[0])) for each in (first, last))
    return TopicInfo(name, info["length"], first=oldest, last=newest, groups=info["groups"])


def _fields(reply: Sequence[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _is_there(reply: Any) -> bool:
    """Return whether a stream or a group is there, of which something was asked."""
    if isinstance(reply, ReplyError):
        if "no such key" in str(reply) or str(reply).startswith("NOGROUP"):
            return False
        raise reply
    return True
