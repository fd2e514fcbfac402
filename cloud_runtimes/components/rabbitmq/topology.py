"""Exchanges and queues: an exchange for each topic, a quorum queue for each group, a stream where topics have one, and queues where events wait.

A group whose events come in the order of their keys has several queues instead, behind an exchange of its own that goes by the routing key: the part of the key. What has none goes to one more queue, ``rest``.

A group is paused by a binding: a message with its name as the routing key then has a queue, which keeps nothing. Without the binding the message is returned, and no error is logged.

A delay queue has one time to live for all its messages, else a long one would hold up those behind it. When it is over the server hands a message on to the exchange ``due``, with the routing key that it came with: the queue where it goes then. A delay that no queue has takes several, the longest first; the header `REST` tells what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final

from ...errors import InvalidArgumentError
from ...spi.broker.ordered import PARTS
from .failures import NOT_FOUND, ServerError
from .session import CONFIRMS, Ask, Publish
from .wire import Properties, content, method, properties, read

if TYPE_CHECKING:
    from ...spi.pubsub import SubscribeRequest
    from .engine import Flow, RabbitmqEngine

SHARES: Final = 16
"""Queues of a group with an order for what has a key; each has several parts. So many members share its events at most. With more of them the server does less."""
QUEUES: Final = (*map(str, range(SHARES)), "rest")
"""Ends of their names. The last has what has no key."""
REST: Final = "x-cr-rest"
"""Milliseconds that an event waits yet, once it has come."""
_LEAST: Final = 10
"""Milliseconds below which nothing waits."""
_MOST: Final = 10**9
_LONGEST: Final = 255
"""Bytes of a name."""
_DURABLE, _PASSIVE = 2, 1
_EXCHANGE: Final = 40, 30
"""The method that binds one."""
_INNER: Final = re.compile(r"^(:|$)|:delay:[1-9]0*$|:[^:]+:(parts|rest|:redrive)$")
"""Ends of the names of exchanges, without the prefix, that are no topics."""
# RabbitMQ 4 gives up after 20 deliveries unless it is told; members count themselves
_QUEUE: Final = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
# what waits for its retry is not acknowledged meanwhile: 30 days, from RabbitMQ 3.12 on
_PART: Final = {**_QUEUE, "x-single-active-consumer": True, "x-consumer-timeout": 30 * 86_400_000}
_NOTHING: Final = {"x-queue-type": "quorum", "x-max-length": 0}
_LOOK: Final = properties(Properties(None, None, 1))


class Topology:
    """Topology of one pub/sub name.

    Attributes:
        prefix: of all names.
        creates: whether exchanges and queues are made.
        due: the exchange whose routing keys name queues.
        streams: whether topics have streams.
        paused: the exchange, and the queue, that tell which groups are paused.
        replays: whether new groups get the events that are already there.
    """

    def __init__(self, engine: RabbitmqEngine, name: str) -> None:
        self._engine = engine
        self.prefix = engine.settings.prefix.replace("{name}", name)
        self.creates = engine.settings.ensure == "create"
        self.due = f"{self.prefix}:due"
        self.paused = f"{self.prefix}:paused"
        self.streams = engine.settings.kind == "stream"
        self.replays = self.streams and self.creates
        self._stream = {"x-queue-type": "stream", "x-max-age": f"{int(engine.settings.retention)}s"}

    # -- names ------------------------------------------------------------

    def exchange(self, topic: str) -> str:
        """Return the exchange of a topic."""
        if topic.startswith(":"):
            raise InvalidArgumentError(f"a topic on RabbitMQ does not begin with a colon: {topic!r}")
        return _short(f"{self.prefix}{topic}", f"the topic {topic!r}")

    def queue(self, topic: str, group: str) -> str:
        """Return the queue of a group."""
        return _short(f"{self.prefix}{quoted(topic)}:{quoted(group)}", f"the group {group!r} of the topic {topic!r}")

    def part(self, topic: str, group: str, name: str) -> str:
        """Return a queue of a group with an order, one of `QUEUES`; or ``members``, from which each member consumes, so that they can be counted."""
        return _short(f"{self.queue(topic, group)}:{name}", f"the group {group!r} of the topic {topic!r}")

    def stream(self, topic: str) -> str:
        """Return the stream of a topic."""
        return _short(f"{self.prefix}{quoted(topic)}::stream", f"the topic {topic!r}")

    def gone(self, topic: str) -> str:
        """Return the stream of what was removed of a dead-letter topic."""
        return _short(f"{self.prefix}{quoted(topic)}::gone", f"the topic {topic!r}")

    def replay(self, topic: str, group: str) -> str:
        """Return the queue that tells how far a group is with the stream; it is there until the group has all of it."""
        return _short(f"{self.queue(topic, group)}:replay", f"the group {group!r} of the topic {topic!r}")

    def topic_of(self, exchange: str) -> str | None:
        """Return the topic of an exchange whose name has the prefix; ``None``: it is none, as what delays and groups have."""
        topic = exchange.removeprefix(self.prefix)
        return None if exchange.startswith("amq.") or _INNER.search(topic) else topic

    def group_of(self, queue: str) -> tuple[str, str, str] | None:
        """Return topic, group and part of a queue whose name has the prefix: of a group as `part` has it, ``""``: the group has this one alone. What a topic has, such as its stream, has no group. ``None``: it is another."""
        topic, *rest = queue.removeprefix(self.prefix).split(":")
        if not topic or not 1 <= len(rest) <= 2:
            return None
        return _unquoted(topic), _unquoted(rest[0]), rest[1] if rest[1:] else ""

    # -- making -----------------------------------------------------------

    def ensure(self, topic: str) -> Flow[str]:
        """Make the exchange of a topic, and the queues of groups that are to have one; returns the exchange."""
        exchange = self.exchange(topic)
        if exchange not in self._engine.declared:
            asks = []
            for group in self._engine.settings.groups:
                asks += yield from self._unless_ordered(topic, group)
            if self.streams:
                yield from self._ensure_due()
                stream = self.stream(topic)
                asks += [self._queue(stream, exchange, self._stream), self._bind(stream, self.due, stream)]
            yield from self._make(self._exchange(exchange), *asks)
            self._engine.declared.add(exchange)
        return exchange

    def forget(self) -> None:
        """Look again what is there."""
        self._engine.declared.clear()

    def join(self, request: SubscribeRequest, *, begins: bool = True) -> Flow[None]:
        """Make the queues of a group; what becomes a dead letter has one of the same group, so that it waits for somebody. Unless the group ``begins``, its queue gets nothing yet that is published."""
        topic, group = request.topic, request.group
        queues = [self.queue(topic, group)]
        if request.order is not None:
            queues = [self.part(topic, group, name) for name in QUEUES]
            # the first of all, since it tells that the group has an order
            yield from self._make(self._queue(self.part(topic, group, "members"), None, _QUEUE))
        yield from self.ensure(topic)
        if request.order is not None:
            asks = self._parts(topic, group, queues)
        else:
            asks = [self._group(topic, group) if begins else self._queue(queues[0], None, _QUEUE)]
        if request.dead_letter_topic is not None:
            yield from self.ensure(request.dead_letter_topic)
            asks += yield from self._unless_ordered(request.dead_letter_topic, group)
        if self.creates:
            yield from self._ensure_due()
            asks += [self._bind(queue, self.due, queue) for queue in queues]
        yield from self._make(*asks)

    def _parts(self, topic: str, group: str, queues: Sequence[str]) -> list[list[Ask]]:
        """Return what makes the queues of a group with an order, and what is before them; in the end they get what is published."""
        rest, parts = queues[-1], self.part(topic, group, "parts")
        asks = [self._exchange(rest), self._queue(rest, rest, _PART)]
        asks += [self._exchange(parts, "direct", {"alternate-exchange": rest})]
        asks += [self._queue(queue, None, _PART) for queue in queues[:-1]]
        asks += [self._bind(queues[key % SHARES], parts, str(key)) for key in range(PARTS)]
        return [*asks, self._bind(parts, self.exchange(topic), kind=_EXCHANGE)]

    def has_order(self, topic: str, group: str, expected: bool) -> Flow[bool | None]:
        """Return whether a group has an order; ``None``: there is no such group. What is ``expected`` is looked for first, since the server logs an error for what is not there."""
        queues = {False: self.queue(topic, group), True: self.part(topic, group, "members")}
        for ordered in (expected, not expected):
            if (yield from self.has(queues[ordered])):
                return ordered
        return None

    def _unless_ordered(self, topic: str, group: str) -> Flow[list[list[Ask]]]:
        """Return what makes the queue of a group that may be there with an order already."""
        ordered = yield from self.has_order(topic, group, False)
        return [] if ordered else [self._group(topic, group)]

    def has(self, queue: str) -> Flow[bool]:
        """Return whether a queue is there."""
        look = Ask((50, 10), "hsot", 0, queue, _PASSIVE, {})
        yield (look,)
        if isinstance(look.failure, ServerError) and look.failure.code == NOT_FOUND:
            return False
        if look.failure is not None:
            raise look.failure
        return True

    def ensure_gone(self, topic: str) -> Flow[bool]:
        """Make the stream of what was removed of a dead-letter topic; returns whether it was not there."""
        name = self.gone(topic)
        if name in self._engine.declared or (yield from self.has(name)):
            return False
        yield from self._ensure_due()
        yield from self._make(self._queue(name, None, {"x-queue-type": "stream"}), self._bind(name, self.due, name))
        self._engine.declared.add(name)
        return True

    def redrives(self, topic: str, goal: str) -> Flow[str]:
        """Return the exchange of what goes to all groups of a topic, and is removed of the dead-letter topic."""
        name = self.part(topic, goal, ":redrive")
        yield from self.ensure(goal)
        bound = self._bind(self.exchange(goal), name, kind=_EXCHANGE), self._bind(self.gone(topic), name)
        yield from self._make(self._exchange(name), *bound)
        return name

    def use(self, queues: Iterable[str]) -> Flow[tuple[int, int]]:
        """Return how many messages wait in queues, and how many consumers these have; what is not there has none."""
        messages = consumers = 0
        for queue in queues:
            look = Ask((50, 10), "hsot", 0, queue, _PASSIVE, {})
            yield (look,)
            if look.failure is None:
                _, waiting, using = read("sll", look.reply, 0)
                messages, consumers = messages + waiting, consumers + using
            elif not (isinstance(look.failure, ServerError) and look.failure.code == NOT_FOUND):
                raise look.failure
        return messages, consumers

    def group(self, topic: str, group: str, ordered: bool) -> list[str]:
        """Return the queues of a group; the last tells that it is there."""
        if not ordered:
            return [self.queue(topic, group)]
        return [self.part(topic, group, name) for name in (*QUEUES, "members")]

    def delete(self, topic: str, group: str, ordered: bool) -> Flow[None]:
        """Delete a group, which is paused no more."""
        if self.creates:
            yield from self.pause(topic, group, False)
        exchanges = [self.part(topic, group, name) for name in ("parts", "rest")] if ordered else []
        queues = [*([self.replay(topic, group)] if self.streams else []), *self.group(topic, group, ordered)]
        yield from self._make(
            [Ask((40, 20), "hso", 0, name, 0) for name in exchanges],
            [Ask((50, 40), "hso", 0, name, 0) for name in queues],
        )

    def delete_topic(self, topic: str, delays: Iterable[str]) -> Flow[None]:
        """Delete a topic whose groups are deleted, with what delays its events."""
        names = [self.exchange(topic), *delays]
        queues = [*delays, self.gone(topic), *([self.stream(topic)] if self.streams else [])]
        yield from self._make(
            [Ask((40, 20), "hso", 0, name, 0) for name in names], [Ask((50, 40), "hso", 0, name, 0) for name in queues]
        )
        self.forget()

    def purge(self, queues: Iterable[str]) -> Flow[int]:
        """Remove what no consumer of the queues holds, and return how many messages these were."""
        messages = 0
        for queue in queues:
            ask = Ask((50, 30), "hso", 0, queue, 0)
            yield (ask,)
            if ask.failure is None:
                messages += read("l", ask.reply, 0)[0]
            elif not (isinstance(ask.failure, ServerError) and ask.failure.code == NOT_FOUND):
                raise ask.failure
        return messages

    def pause(self, topic: str, group: str, paused: bool) -> Flow[None]:
        """Note that a group is paused, or that it is not."""
        yield from self._ensure_paused()
        name = self.queue(topic, group)
        undo = [Ask((50, 50), "hssst", 0, self.paused, self.paused, name, {})]
        yield from self._make(self._bind(self.paused, self.paused, name) if paused else undo)

    def is_paused(self, topic: str, group: str) -> Flow[bool]:
        """Return whether a group is paused."""
        yield from self._ensure_paused()
        # the body tells it from other looks, whose messages may be returned meanwhile
        message = method(CONFIRMS, (60, 40), "hsso", 0, self.paused, self.queue(topic, group), 1)
        step = Publish(message + content(CONFIRMS, _LOOK, token_bytes(8), self._engine.frame_max), 1, self.paused)
        yield (step,)
        if step.failure is not None:
            self.forget()
            raise step.failure
        return not step.returned

    def begin_replay(self, topic: str, group: str) -> Flow[None]:
        """Make the queue that `replay` names."""
        yield from self.ensure(topic)
        name = self.replay(topic, group)
        arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        yield from self._make(self._queue(name, None, arguments), self._bind(name, self.due, name))

    def end_replay(self, topic: str, group: str) -> Flow[None]:
        """Remove it."""
        yield from self._make([Ask((50, 40), "hso", 0, self.replay(topic, group), 0)])

    def park(self, delay_ms: int, topic: str | None = None) -> Flow[tuple[str, int]]:
        """Return the exchange for what is to wait, and for how long it waits then again. With a topic it goes to that, else to the queue that the routing key names."""
        if topic is None:
            yield from self._ensure_due()
        goal = self.due if topic is None else self.exchange(topic)
        if delay_ms < _LEAST:
            return goal, 0
        unit = 10 ** (len(str(delay_ms)) - 1)
        level = min(delay_ms // unit * unit, _MOST)
        # a topic has its own: what no group is there for waits on, and holds up those behind it
        name = _short(f"{self.prefix}{topic or ''}:delay:{level}", f"the topic {topic!r}")
        if name not in self._engine.declared:
            arguments = {
                "x-queue-type": "quorum", "x-message-ttl": level, "x-dead-letter-exchange": goal,
                # what was handed on is kept until it has arrived
                "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
            }  # fmt: skip
            yield from self._make(self._exchange(name), self._queue(name, name, arguments))
            self._engine.declared.add(name)
        rest = delay_ms - level
        return name, rest if rest >= _LEAST else 0

    def _ensure_due(self) -> Flow[None]:
        """Make where goes what has waited; what is for a queue that is gone would hold up the others, and is kept apart."""
        if self.due not in self._engine.declared:
            lost = f"{self.prefix}:orphans"
            due = self._exchange(self.due, "direct", {"alternate-exchange": lost})
            yield from self._make(self._exchange(lost), self._queue(lost, lost, _QUEUE), due)
            self._engine.declared.add(self.due)

    def _ensure_paused(self) -> Flow[None]:
        if self.paused not in self._engine.declared:
            asks = self._exchange(self.paused, "direct"), self._queue(self.paused, None, _NOTHING)
            yield from self._make(*asks)
            self._engine.declared.add(self.paused)

    def _make(self, *asks: Iterable[Ask]) -> Flow[None]:
        steps = tuple(each for some in asks for each in some)
        yield steps
        for step in steps:
            if step.failure is not None:
                raise step.failure

    def _group(self, topic: str, group: str) -> list[Ask]:
        return self._queue(self.queue(topic, group), self.exchange(topic), _QUEUE)

    def _exchange(self, name: str, kind: str = "fanout", arguments: dict[str, Any] | None = None) -> list[Ask]:
        bits = _DURABLE if self.creates else _DURABLE | _PASSIVE
        return [Ask((40, 10), "hssot", 0, name, kind, bits, arguments or {})]

    def _queue(self, name: str, exchange: str | None, arguments: dict[str, Any]) -> list[Ask]:
        if not self.creates:
            return [Ask((50, 10), "hsot", 0, name, _DURABLE | _PASSIVE, {})]
        declaration = Ask((50, 10), "hsot", 0, name, _DURABLE, arguments)
        return [declaration] if exchange is None else [declaration, *self._bind(name, exchange)]

    def _bind(self, name: str, exchange: str, key: str = "", kind: tuple[int, int] = (50, 20)) -> list[Ask]:
        """Return what binds a queue, or another exchange."""
        return [Ask(kind, "hsssot", 0, name, exchange, key, 0, {})] if self.creates else []


def quoted(part: str) -> str:
    """Return a topic or a group as the names of queues have it."""
    return part.replace("%", "%25").replace(":", "%3A")


def _unquoted(part: str) -> str:
    return part.replace("%3A", ":").replace("%25", "%")


def _short(name: str, what: str) -> str:
    if len(name.encode()) > _LONGEST:
        raise InvalidArgumentError(f"{what} is too long for RabbitMQ: with the prefix it has at most {_LONGEST} bytes")
    return name
