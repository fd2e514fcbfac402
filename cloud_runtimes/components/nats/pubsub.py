"""Pub/sub on NATS JetStream: a stream for each pub/sub name. ``docs/explanation/nats.md`` explains it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Final
from zlib import crc32

from ..._core.logs import repeated
from ..._native import events as kernel
from ...errors import CloudRuntimesError, ResourceExhaustedError
from ...spi.admin import LOOKING, MENDING, PubSubAdmin
from ...spi.broker.policy import FEATURES, DeliveryPolicy, begins_at
from ...spi.broker.redelivery import as_messages, pieces, singly, spread
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
from . import NatsComponent
from .consumers import EventStream
from .entries import read_reply
from .failures import NO_STREAM, ServerError, map_error
from .member import NatsMember
from .messages import DUE
from .ordered import OrderedNatsMember
from .ordered import join as join_ordered
from .ordered import lag as ordered_lag
from .parts import GroupParts, settled
from .protocol import publish
from .requests import Bulk, Flow

_TRIM_EVERY: Final = 60.0
_TOGETHER: Final = 500
"""Messages with one reply subject; where one of them is refused, it is not known which."""
HEAD: Final = 4096
"""Bytes of a message that are kept for its headers and for what is around a payload."""
_SOON_MS: Final = 2500
"""A delay that is shorter is not left to the server's schedule, which has whole seconds."""
_SCHEDULE: Final = "Nats-Schedule"
_TARGET: Final = "Nats-Schedule-Target"
_GROWTH: Final = 6
"""How many times as long a text of an event may become in JSON."""


class _Published:
    """A batch on its way, in parts of which a server took all or not."""

    def __init__(self) -> None:
        self.parts: list[tuple[Bulk, int]] = []  # with how many events each has
        self.errors: dict[int, CloudRuntimesError] = {}  # of a part

    def add(self, bulk: Bulk, events: int) -> None:
        """Note messages that are sent."""
        self.parts.append((bulk, events))

    def failures(self, error: CloudRuntimesError | None = None) -> Failures:
        """Return which events failed, and why; with an error, all did that the server is not known to have."""
        errors = dict(self.errors)
        if error is not None:
            if not self.parts:
                raise error
            for number, (bulk, _) in enumerate(self.parts):
                if bulk.taken != bulk.answers:
                    errors.setdefault(number, error)
        return spread([events for _, events in self.parts], errors)


