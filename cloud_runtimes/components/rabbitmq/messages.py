"""Messages: what is published of events, and what a member reads of what comes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from ..._native import events as kernel
from ...spi.broker.in_flight import InFlight
from ...spi.broker.ordered import PARTS
from ...spi.broker.reading import read_count
from ...spi.broker.redelivery import as_messages, read_history
from ...spi.events import EventRecord, to_binary
from .session import Delivered
from .topology import REST
from .wire import Properties, properties, read_properties

TOPIC: Final = "x-cr-topic"
"""What a dead letter was first published to."""
PAST: Final = "x-cr-past"
"""Of what comes again: how often it was delivered, when first and last, and the last error."""
OFFSET: Final = "x-stream-offset"
"""Of what comes from a stream."""
GONE: Final = "x-cr-gone"
"""The letter that a message stands for, in the stream of what was removed, and of copies."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
STRUCTURED: Final = Properties("application/cloudevents+json; charset=utf-8", None, 2)
FRAME: Final = Properties(None, None, 2)
PLAIN: Final = properties(STRUCTURED), properties(FRAME)
"""Properties of messages that have nothing else around their event, or events."""
_ATTRIBUTE: Final = re.compile(r"(?:cloudEvents[:_]|ce-)(.+)", re.IGNORECASE)
_BROKERS: Final = (
    "x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", OFFSET
)  # fmt: skip


class Tag(int):
    """A delivery tag together with the id of the message."""

    id: str = ""


def id_of(tag: int) -> str:
    """Return the id of a message without an envelope."""
    return getattr(tag, "id", "") or kernel.uuid7_text(kernel.uuid7())


class _Early(NamedTuple):
    """A message that is not due: what it is published with again, and how long it waits yet."""

    channel: int
    tag: int
    properties: Properties
    body: bytes
    delay_ms: int


def letter_of(record: EventRecord) -> str:
    """Return what tells a letter from all others of its topic."""
    says = record.extensions
    return f"{record.id} {says.get('dlgroup', '')} {says.get('dllast', '')}"


class Reader:
    """Puts messages into a in_flight.

    Attributes:
        early: messages that are not due.
    """

    def __init__(self, in_flight: InFlight, most: int = 2**31) -> None:
        """``most``: what RabbitMQ's count of deliveries is taken for at most."""
        self._in_flight = in_flight
        self._most = most
        self.early: list[_Early] = []

    def take(self, channel: int, deliveries: Sequence[Delivered]) -> int:
        """Take in messages of a channel; returns how many events they have."""
        count = 0
        tags: list[int] = []
        bodies: list[bytes] = []
        for tag, header, body in deliveries:
            if header in PLAIN:
                tags.append(tag)
                bodies.append(body)
                continue
            if tags:
                count += self._in_flight.add(channel, tags, bodies)
                tags, bodies = [], []
            count += self._take_one(channel, tag, header, body)
        if tags:
            count += self._in_flight.add(channel, tags, bodies)
        return count

    def _take_one(self, channel: int, tag: int, properties: bytes, data: bytes) -> int:
        about = read_properties(properties)
        headers = about.headers or {}
        if rest := read_count(headers.get(REST)):
            self.early.append(_Early(channel, tag, about._replace(headers=published(headers, REST)), data, rest))
            return 0
        before, past = read_history(str(headers.get(PAST, "")))
        deliveries = min(self._most, 1 + before + read_count(headers.get("x-delivery-count")))
        tag = Tag(tag)
        tag.id = about.message_id or ""
        attributes = _attributes(headers) | {"content-type": about.content_type or ""}
        return self._in_flight.add_message(channel, tag, data, attributes, deliveries, past, headers.get(TOPIC))


def published(headers: Mapping[str, Any], without: str = "") -> dict[str, Any] | None:
    """Return the headers with which a message was published, without one of them."""
    kept = {name: value for name, value in headers.items() if name != without and not name.startswith(_BROKERS)}
    return kept or None


def _attributes(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of an event in binary mode, as `read_binary` takes them: of the AMQP binding of CloudEvents §3.1, and of Knative's for RabbitMQ (``ce-``)."""
    attributes: dict[str, str] = {}
    for name, value in headers.items():
        if (match := _ATTRIBUTE.fullmatch(name)) is not None:
            attribute = match[1].lower()
            if attribute == "time" and isinstance(value, int):  # AMQP 1.0 has milliseconds
                with suppress(OverflowError):
                    value = f"{_EPOCH + timedelta(milliseconds=value):%Y-%m-%dT%H:%M:%S.%fZ}"
            attributes[f"ce-{attribute}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return attributes if "ce-specversion" in attributes else {}


def as_plain(frames: Sequence[bytes], *, raw: bool) -> list[tuple[Properties, bytes]]:
    """Return events as messages, in structured mode or without an envelope; see `as_messages`."""
    ids: list[str] = []
    if raw:
        ids = [record.id for frame in map(kernel.Frame, frames) for record in map(frame.__getitem__, range(len(frame)))]
    return [
        (STRUCTURED if kind is None else Properties(kind, None, 2, ids[index]), data)
        for index, (kind, data) in enumerate(as_messages(frames, raw=raw))
    ]


def as_binary(frames: Sequence[bytes]) -> list[tuple[Properties, bytes]]:
    """Return events as messages in binary mode."""
    messages: list[tuple[Properties, bytes]] = []
    for frame in map(kernel.Frame, frames):
        for index in range(len(frame)):
            headers, data = to_binary(frame[index], prefix="cloudEvents:")
            kind = headers.pop("content-type", None)
            messages.append((Properties(kind, headers, 2, frame[index].id), data))
    return messages


def routing_keys(frames: Iterable[bytes]) -> list[str]:
    """Return the routing key of each event: the number of its key's part, empty without a key."""
    keys: list[str] = []
    for frame in map(kernel.Frame, frames):
        keys += frame.render([("key", PARTS), b" "]).decode().split(" ")[:-1]
    return keys


def waiting(about: Properties, rest_ms: int) -> Properties:
    """Return properties of a message that is to wait so long once it comes."""
    return about._replace(headers={**(about.headers or {}), REST: rest_ms}) if rest_ms else about
