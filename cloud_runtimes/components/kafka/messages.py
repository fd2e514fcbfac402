"""Messages of a topic: how events are written, by the CloudEvents binding for Kafka (version 1.0.2), and what a member reads of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, Message

from ..._native import events as kernel
from ...codec.payload import OCTETS
from ...spi.broker.in_flight import InFlight, Unacked
from ...spi.broker.mending import BACK
from ...spi.broker.policy import NO_HISTORY, DeliveryHistory
from ...spi.broker.reading import read_count
from ...spi.broker.redelivery import as_messages, pieces, read_history, write_history
from ...spi.events import to_binary
from ...spi.pubsub import EventRecord
from .producer import Headers, Outgoing
from .settings import KafkaSettings

_STRUCTURED: Final = b"application/cloudevents"
_JSON: Final = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
_DUE: Final = "cr-due"
"""When an event may come again, milliseconds since 1970 UTC by the clock of the member that gave it back."""
PAST: Final = "cr-past"
_TOPIC: Final = "cr-topic"
"""What a dead letter was first published to."""
COPY: Final = "cr-copy"
"""Which removed event this one is; see `removals`."""
_ROOM: Final = 900_000
"""Bytes of a frame; brokers take messages of 1 MiB unless they are told otherwise."""


class Writer:
    """Makes messages in the layout of a component."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._framed = settings.layout == "frame"
        self._binary = settings.content_mode == "binary"

    def publish(self, frames: Sequence[bytes]) -> tuple[list[Outgoing], list[int] | None]:
        """Return the messages of a batch, and how many events each has; ``None``: one."""
        if self._framed:
            parts = [piece for frame in frames for piece in pieces(frame, _ROOM)]
            return [(piece, None, []) for piece in parts], [len(kernel.Frame(piece)) for piece in parts]
        return list(itertools.chain.from_iterable(self._events(frame, raw=True) for frame in frames)), None

    def dead(self, part: Unacked, topic: str) -> Iterator[Outgoing]:
        """Return the messages of a part that goes to a dead-letter topic."""
        assert part.frame is not None
        for data, key, headers in self._events(part.frame, raw=False):
            yield data, key, [*headers, (_TOPIC, topic.encode())]

    def redriven(self, frame: bytes, copy_of: str, *, alone: bool) -> Outgoing:
        """Return the message of one event that is delivered again, to one group ``alone``."""
        mark = COPY, copy_of.encode()
        if alone:
            return frame, kernel.Frame(frame)[0].key, [mark, (PAST, write_history(0, BACK).encode())]
        data, key, headers = next(self._events(frame, raw=False))
        return data, key, [*headers, mark]

    @staticmethod
    def again(part: Unacked, now_ms: int) -> Iterator[Outgoing]:
        """Return the messages of a part that comes again."""
        assert part.frame is not None
        headers = [(PAST, write_history(part.deliveries, part.history).encode())]
        if part.delay_ms:
            headers.append((_DUE, str(now_ms + part.delay_ms).encode()))
        for piece in pieces(part.frame, _ROOM):
            yield piece, None if part.held.unread is not None else kernel.Frame(piece)[0].key, headers

    def _events(self, body: bytes, *, raw: bool) -> Iterator[Outgoing]:
        frame = kernel.Frame(body)
        keys = _keys(frame)
        if raw and frame[0].raw:
            payloads = zip(as_messages([body], raw=True), keys, strict=True)
            return ((data, key, [("content-type", (kind or OCTETS).encode())]) for (kind, data), key in payloads)
        if self._binary:
            return map(_binary, (frame[index] for index in range(len(frame))), keys)
        return zip(frame.structured(), keys, itertools.repeat(_JSON))


def _binary(record: EventRecord, key: str | None) -> Outgoing:
    headers, data = to_binary(record, prefix="ce_")
    return data, key, [(name, value.encode()) for name, value in headers.items()]


def _keys(frame: kernel.Frame) -> list[str | None]:
    """Return the keys of all events."""
    keys = frame.render(["key", b"\0"]).decode().split("\0")
    if len(keys) != len(frame) + 1:  # one has a NUL in it
        return [frame[index].key for index in range(len(frame))]
    return [key or None for key in keys[:-1]]


