"""Pub/sub on Redis: a topic is a stream. ``docs/explanation/redis.md`` explains it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Final

from ..._core.logs import repeated
from ..._native import events as kernel
from ...errors import CloudRuntimesError
from ...spi.admin import LOOKING, MENDING, PubSubAdmin
from ...spi.broker.ordered import PARTS
from ...spi.broker.policy import FEATURES, DeliveryPolicy, begins_at
from ...spi.broker.redelivery import as_messages, singly, spread
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.pubsub import (
    KEY_ORDER,
    BatchLimits,
    EventSource,
    Failures,
    OutgoingBatch,
    PubSubDriver,
    SubscribeRequest,
    Template,
)
from .._log.claims import count_in
from .._net.engines import EngineDriver
from . import RedisComponent
from .entries import id_before
from .failures import map_error
from .member import RedisMember
from .ordered import OrderedRedisMember
from .ordered import lag as ordered_lag
from .resp import Batch, Flow, ReplyError, Value, pack
from .streams import DELAY, JOIN, LAG, TRIM, TRIMMED, GroupKeys, TopicKeys, count

_MAX_TOPICS: Final = 10_000
"""How many topics are remembered. Callers of a sidecar may publish to any topic."""
_TRIM_EVERY: Final = 60.0
_FORGET_MS: Final = 600_000
"""After this long a member that holds nothing, and did not leave, is forgotten."""


class Topic:
    """Cached keys and command templates of a topic.

    Attributes:
        keys: of the topic.
        template: of the command that appends an event.
        head: of the command that appends a frame.
        trim_at: when it is trimmed next, by `time.monotonic`.
    """

    def __init__(self, keys: TopicKeys) -> None:
        self.keys = keys
        self.head = head = pack(("XADD", keys.stream, "*", "data")).replace(b"*4", b"*5", 1)
        self.template: Template = [head + b"$", range(3, 4), b"\r\n", "json", b"\r\n"]
        self.trim_at = 0.0


class _Commands(Iterable[bytes]):
    """Commands that append a batch, frame by frame: each is rendered while the server takes in those before it."""

    def __init__(self, driver: RedisPubSub, topic: Topic, batch: OutgoingBatch) -> None:
        self._driver = driver
        self._topic = topic
        self._batch = batch

    def __iter__(self) -> Iterator[bytes]:
        for index, frame in enumerate(self._batch.frames):
            try:
                yield self._driver.commands(self._topic, frame, self._batch.raw)
            except CloudRuntimesError as error:
                error.maybe_applied = index > 0
                raise


class RedisPubSub(EngineDriver[RedisComponent], PubSubDriver):
    """Pub/sub driver of one name: topics whose keys have one hash tag."""

    features = FEATURES | LOOKING | MENDING | {KEY_ORDER}
    limits = BatchLimits(events=10_000, bytes=4 * 1024 * 1024)

    def __init__(self, component: RedisComponent, name: str) -> None:
        super().__init__(component, name)
        self._settings = component.settings
        self._framed = component.settings.layout == "frame"
        self.max_event_bytes = component.settings.max_value_bytes
        self.too_large_hint = "raise max_value_bytes, or send a reference to it instead"
        self._topics: dict[str, Topic] = {}

    def keys(self, topic: str) -> TopicKeys:
        """Return the keys of a topic."""
        return self._topic(topic).keys

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            if len(self._topics) >= _MAX_TOPICS:
                self._topics.clear()
            topic = self._topics[name] = Topic(self.keys_of(name))
        return topic

    def keys_of(self, topic: str) -> TopicKeys:
        """Make the keys of a topic."""
        return TopicKeys.of(partial(self.component.key, "pubsub", self.name), topic)

    # -- publishing -------------------------------------------------------

    def _publish(self, op: Operation, batch: OutgoingBatch, /) -> Flow[Failures]:
        topic = self._topic(batch.topic)
        if monotonic() >= topic.trim_at:
            yield from self._trim(topic)
        if batch.delay_ms is not None:
            yield from self._delay(topic, batch)
            return {}
        counts = list(map(count_in, batch.frames)) if self._framed else None
        count = batch.count if counts is None else len(counts)
        replies = yield Batch.rendered(_Commands(self, topic, batch), count, topic.keys.stream)
        if ReplyError not in set(map(type, replies)):
            return {}
        where = self.component.engine.where
        errors = {index: map_error(where, each) for index, each in enumerate(replies) if isinstance(each, ReplyError)}
        return spread(counts or [1] * count, errors)

    publish, publish_async = both_apis(_publish)

    def commands(self, topic: Topic, frame: bytes, raw: bool) -> bytes:
        """Return what appends the events of a frame."""
        if self._framed:
            return b"".join((topic.head, b"$%d\r\n" % len(frame), frame, b"\r\n"))
        if not raw:
            rendered: bytes = kernel.Frame(frame).render(topic.template)
            return rendered
        head = ("XADD", topic.keys.stream, "*", "data")
        messages = self.messages([frame], raw=True)
        return b"".join([pack((*head, data, "datacontenttype", kind or "")) for kind, data in messages])

    def messages(self, frames: Sequence[bytes], *, raw: bool) -> list[tuple[str | None, bytes]]:
        """Return frames as messages in the layout of this component; see `as_messages`. A frame has no content type either."""
        if self._framed:
            return [(None, frame) for frame in frames]
        return as_messages(frames, raw=raw)

    def letters(self, frame: bytes) -> list[bytes]:
        """Return dead letters as messages with an event each."""
        return [data for _, data in self.messages(singly(frame) if self._framed else [frame], raw=False)]

    def _delay(self, topic: Topic, batch: OutgoingBatch) -> Flow[None]:
        assert batch.delay_ms is not None
        arguments: list[Value] = []
        for kind, data in self.messages(batch.frames, raw=True):
            arguments += (kind or "", data)
        keys = topic.keys
        yield from DELAY.run((keys.stream, keys.delayed), batch.delay_ms, keys.retry, keys.end, *arguments)

    def trimmed(self, name: str) -> Flow[None]:
        """Trim a topic if it is time, for whoever writes to it otherwise than by `publish`."""
        topic = self._topic(name)
        if monotonic() >= topic.trim_at:
            yield from self._trim(topic)

    def _trim(self, topic: Topic) -> Flow[None]:
        """Trim a topic, and go on with the next publish where there is more; a failure is no failure of a publish."""
        settings, keys = self._settings, topic.keys
        topic.trim_at = monotonic() + min(_TRIM_EVERY, max(1.0, settings.retention / 10))
        limits = (int(settings.retention * 1000), int(settings.group_expiry * 1000))
        try:
            trimmed = yield from TRIM.run((keys.stream, keys.seen), *limits, *keys.of_groups, once=True)
            if trimmed > TRIMMED // 2:  # the server removes whole nodes, so it may stop before
                topic.trim_at = 0.0
        except ReplyError as error:
            where = self.component.engine.where
            repeated(f"trim {where}", "redis %s: a topic was not trimmed: %s", where, error)

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        policy = DeliveryPolicy(self.name, request)
        now_ms, _ = self.component.engine.run(op, self.join(policy, id_before(begins_at(request))))
        member = RedisMember if request.order is None else OrderedRedisMember
        return member(self.component, self, policy, now_ms)

    def join(self, policy: DeliveryPolicy, start: str) -> Flow[tuple[int, bool]]:
        """Make a member, and its group where it does not exist; returns the server's time in milliseconds, and whether the group was made."""
        request = policy.request
        keys = self.keys(request.topic)
        group = GroupKeys.of(keys, request.group)
        names = (keys.stream, group.retry, keys.delayed, keys.seen, group.parts, group.members)
        parts = "" if request.order is None else PARTS
        me = (policy.name, policy.ack_wait_ms)
        now_ms, created, has_order = yield from JOIN.run(names, request.group, start, _FORGET_MS, parts, *me)
        policy.check_order(has_order=bool(has_order))
        return int(now_ms), bool(created)

    def _lag(self, op: Operation, topic: str, group: str, /) -> Flow[int | None]:
        keys = self.keys_of(topic)
        again = GroupKeys.of(keys, group)
        reply = yield from ordered_lag(keys, group, topic)
        if reply is None:
            reply = yield from LAG.run((keys.stream, again.retry, again.later), group)
        if reply is None:
            return None
        lag, after = reply
        for stream, entry, bell in ((keys.stream, after, ""), (again.retry, "0-0", "bell")):
            lag += (yield from count(stream, entry, bell)) if entry else 0
        return int(lag)

    lag, lag_async = both_apis(_lag)

    def admin(self) -> PubSubAdmin:
        from .mending import RedisMender

        return RedisMender(self)
