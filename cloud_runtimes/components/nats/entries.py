"""Entries of key-value buckets: their encoding, writes to them, and replies of the server."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from .._net.connections import ConnectionLost
from .failures import NO_MESSAGE, WRONG_SEQUENCES, ServerError
from .protocol import Message
from .requests import Request

API: Final = "$JS.API."
TTL: Final = "Cr-Ttl"
"""How long a message counts, in milliseconds; `Nats-TTL` has whole seconds."""
_DELETED: Final = {"KV-Operation": "DEL", "Nats-TTL": "60s"}
"""Headers of the marker in place of a deleted value, which expires by itself; by default after a minute."""
_MS: Final = re.compile("[0-9]{1,15}")
_STORED: Final = re.compile(rb'\{"stream":"[^"\\]*","seq":(\d+)\}')


def encode(text: str) -> str:
    """Return any text as one part of a subject, in the same order."""
    return base64.b32hexencode(text.encode()).decode().rstrip("=")


def decode(part: str) -> str:
    """Undo `encode`."""
    return base64.b32hexdecode(part + "=" * (-len(part) % 8)).decode()


class Entry(NamedTuple):
    """Current or last entry of a key.

    Attributes:
        sequence: of the message in its stream; 0: there never was one, or it has gone.
        data: the value.
        headers: of the message.
        deleted: whether it is a delete marker.
        expires_ms: when it expires by the server's clock, milliseconds since 1970 UTC; ``None``: never.
        written_ms: when it was written, likewise.
    """

    sequence: int
    data: bytes
    headers: Mapping[str, str]
    deleted: bool
    expires_ms: int | None
    written_ms: int


ABSENT: Final = Entry(0, b"", {}, True, None, 0)


class Put(NamedTuple):
    """Write of a key.

    Attributes:
        subject: of the key.
        data: ``None`` deletes.
        expected: the sequence that the key must have; ``None``: any.
        ttl_ms: time to live.
        headers: further ones.
    """

    subject: str
    data: bytes | None
    expected: int | None = None
    ttl_ms: int | None = None
    headers: Mapping[str, str] = {}

    def request(self, extra: Mapping[str, str], answers: int = 1) -> Request:
        """Return the message."""
        headers = {**self.headers, **extra}
        if self.data is None:
            headers = {**_DELETED, **headers}
        elif self.ttl_ms is not None:
            headers[TTL] = str(self.ttl_ms)
            headers["Nats-TTL"] = f"{-(-self.ttl_ms // 1000)}s"
        if self.expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(self.expected)
        return Request(self.subject, self.data or b"", headers, answers)


# -- answers --------------------------------------------------------------------


def is_behind(error: ServerError, expected: int | None) -> bool:
    """Return whether a server that refused a condition knows of earlier writes only: it led before, and the leader may take the write."""
    last = error.text.rpartition(" ")[2]
    return last.isdigit() and int(last) < (expected or 0)


def is_stored(answers: list[Message]) -> bool:
    return _STORED.fullmatch(answers[0].data) is not None


def read_stored(answers: list[Message]) -> int | ServerError:
    """Return the number under which a message was stored, or that its key has not the expected one."""
    (message,) = answers
    plain = _STORED.fullmatch(message.data)
    try:
        sequence: int = read_reply(message)["seq"] if plain is None else int(plain[1])
        return sequence
    except ServerError as error:
        if error.code in WRONG_SEQUENCES:
            return error
        raise


def read_reply(message: Message) -> dict[str, Any]:
    """Return an answer of JetStream's API.

    Raises:
        ServerError: it is an error.
        ConnectionLost: it is no answer.
    """
    if message.status:
        raise ServerError(message.status, "no responders")
    reply = None
    with suppress(ValueError, RecursionError):
        reply = json.loads(message.data)
    if not isinstance(reply, dict):
        raise ConnectionLost("what answers does not speak JetStream's API")
    if isinstance(error := reply.get("error"), dict):
        raise ServerError.of(error)
    return reply


def read_direct(message: Message) -> Entry:
    """Return what a key holds, as a replica answers."""
    if (status := message.status) == 404:
        return ABSENT
    if status:
        raise ServerError(status, message.headers.get("Description", "no responders"))
    headers = message.headers
    return entry_of(int(headers["Nats-Sequence"]), message.data, headers, headers["Nats-Time-Stamp"])


def read_leaders(message: Message) -> Entry:
    """Return what a key holds, as the leader answers."""
    try:
        record = read_reply(message)["message"]
    except ServerError as error:
        if error.code == NO_MESSAGE:
            return ABSENT
        raise
    head = base64.b64decode(record.get("hdrs", ""))
    headers = Message(b"", b"", head, b"").headers
    return entry_of(record["seq"], base64.b64decode(record.get("data", "")), headers, record["time"])


def entry_of(sequence: int, data: bytes, headers: dict[str, str], time: str | int) -> Entry:
    """Return what a message of a key says; ``time``: when it was written, RFC 3339 or milliseconds since 1970."""
    written = time if isinstance(time, int) else milliseconds(time)
    ttl = headers.get(TTL)
    expires = None if ttl is None or not _MS.fullmatch(ttl) else written + int(ttl)
    deleted = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
    return Entry(sequence, data, headers, deleted, expires, written)


def rfc3339(time_ms: int) -> str:
    """Return milliseconds since 1970 UTC as a time of RFC 3339."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def milliseconds(text: str) -> int:
    """Return a time of RFC 3339 with nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1000 + int(fraction[:3].ljust(3, "0") or 0)