class Incoming(NamedTuple):
    """A message as a member reads it.

    Attributes:
        offset: of it.
        key: of its event, if that has none itself; only in a group with an order.
        data: its body.
        headers: names in lower case; ``None``: nothing matters but the body.
        deliveries: this one included.
        past: of its events.
        due: when it may be delivered, by `time.time`; 0: now.
    """

    offset: int
    key: bytes | None
    data: bytes
    headers: Mapping[str, str] | None = None
    deliveries: int = 1
    past: DeliveryHistory = NO_HISTORY
    due: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether nothing but its data matters."""
        return self.headers is None and self.deliveries == 1 and not self.due

    def put(self, in_flight: InFlight, origin: Hashable) -> None:
        """Put it into a in_flight."""
        headers = self.headers or {}
        topic = headers.get(_TOPIC)
        key = _text(self.key) if self.key else None
        in_flight.add_message(origin, self.offset, self.data, headers, self.deliveries, self.past, topic, key)


class Run(NamedTuple):
    """Messages of one partition, in their order.

    Attributes:
        partition: of them; -1: an error concerns more than one.
        plain: whether nothing matters but the data.
        offsets: of them.
        messages: `Incoming`; plain ones: their data, in a group with an order (data, key).
        error: that came instead.
        start: offset at which the log began when they were fetched.
    """

    partition: int
    plain: bool
    offsets: list[int]
    messages: list[Any]
    error: KafkaError | None = None
    start: int = 0

    def join(self, run: Run) -> bool:
        """Append a run of the same partition, if it is like this one and what comes next."""
        same = self.plain is run.plain and self.start == run.start
        if not same or self.error or run.error or run.offsets[0] <= self.offsets[-1]:
            return False
        self.offsets.extend(run.offsets)
        self.messages.extend(run.messages)
        return True

    def split(self, count: int) -> tuple[Run, Run]:
        """Return so many messages, and the rest."""
        first = self._replace(offsets=self.offsets[:count], messages=self.messages[:count])
        return first, self._replace(offsets=self.offsets[count:], messages=self.messages[count:])


def runs(messages: Sequence[Any], ordered: bool) -> Iterator[Run]:
    """Read messages of confluent-kafka; ``ordered``: their keys, too."""
    partition: Any
    for partition, run in itertools.groupby(messages, Message.partition):
        those = list(run)
        for error in filter(None, map(Message.error, those)):
            yield Run(partition, False, [], [], error)
            those = [each for each in those if each.error() is None]
        if not those:
            continue
        headers: list[Any] = list(map(Message.headers, those))
        plain = headers.count(headers[0]) == len(headers) and _is_plain(headers[0])
        keys: list[Any] = list(map(Message.key, those)) if ordered else [None] * len(those)
        values: list[Any] = (
            [data or b"" for data in map(Message.value, those)] if plain else list(map(_read, those, keys))
        )
        if plain and ordered:
            values = list(zip(values, keys, strict=True))
        yield Run(partition, plain, list(map(Message.offset, those)), values)  # type: ignore[arg-type]


def _is_plain(headers: Headers | None) -> bool:
    if not headers:
        return True
    (name, value), *more = headers
    return not more and name.lower() == "content-type" and (value or b"").startswith(_STRUCTURED)


def _read(message: Any, key: bytes | None) -> Incoming:
    offset, data, headers = message.offset(), message.value() or b"", message.headers()
    if _is_plain(headers):
        return Incoming(offset, key, data)
    fields = {name.lower(): (value or b"").decode(errors="replace") for name, value in headers}
    deliveries, past = read_history(fields.get(PAST, ""))
    due = read_count(fields.get(_DUE)) / 1000
    return Incoming(offset, key, data, fields, deliveries + 1, past, due if due > time.time() else 0.0)


def _text(key: bytes) -> str:
    """Return the key of a message of others as one of an event, which is printable text."""
    text = key.decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else key.hex()
