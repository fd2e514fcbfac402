"""Pub/sub on RabbitMQ. ``docs/explanation/rabbitmq.md`` explains it."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..._native import events as kernel
from ...errors import CloudRuntimesError, NotFoundError
from ...spi import pubsub as spi
from ...spi.admin import PubSubAdmin
from ...spi.broker.ordered import PARTS
from ...spi.broker.policy import FEATURES, DeliveryPolicy
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.pubsub import BatchLimits, EventSource, Failures, OutgoingBatch, PubSubDriver, SubscribeRequest
from .._log.claims import count_in
from .._net.engines import EngineDriver
from . import RabbitmqComponent
from .failures import NOT_FOUND, ServerError
from .messages import FRAME, GONE, PLAIN, as_binary, as_plain, routing_keys, waiting
from .session import CONFIRMS, Publish
from .topology import Topology
from .wire import Properties, content, method, properties

if TYPE_CHECKING:
    from .engine import Flow

_GROWTH: Final = 6
"""How many times as long a text of an event may become in JSON."""
_HEAD: Final = 4096
"""Bytes of an event that are around its payload."""


class _Published:
    """A batch on its way: its messages, and with how many events each is."""

    def __init__(self) -> None:
        self.step: Publish | None = None
        self.events: Sequence[int] = ()
        self.bodies: Sequence[bytes] | None = None

    def failed(self, messages: Sequence[int], error: CloudRuntimesError) -> dict[int, CloudRuntimesError]:
        """Return the events of some messages, with their error."""
        starts = [0]
        for count in self.events:
            starts.append(starts[-1] + count)
        return {index: error for number in messages for index in range(starts[number], starts[number + 1])}


class RabbitmqPubSub(EngineDriver[RabbitmqComponent], PubSubDriver):
    """Pub/sub driver of one name: an exchange for each topic, a queue for each group."""

    alternatives = MappingProxyType(
        {
            spi.START: 'a queue begins when its group does: set kind = "stream", or name the group in the setting groups, '
            "and it gets every event",
            spi.START_TIME: 'with kind = "stream" a new group gets all there is: skip events by event.time in the handler',
            spi.KEY_ORDER: 'with kind = "stream" a copy of the stream would come between what is published: '
            'set kind = "queue" for a pub/sub name whose groups have an order',
            spi.PEEK: 'a queue counts a delivery of what is looked at: set kind = "stream", which can be read without a trace',
            **dict.fromkeys(
                (spi.REDRIVE, spi.DISCARD),
                'a queue gives up its first messages alone: set kind = "stream", which tells the letters that are gone',
            ),
            spi.PAUSE: 'the note would need an exchange and a queue that are not made: set ensure = "create"',
            **dict.fromkeys(
                (spi.TOPICS, spi.GROUPS, spi.DELETE_TOPIC),
                'the management interface alone lists them: set management = "http://host:15672"',
            ),
            spi.PURGE: "the management interface alone lists the queues of a topic, and a stream keeps what it has: "
            'set management = "http://host:15672", with kind = "queue"',
            spi.LAG: 'with management = "http://host:15672" client.admin.groups tells it, up to five seconds late',
        }
    )

    def __init__(self, component: RabbitmqComponent, name: str) -> None:
        super().__init__(component, name)
        self._settings = component.settings
        self._framed = component.settings.layout == "frame"
        self.limits = BatchLimits(events=10_000 if self._framed else 1000, bytes=4 * 1024 * 1024)
        self.max_event_bytes = component.settings.max_value_bytes
        self.too_large_hint = "raise max_value_bytes, or send a reference to it instead"
        self.topology = Topology(component.engine, name)
        replayed = {spi.START} if self.topology.replays else set()
        shown = {spi.PEEK, spi.REDRIVE, spi.DISCARD} if self.topology.streams else set()
        ordered = set() if self.topology.streams else {spi.KEY_ORDER}
        noted = {spi.PAUSE} if self.topology.creates else set()
        managed = set() if component.settings.management is None else {spi.TOPICS, spi.GROUPS, spi.DELETE_TOPIC}
        purged = {spi.PURGE} if managed and not self.topology.streams else set()
        never = {spi.START, spi.START_TIME, spi.LAG}
        self.features = FEATURES - never | {spi.DELETE_GROUP} | replayed | shown | ordered | noted | managed | purged

    # -- publishing -------------------------------------------------------

    def _publish(self, op: Operation, batch: OutgoingBatch, /) -> Flow[Failures]:
        published = _Published()
        try:
            yield from self._send(batch, published)
        except ServerError as error:
            return self._failures(batch, published, self.component.engine.map_error(error))
        except CloudRuntimesError as error:
            return self._failures(batch, published, error)
        return self._failures(batch, published)

    publish, publish_async = both_apis(_publish)

    def _send(self, batch: OutgoingBatch, published: _Published) -> Flow[None]:
        for last in (False, True):
            exchange = yield from self.topology.ensure(batch.topic)
            step = published.step = yield from self._rendered(exchange, batch, published)
            yield (step,)
            if step.failure is None:
                return
            if last or not isinstance(step.failure, ServerError) or step.failure.code != NOT_FOUND:
                raise step.failure
            self.topology.forget()  # an exchange was removed: make it again

    def _rendered(self, exchange: str, batch: OutgoingBatch, published: _Published) -> Flow[Publish]:
        """Return the messages of a batch."""
        rest = 0
        plain = batch.delay_ms is None and not self._framed and self._settings.content_mode == "structured"
        if plain and not batch.raw and self._fits(batch.frames):
            published.events = [1] * batch.count
            data = b"".join([self._by_kernel(exchange, frame) for frame in batch.frames])
            return Publish(data, batch.count, exchange)
        if batch.delay_ms is not None:
            exchange, rest = yield from self.topology.park(batch.delay_ms, batch.topic)
        messages = self.messages(batch.frames, raw=batch.raw)
        published.events = [count_in(body) if about is FRAME else 1 for about, body in messages]
        published.bodies = [body for _, body in messages]
        parts = [
            self.message(exchange, key, waiting(about, rest), body)
            for (about, body), key in zip(messages, self.keys(batch.frames, len(messages)), strict=True)
        ]
        return Publish(b"".join(parts), len(parts), exchange)

    def _fits(self, frames: Sequence[bytes]) -> bool:
        """Return whether each event is in one frame of AMQP."""
        room = self.component.engine.frame_max - 8 - _HEAD
        for body in frames:
            if len(body) * _GROWTH > room:
                frame = kernel.Frame(body)
                if any(len(frame.record_bytes(index)) * _GROWTH > room for index in range(len(frame))):
                    return False
        return True

    def _by_kernel(self, exchange: str, body: bytes) -> bytes:
        properties = PLAIN[0]
        # without a routing key these end with its length and with the bits
        published = self._publishing(exchange, "")
        before, bits = published[7:-3], published[-2:]
        head = b"\x02\x00\x01%b\x00\x3c\x00\x00" % (len(properties) + 12).to_bytes(4, "big")
        size = range(10, 11)
        rendered: bytes = kernel.Frame(body).render(
            [
                published[:3], (range(2, 6), 4), before, (range(4, 5), 1), ("key", PARTS), bits[:1], bits[1:] + head,
                (size, 8), properties + b"\xce\x03\x00\x01", (size, 4), "json", b"\xce",
            ]
        )  # fmt: skip
        return rendered

    def _publishing(self, exchange: str, key: str, mandatory: bool = False) -> bytes:
        mandatory = mandatory or self._settings.unrouted == "refuse"
        return method(CONFIRMS, (60, 40), "hsso", 0, exchange, key, mandatory)

    def message(self, exchange: str, key: str, about: Properties, body: bytes, *, mandatory: bool = False) -> bytes:
        """Return the frames that publish a message."""
        head = self._publishing(exchange, key, mandatory)
        return head + content(CONFIRMS, properties(about), body, self.component.engine.frame_max)

    def messages(self, frames: Sequence[bytes], *, raw: bool) -> list[tuple[Properties, bytes]]:
        """Return frames as messages in the layout of this component."""
        if self._framed:
            return [(FRAME, frame) for frame in frames]
        if self._settings.content_mode == "binary" and not raw:
            return as_binary(frames)
        return as_plain(frames, raw=raw)

    def keys(self, frames: Sequence[bytes], count: int) -> list[str]:
        """Return the routing keys of so many messages: the parts of the events' keys. A message with many events has none."""
        keys = [] if self._framed else routing_keys(frames)
        return keys if len(keys) == count else [""] * count

    def _failures(
        self, batch: OutgoingBatch, published: _Published, error: CloudRuntimesError | None = None
    ) -> Failures:
        """Return which events failed, and why."""
        step = published.step
        if step is None:
            assert error is not None
            raise error
        failures: dict[int, CloudRuntimesError] = {}
        if error is not None:
            failures = published.failed(step.unconfirmed(), error)
        elif step.refused:
            error = self.component.engine.map_error(ServerError(0, "basic.nack"))
            failures = published.failed(step.refused, error)
        if step.returned:
            self.topology.forget()
            failures |= published.failed(self._returned(batch, published), self._nobody(batch.topic))
        if error is not None and len(failures) == batch.count:
            raise error
        return failures

    def _returned(self, batch: OutgoingBatch, published: _Published) -> list[int]:
        """Return the places of messages that came back; they are told by their bodies alone."""
        assert published.step is not None
        if len(published.step.returned) == published.step.count:
            return list(range(published.step.count))
        bodies = set(published.step.returned)
        messages = batch.structured() if published.bodies is None else published.bodies
        return [index for index, body in enumerate(messages) if body in bodies]

    def _nobody(self, topic: str) -> NotFoundError:
        return NotFoundError(
            f"rabbitmq {self.component.engine.where}: no group has a queue of the topic {topic!r}, so nobody would get "
            'the event: subscribe first, name groups in groups = ["…"], or set unrouted = "drop"'
        )

    # -- subscribing ------------------------------------------------------

    def subscribe(self, op: Operation, request: SubscribeRequest, /) -> EventSource:
        from .member import RabbitmqMember
        from .replay import Replay, is_replayed

        rules, engine, topology = DeliveryPolicy(self.name, request), self.component.engine, self.topology
        wants = request.order is not None
        if (has_order := engine.run(op, topology.has_order(request.topic, request.group, wants))) is not None:
            rules.check_order(has_order=has_order)
        if wants:
            from .ordered import OrderedMember

            engine.run(op, topology.join(request))
            return OrderedMember(self.component, self, rules)
        if topology.replays and request.dead_letter_topic is not None:
            engine.run(op, self.begin_gone(request.dead_letter_topic))
        replays = topology.replays and request.start != "latest" and engine.run(op, is_replayed(self, request))
        engine.run(op, topology.join(request, begins=not replays))
        replay = Replay(self.component, self, rules) if replays else None
        return RabbitmqMember(self.component, self, rules, replay)

    def begin_gone(self, topic: str) -> Flow[None]:
        """Make the stream of what was removed of a dead-letter topic, which is never empty."""
        if (yield from self.topology.ensure_gone(topic)):
            yield from self.tell_gone(topic, "")

    def tell_gone(self, topic: str, letter: str) -> Flow[None]:
        """Publish that a letter is gone."""
        step = self.gone(topic, letter)
        yield (step,)
        if step.problem is not None:
            raise step.problem

    def gone(self, topic: str, letter: str) -> Publish:
        """Return what tells that a letter is gone."""
        due, about = self.topology.due, Properties(None, {GONE: letter}, 2)
        return Publish(self.message(due, self.topology.gone(topic), about, b"", mandatory=True), 1, due)

    def admin(self) -> PubSubAdmin:
        if (management := self.component.engine.management) is None:
            from .admin import RabbitmqAdmin

            return RabbitmqAdmin(self)
        from .managed import ManagedAdmin

        return ManagedAdmin(self, management)
