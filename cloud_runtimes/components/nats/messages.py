"""Messages of a stream: what a member reads of them, and what it writes of events that were not acknowledged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote
from zlib import crc32

from ..._native import events as kernel
from ...errors import PayloadError
from ...spi.broker.in_flight import InFlight, Unacked
from ...spi.broker.ordered import OrderedInFlight
from ...spi.broker.policy import DeliveryHistory
from ...spi.broker.reading import is_frame, read_count
from ...spi.broker.redelivery import read_history, write_history
from .protocol import Message
from .streams import RETRY

DUE: Final = "Cr-Due"
"""When an event may be delivered, milliseconds since 1970 by the server's clock."""
TOPIC: Final = "Cr-Topic"
"""What a dead letter was first published to."""
PAST: Final = "Cr-Past"
"""Of what comes again: how often it was delivered, when first and last, and the last error."""
_OURS: Final = re.compile(rb"NATS/1\.0\r\nNats-Msg-Id: [^\r\n]*\r\n\r\n")
_TOKEN: Final = re.compile(rb"\$JS\.ACK\..+\.\d+\.\d+\.\d+\.\d+\.\d+", re.DOTALL)
_MOST: Final = 100_000


# a reply is $JS.ACK.stream.consumer.deliveries.sequence.number.nanoseconds.pending, or longer in front


def deliveries_of(token: bytes) -> int:
    """Return how often a message was delivered, this time included."""
    return int(token.rsplit(b".", 5)[1])


def sequence_of(token: bytes) -> str:
    """Return the number of a message in its stream."""
    return token.rsplit(b".", 4)[1].decode()


class Due(bytes):
    """The token of a message that may have been given back as too early: how often it was delivered is not exact."""


class Events(NamedTuple):
    """Messages with an event each: their tokens, and the frame that the kernel made of them."""

    tokens: Sequence[bytes]
    frame: bytes


class _Early(NamedTuple):
    """A message that was delivered before it is due."""

    token: bytes
    delay_ms: int


class Reader:
    """Puts messages into a in_flight.

    Attributes:
        early: messages that the driver is to give back.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._pasts: dict[tuple[int, str], DeliveryHistory] = {}
        self.early: list[_Early] = []

    def remember(self, origin: Any, token: bytes, past: DeliveryHistory) -> None:
        """Keep what is known of a message that comes again, in case that it comes to this member."""
        if len(self._pasts) >= _MOST:
            self._pasts.clear()
        self._pasts[origin, sequence_of(token)] = past

    def take(self, origin: int, messages: Sequence[Message | Events], now_ms: int) -> int:
        """Take in messages of one origin; returns how many events they have."""
        count = 0
        held: set[str] | None = None
        tokens: list[bytes] = []
        bodies: list[bytes] = []
        for message in messages:
            if isinstance(message, Message) and origin != RETRY and _is_plain(message):
                tokens.append(message.reply)
                bodies.append(message.data)
                continue
            if tokens:
                count += self._in_flight.add(origin, tokens, bodies)
                tokens, bodies = [], []
            if isinstance(message, Events):
                count += self._in_flight.add_packed(origin, message.tokens, message.frame)
                continue
            reply = message.reply
            if not _TOKEN.fullmatch(reply):
                continue  # sent past the stream: nothing could acknowledge it
            if deliveries_of(reply) > 1:
                if held is None:
                    held = set(map(sequence_of, self._in_flight.tokens(origin)))
                if sequence_of(reply) in held:
                    continue  # its lease ended, and the member still has it
            count += self._take_one(origin, message, now_ms)
        if tokens:
            count += self._in_flight.add(origin, tokens, bodies)
        return count

    def _take_one(self, origin: int, message: Message, now_ms: int) -> int:
        token = message.reply
        headers = {name.lower(): value for name, value in message.headers.items()}
        headers |= {name: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
        deliveries = deliveries_of(token)
        in_flight = self._in_flight
        if due := read_count(headers.get(DUE.lower())):
            if isinstance(in_flight, OrderedInFlight):
                in_flight.due_ms = due
            elif due > now_ms:
                self.early.append(_Early(token, due - now_ms))
                return 0
            token, deliveries = Due(token), max(min(1, deliveries), deliveries - 1)
        before, past = read_history(headers.get(PAST.lower(), ""))
        past = self._pasts.pop((origin, sequence_of(token)), past)
        topic = headers.get(TOPIC.lower())
        count = in_flight.add_message(origin, token, message.data, headers, before + deliveries, past, topic)
        if due and isinstance(in_flight, OrderedInFlight):
            in_flight.due_ms = 0
        return count


def _is_plain(message: Message) -> bool:
    """Return whether nothing but the body of a message matters."""
    return message.reply.rsplit(b".", 5)[1:2] == [b"1"] and (not message.head or bool(_OURS.fullmatch(message.head)))


def part_headers(part: Unacked, consumer: str, now_ms: int, data: bytes) -> dict[str, str]:
    """Return the headers of a message of a part; its id is that of no other, also when it is written by another member."""
    id = f"{consumer} {sequence_of(part.tokens[0])}"
    if part.delay_ms is None:
        return {"Nats-Msg-Id": f"{id} dead {crc32(_identity(data))}"}
    headers = {
        "Nats-Msg-Id": f"{id} {part.deliveries} {crc32(data)}",
        PAST: write_history(part.deliveries, part.history),
    }
    if part.delay_ms:
        headers[DUE] = str(now_ms + part.delay_ms)
    return headers


def _identity(data: bytes) -> bytes:
    """Return the part of a dead letter that does not change when another member writes it."""
    try:
        frame = kernel.Frame(data if is_frame(data) else kernel.parse_cloudevent(data))
        records = [frame[index] for index in range(len(frame))]
        return "\n".join(f"{record.id} {crc32(record.payload)}" for record in records).encode()
    except PayloadError:  # of another writer, with an id that is no text
        return data
