"""Messages of a stream: what a member reads of them, and what it writes of events that were not acknowledged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote
from zlib import crc32

from ..._native import events as kernel
from ...errors import CloudRuntimesError
from ...spi.events import read_binary
from .._deliveries import Past
from .._messages.holding import Holding, Part
from .._messages.parts import read_past, write_past
from .protocol import Message
from .streams import RETRY

__all__ = ["DUE", "TOPIC", "Due", "Reader", "deliveries_of", "part_headers", "sequence_of"]

DUE: Final = "Cr-Due"
"""When an event may be delivered, milliseconds since 1970 by the server's clock."""
TOPIC: Final = "Cr-Topic"
"""What a dead letter was first published to."""
_PAST: Final = "Cr-Past"
"""Of what comes again: how often it was delivered, when first and last, and the last error."""
_OURS: Final = re.compile(rb"NATS/1\.0\r\nNats-Msg-Id: [^\r\n]*\r\n\r\n")
_MOST: Final = 100_000
_STRUCTURED: Final = "application/cloudevents"


# a reply is $JS.ACK.stream.consumer.deliveries.sequence.number.nanoseconds.pending, or longer in front


def deliveries_of(token: bytes) -> int:
    """Return how often a message was delivered, this time included."""
    return int(token.rsplit(b".", 5)[1])


def sequence_of(token: bytes) -> str:
    """Return the number of a message in its stream."""
    return token.rsplit(b".", 4)[1].decode()


class Due(bytes):
    """The token of a message that may have been given back as too early: how often it was delivered is not exact."""


class _Early(NamedTuple):
    """A message that was delivered before it is due."""

    token: bytes
    delay_ms: int


class Reader:
    """Puts messages into a holding.

    Attributes:
        early: messages that the driver is to give back.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._pasts: dict[tuple[int, str], Past] = {}
        self.early: list[_Early] = []

    def remember(self, origin: Any, token: bytes, past: Past) -> None:
        """Keep what is known of a message that comes again, in case that it comes to this member."""
        if len(self._pasts) >= _MOST:
            self._pasts.clear()
        self._pasts[origin, sequence_of(token)] = past

    def take(self, origin: int, messages: Sequence[Message], now_ms: int) -> int:
        """Take in messages of one origin; returns how many events they have."""
        found = 0
        held: set[str] | None = None
        tokens: list[bytes] = []
        bodies: list[bytes] = []
        for message in messages:
            _, reply, head, data = message
            if origin != RETRY and reply.rsplit(b".", 5)[1] == b"1" and (not head or _OURS.fullmatch(head)):
                tokens.append(reply)
                bodies.append(data)
                continue
            if tokens:
                found += self._holding.add(origin, tokens, bodies)
                tokens, bodies = [], []
            if deliveries_of(reply) > 1:
                if held is None:
                    held = set(map(sequence_of, self._holding.tokens(origin)))
                if sequence_of(reply) in held:
                    continue  # its lease ended, and the member still has it
            found += self._take_one(origin, message, now_ms)
        if tokens:
            found += self._holding.add(origin, tokens, bodies)
        return found

    def _take_one(self, origin: int, message: Message, now_ms: int) -> int:
        token, data = message.reply, message.data
        headers = {name.lower(): value for name, value in message.headers.items()}
        deliveries = deliveries_of(token)
        if (due := headers.get(DUE.lower())) is not None and due.isdigit():
            if int(due) > now_ms:
                self.early.append(_Early(token, int(due) - now_ms))
                return 0
            token, deliveries = Due(token), max(1, deliveries - 1)
        before, past = read_past(headers.get(_PAST.lower(), ""))
        past = self._pasts.pop((origin, sequence_of(token)), past)
        deliveries += before
        kind = headers.get("content-type")
        if "ce-specversion" in headers:
            try:
                values = {name: unquote(value) if name.startswith("ce-") else value for name, value in headers.items()}
                data = read_binary(values, data, "").to_json()
                kind = None
            except CloudRuntimesError:
                kind = kind or "application/octet-stream"
        if kind is None or kind.startswith(_STRUCTURED):
            topic = headers.get(TOPIC.lower())
            return self._holding.add(origin, [token], [data], deliveries, past, topic)
        return self._holding.add_plain(origin, token, data, kind, deliveries, past)


def part_headers(part: Part, consumer: str, now_ms: int, data: bytes) -> dict[str, str]:
    """Return the headers of a message of a part; its id is that of no other, also when it is written by another member."""
    id = f"{consumer} {sequence_of(part.tokens[0])}"
    if part.delay_ms is None:
        frame = kernel.Frame(data) if data[:3] == b"CRF" else kernel.Frame(kernel.parse_cloudevent(data))
        told = "\n".join(f"{record.id} {crc32(record.payload)}" for record in map(frame.__getitem__, range(len(frame))))
        return {"Nats-Msg-Id": f"{id} dead {crc32(told.encode())}"}
    headers = {"Nats-Msg-Id": f"{id} {part.deliveries} {crc32(data)}", _PAST: write_past(part.deliveries, part.past)}
    if part.delay_ms:
        headers[DUE] = str(now_ms + part.delay_ms)
    return headers
