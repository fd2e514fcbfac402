"""Publish and subscribe over Layotto: events go one by one, and come by a stream or by callbacks. Dead-letter topics are our own.

Layotto's envelope loses every attribute but id, source and type, and writes floats with six digits. So an event of ours travels whole, as the bytes of its CloudEvent.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final

from ..._core.logs import repeated
from ..._native import events as kernel
from ...codec import json
from ...codec.payload import OCTETS
from ...errors import CloudRuntimesError, ComponentNotFoundError, InvalidArgumentError, PayloadError
from ...spi import pubsub as spi
from ...spi.events import EVENT_TYPE, dead_letter_record, make_event, read_structured
from ...spi.operation import Method, Operation
from ...spi.pubsub import Cause, EventRecord, Settlement, SubscribeRequest
from .._sidecar.channel import Channel
from .._sidecar.pubsub import EventToken, SidecarPubSub, StreamSubscription
from .._sidecar.transport import Flow, SidecarError

_DEAD: Final = Method("pubsub", "publish", repeatable=True)
_PATIENCE: Final = 10.0
"""Seconds for publishing a dead letter."""
_FIRST_TOPIC: Final = re.compile(rb'\{"cloudruntimestopic":("(?:[^"\\]|\\.)*+"),')
"""Attribute of a dead letter: the topic it was first published to."""


class LayottoSubscription(StreamSubscription):
    """A subscription by ``SubscribeTopicEvents``.

    A dropped event is published to the dead-letter topic before it is answered for, so that it is in either; a failure between the two has it in both.
    """

    # each try of a stream that the sidecar ends at once leaves a subscription of the component behind
    _steady = 2.0
    _patience = 30.0
    message = "SubscribeTopicEventsRequest"

    def __init__(self, transport: Channel, pubsub: str, request: SubscribeRequest) -> None:
        super().__init__(transport, pubsub, request._replace(dead_letter_topic=None))
        self._pubsub = pubsub
        self._dead = request.dead_letter_topic
        self._topic, self._group = request.topic, request.group
        # of what is not answered for: only where there is a dead-letter topic
        self._held: dict[str, tuple[Any, EventRecord | None, int]] = {}

    def _record(self, event: Any) -> EventRecord:
        if self._dead is None:
            return _incoming(event)
        now_us = time.time_ns() // 1000
        self._held[event.id] = event, None, now_us  # until it is known to be one of ours
        record = _incoming(event)
        self._held[event.id] = None, record, now_us
        return record

    def _received(self, connection: int, message: Any) -> None:
        if message.HasField("event_message") and not message.event_message.id:
            # of what has expired, or is no event at all, a sidecar tells nothing; any answer but this one is its end (mosn/layotto ``retryStrategy``)
            self._answer(EventToken(connection, ""), Settlement.ACK)
        else:
            super()._received(connection, message)

    def _answer(self, token: EventToken, settlement: Settlement, cause: Cause | None = None) -> None:
        held = self._held.pop(token.id, None)
        if settlement is Settlement.DROP and self._dead is not None and held is not None:
            try:
                op = Operation(_DEAD, self._pubsub, _PATIENCE)
                letter = self._letter(*held, cause or Cause("dropped"))
                self._transport.run(op, self._transport.publish(self._pubsub, self._dead, *letter, {}))
                settlement = Settlement.ACK
            except CloudRuntimesError as error:
                repeated(f"dead letter {self._name}", "%s: a dead letter is tried again: %s", self._name, error)
                settlement = Settlement.RETRY
        super()._answer(token, settlement)

    def _letter(self, event: Any, record: EventRecord | None, came_us: int, cause: Cause) -> tuple[bytes, str]:
        """Return the data and content type of a dead letter. What is no event goes as it came."""
        if record is None:
            return bytes(event.data), event.data_content_type or OCTETS
        letter = dead_letter_record(record, cause, topic=self._topic, group=self._group, last_us=came_us)
        return _dead_letter_bytes(letter, record.topic), OCTETS

    def _connect(self) -> None:
        self._held.clear()
        super()._connect()

    def _refused_error(self, why: SidecarError) -> CloudRuntimesError:
        error = super()._refused_error(why)
        if why.error_reply.code == "grpc UNKNOWN":  # nothing else can be wrong with the first message
            return ComponentNotFoundError(error.message)
        return error


class LayottoPubSub(SidecarPubSub):
    """Topics of one component of the sidecar. The group is the sidecar's application."""

    features = frozenset({spi.DEAD_LETTER, spi.SUBSCRIBE, spi.TTL})
    bulk = 1
    table = "[layotto]"
    subscription = LayottoSubscription

    def _one(self, op: Operation, topic: str, record: EventRecord) -> Flow[None]:
        yield from self._transport.publish(self._name, topic, record.to_json(), OCTETS, self.metadata(op, record))


def _dead_letter_bytes(record: bytes, topic: str) -> bytes:
    """Return the bytes of an encoded dead letter that was first published to a topic."""
    event = kernel.Frame(kernel.build_frame("Layotto", EVENT_TYPE, topic, [record]))[0].to_json()
    return b'{"cloudruntimestopic":%b,%b' % (json.encode(topic), event[1:])


def _incoming(message: Any) -> EventRecord:
    """Return a ``TopicEventRequest`` as a record, or raise `CloudRuntimesError`."""
    data, content_type = bytes(message.data), message.data_content_type or OCTETS
    if content_type == OCTETS and data[:1] == b"{":
        try:
            if match := _FIRST_TOPIC.match(data):
                return read_structured(b"{" + data[match.end() :], json.decode(match[1]))
            return read_structured(data, message.topic)
        except PayloadError:
            pass  # bytes of another application
    attributes: dict[str, Any] = {
        "id": message.id or None,
        "type": message.type or None,
        "source": message.source or None,
    }
    try:
        return make_event(data, content_type, message.topic, **attributes)
    except InvalidArgumentError:  # attributes of others, of another form than CloudEvents has: the event counts more
        return make_event(data, OCTETS, message.topic)