class NatsPubSub(EngineDriver[NatsComponent], PubSubDriver):
    """Pub/sub driver of one name, on a stream."""

    features = FEATURES | LOOKING | MENDING | {KEY_ORDER}

    def __init__(self, component: NatsComponent, name: str) -> None:
        super().__init__(component, name)
        self._settings = component.settings
        self._framed = component.settings.layout == "frame"
        # a server has less to do while it does not send acknowledgements between what it receives
        self.limits = BatchLimits(events=10_000 if self._framed else 1000, bytes=4 * 1024 * 1024)
        self.max_event_bytes = component.settings.max_value_bytes
        self.too_large_hint = "raise max_value_bytes, or send a reference to it instead"
        self.stream = EventStream(component.engine, name)
        self._trim_at = 0.0

    # -- publishing -------------------------------------------------------

    def _publish(self, op: Operation, batch: OutgoingBatch, /) -> Flow[Failures]:
        yield from self.stream.ensure()
        if monotonic() >= self._trim_at:
            yield from self._trim()
        published = _Published()
        rendered = not (batch.delay_ms is not None or self._framed or batch.raw)
        if rendered:
            for frame in batch.frames:
                self._rendered(batch.topic, frame, published)
        else:
            self._one_by_one(batch, published)
        ids = self._framed or (rendered and bool(self._settings.duplicate_window))
        sending = self.stream.writes([bulk for bulk, _ in published.parts], ids=ids)
        try:
            answered = yield sending
        except CloudRuntimesError as error:
            return published.failures(error)
        for number, answers in enumerate(answered):
            for message in answers:
                try:
                    read_reply(message)
                    published.parts[number][0].taken += 1
                except ServerError as error:
                    if error.code in (503, NO_STREAM):
                        self.stream.forget()
                    published.errors[number] = failure = map_error(self.component.engine.where, error)
                    failure.maybe_applied = sending.sent > 1
        return published.failures() if published.errors else {}

    publish, publish_async = both_apis(_publish)

    def _rendered(self, topic: str, body: bytes, published: _Published) -> None:
        """Add the messages of a frame as the kernel makes them."""
        frame = kernel.Frame(body)
        room = self.component.engine.max_payload - HEAD
        if len(body) * _GROWTH > room:
            for index in range(len(frame)):
                if len(frame.record_bytes(index)) * _GROWTH > room:
                    self._check(len(frame[index].to_json()))
        subject = self.stream.topic(topic)
        ids = b"%08x" % crc32(topic.encode()) if self._settings.duplicate_window else None
        for start in range(0, len(frame), _TOGETHER):
            indexes = range(start, min(start + _TOGETHER, len(frame)))
            part = frame if len(indexes) == len(frame) else kernel.Frame(frame.select(indexes))
            published.add(Bulk(subject, partial(_render, part, subject.encode(), ids), len(part)), len(part))

    def _check(self, size: int) -> None:
        """Refuse what a server would close the connection for."""
        engine = self.component.engine
        if size > engine.max_payload - HEAD:
            raise ResourceExhaustedError(
                f"nats {engine.where}: an event of {size:,} bytes does not fit the server's max_payload of "
                f"{engine.max_payload:,}: raise it, or {self.too_large_hint}"
            )

    def _one_by_one(self, batch: OutgoingBatch, published: _Published) -> None:
        """Add the messages of a batch that have headers."""
        subject, more = self.stream.topic(batch.topic), self._delay(batch)
        name = secrets.token_hex(8)
        messages: list[tuple[str, bytes, dict[str, str]]] = []
        for number, (kind, data) in enumerate(self.messages(batch.frames, raw=True)):
            self._check(len(data))
            headers = dict(more)
            if kind is not None:
                headers["Content-Type"] = kind
            elif self._framed:
                headers["Nats-Msg-Id"] = f"{batch.topic} {kernel.Frame(data)[0].id} {len(data)} {crc32(data)}"
            messages.append((self.stream.delayed(f"{name}-{number}") if _SCHEDULE in more else subject, data, headers))
        together = 1 if self._framed else _TOGETHER
        for start in range(0, len(messages), together):
            part = messages[start : start + together]
            events = count_in(part[0][1]) if self._framed else len(part)
            published.add(Bulk(part[0][0], partial(_join, part), len(part)), events)

    def _delay(self, batch: OutgoingBatch) -> dict[str, str]:
        """Return the headers that delay a batch: the server publishes it at a whole second, and members wait for the rest."""
        if batch.delay_ms is None:
            return {}
        due = int(self.stream.now() * 1000) + batch.delay_ms
        headers = {DUE: str(due)}
        if batch.delay_ms >= _SOON_MS:
            at = datetime.fromtimestamp(due // 1000 - 1, UTC)
            headers |= {_SCHEDULE: f"@at {at:%Y-%m-%dT%H:%M:%SZ}", _TARGET: self.stream.topic(batch.topic)}
        return headers

    def messages(self, frames: Sequence[bytes], *, raw: bool) -> list[tuple[str | None, bytes]]:
        """Return frames as messages in the layout of this component; see `as_messages`. A frame has no content type either."""
        if self._framed:
            room = self.component.engine.max_payload - HEAD
            return [(None, piece) for frame in frames for piece in pieces(frame, room)]
        return as_messages(frames, raw=raw)

    def letters(self, frame: bytes) -> list[bytes]:
        """Return dead letters as messages with an event each."""
        return [data for _, data in self.messages(singly(frame) if self._framed else [frame], raw=False)]

    def _trim(self) -> Flow[None]:
        """Trim the stream; a failure is no failure of a publish."""
        self._trim_at = monotonic() + min(_TRIM_EVERY, max(1.0, self._settings.retention / 10))
        try:
            yield from self.stream.trim(settled(self.component.engine, self.name))
        except ServerError as error:
            where = self.component.engine.where
            repeated(f"trim {where}", "nats %s: a stream was not trimmed: %s", where, error.text)

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        rules, run = DeliveryPolicy(self.name, request), self.component.engine.run
        if request.order is not None:
            return OrderedNatsMember(
                self.component, self, rules, *run(op, join_ordered(self, request, begins_at(request)))
            )
        parts = GroupParts(self.component.engine, self.name, request.topic, request.group)
        if run(op, parts.find()) is not None:
            rules.check_order(has_order=True)
        since = run(op, self.stream.join(request, rules.ack_wait_ms, begins_at(request)))
        return NatsMember(self.component, self, rules, since=since)

    def _lag(self, op: Operation, topic: str, group: str, /) -> Flow[int | None]:
        lag = yield from ordered_lag(self, topic, group)
        return lag if lag is not None else (yield from self.stream.lag(topic, group))

    lag, lag_async = both_apis(_lag)

    def admin(self) -> PubSubAdmin:
        from .mending import NatsMender

        return NatsMender(self)


def _render(frame: kernel.Frame, subject: bytes, ids: bytes | None, reply: bytes) -> bytes:
    """Return the messages of a frame; with ids, a server keeps one of those with the same id and time."""
    template: Template
    if ids is None:
        template = [b"PUB %b %b " % (subject, reply), range(3, 4), b"\r\n", "json", b"\r\n"]
    else:
        first, head = b"HPUB %b %b " % (subject, reply), b"NATS/1.0\r\nNats-Msg-Id: %b " % ids
        ids_and_end: Template = ["id", b" ", "time", b"\r\n\r\n", "json", b"\r\n"]
        template = [first, range(5, 10), b" ", range(5, 11), b"\r\n", head, *ids_and_end]
    rendered: bytes = frame.render(template)
    return rendered


def _join(messages: list[tuple[str, bytes, dict[str, str]]], reply: bytes) -> bytes:
    return b"".join([publish(subject, data, reply, headers) for subject, data, headers in messages])
