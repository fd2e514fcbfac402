"""Buckets: JetStream's streams of one message per key, and what is read from and written to them. Flows without I/O.

A bucket is one that ``nats kv`` reads. Its keys are encoded, since subjects have no spaces, wildcards and empty parts.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...errors import NotFoundError, ResourceExhaustedError, UnsupportedError
from .failures import NO_MESSAGE, NO_STREAM, STREAM_EXISTS, WRONG_SEQUENCES, Refused
from .protocol import Message
from .requests import Batch, Flow, Request

if TYPE_CHECKING:
    from .engine import NatsEngine

__all__ = ["Bucket", "Entry", "Put", "api_json", "decode", "encode", "milliseconds"]

MAX_BATCH: Final = 1000
"""Messages of one atomic batch."""
_API: Final = "$JS.API."
_TTL: Final = "Cr-Ttl"
_DELETED: Final = {"KV-Operation": "DEL", "Nats-TTL": "60s"}
"""What takes a value's place, and goes by itself."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]*")
_NEEDED: Final = {"allow_direct": True, "allow_msg_ttl": True, "allow_atomic": True, "max_msgs_per_subject": 1}


def encode(text: str) -> str:
    """Return any text as one part of a subject, in the same order."""
    return base64.b32hexencode(text.encode()).decode().rstrip("=")


def decode(part: str) -> str:
    """Undo `encode`."""
    return base64.b32hexdecode(part + "=" * (-len(part) % 8)).decode()


class Entry(NamedTuple):
    """What a key holds, or last held.

    Attributes:
        sequence: of the message in its stream; 0: there never was one, or it has gone.
        data: the value.
        headers: of the message.
        deleted: it is the mark of a delete.
        expires_ms: when it expires by the server's clock, milliseconds since 1970 UTC; ``None``: never.
    """

    sequence: int
    data: bytes
    headers: Mapping[str, str]
    deleted: bool
    expires_ms: int | None


ABSENT: Final = Entry(0, b"", {}, True, None)


class Put(NamedTuple):
    """One write.

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
            headers.update(_DELETED)
        elif self.ttl_ms is not None:
            headers[_TTL] = str(self.ttl_ms)
            headers["Nats-TTL"] = f"{-(-self.ttl_ms // 1000)}s"
        if self.expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(self.expected)
        return Request(self.subject, self.data or b"", headers, answers)


class Bucket:
    """One bucket.

    Attributes:
        name: as ``nats kv`` has it.
    """

    def __init__(self, engine: NatsEngine, service: str, store: str) -> None:
        settings = engine.settings
        self._engine = engine
        self._store = store
        plain = store if _PLAIN.fullmatch(store) else f"_{encode(store)}"
        self.name = f"{settings.prefix}-{service}-{plain}"
        self._stream = f"KV_{self.name}"
        self._get = f"{_API}DIRECT.GET.{self._stream}."

    def subject(self, kind: str, key: str) -> str:
        """Return the subject of a key."""
        return f"$KV.{self.name}.{kind}.{encode(key)}"

    # -- the bucket itself ------------------------------------------------

    def ensure(self) -> Flow[_Known]:
        """Make the bucket, or check it, once in this process."""
        known: _Known | None = self._engine.buckets.get(self.name)
        if known is None:
            info = yield from self._made()
            config = info["config"]
            wrong = [name for name, value in _NEEDED.items() if config.get(name) != value]
            if wrong:
                raise UnsupportedError(
                    f"nats {self._engine.where}: the bucket {self.name!r} lacks {', '.join(wrong)}: "
                    "let the component make it, or set them by nats stream edit"
                )
            known = self._engine.buckets[self.name] = _Known(config["num_replicas"] > 1, milliseconds(info["ts"]))
        return known

    def _made(self) -> Flow[dict[str, Any]]:
        settings = self._engine.settings
        try:
            return (yield from self._api("STREAM.INFO", None))
        except Refused as error:
            if error.code != NO_STREAM:
                raise
        if settings.ensure == "check":
            raise NotFoundError(
                f'nats {self._engine.where}: there is no bucket {self.name!r}: make it, or set ensure = "create"'
            )
        config = {
            "name": self._stream, "subjects": [f"$KV.{self.name}.>"], "num_replicas": settings.replicas,
            "storage": "file", "discard": "new", "allow_rollup_hdrs": True, "deny_delete": True, "max_age": 0,
            # above what a bucket of this name may have given before it was removed
            "first_seq": time_ns() // 1_000_000, **_NEEDED,
        }  # fmt: skip
        try:
            yield from self._api("STREAM.CREATE", config, writes=True)
        except Refused as error:
            if error.code != STREAM_EXISTS:  # another made it just now
                raise
        return (yield from self._api("STREAM.INFO", None))

    def _api(
        self, verb: str, body: Mapping[str, Any] | None, rest: str = "", writes: bool = False
    ) -> Flow[dict[str, Any]]:
        data = b"" if body is None else json.dumps(body).encode()
        ((message,),) = yield Batch(Request(f"{_API}{verb}.{self._stream}{rest}", data), writes=writes)
        return api_json(message)

    def now_ms(self) -> Flow[int]:
        """Return the least that the server's clock says now, without asking it again."""
        return (yield from self.ensure()).now_ms()

    # -- reading ----------------------------------------------------------

    def read(self, subjects: Sequence[str], *, strong: bool = True) -> Flow[list[Entry]]:
        """Return what keys hold, expired values too; ``strong``: as their leader knows it."""
        known = yield from self.ensure()
        try:
            if not known.replicated or not strong:
                answers = yield Batch(*[Request(self._get + subject) for subject in subjects])
                return [_entry(message) for (message,) in answers]
            answers = yield Batch(*[self._ask_leader(subject) for subject in subjects])
            return [_leaders(message) for (message,) in answers]
        except Refused as error:
            self._forget(error)
            raise

    def read_now(self, subject: str) -> Flow[tuple[Entry, int]]:
        """Return what a key holds as its leader knows it, and what the server's clock says, asked for before."""
        yield from self.ensure()
        (info,), (message,) = yield Batch(Request(f"{_API}STREAM.INFO.{self._stream}"), self._ask_leader(subject))
        return _leaders(message), milliseconds(api_json(info)["ts"])

    def _ask_leader(self, subject: str) -> Request:
        return Request(f"{_API}STREAM.MSG.GET.{self._stream}", json.dumps({"last_by_subj": subject}).encode())

    def keys(self, kind: str) -> Flow[list[str]]:
        """Return the keys that have values, in no order. Their values stay where they are."""
        known = yield from self.ensure()
        name = secrets.token_hex(8)
        where = f"$KV.{self.name}.{kind}."
        config = {
            "name": name, "deliver_policy": "last_per_subject", "ack_policy": "none", "headers_only": True,
            "mem_storage": True, "num_replicas": 1, "inactive_threshold": 30_000_000_000, "filter_subject": f"{where}*",
        }  # fmt: skip
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        made = yield from self._api("CONSUMER.CREATE", body, f".{name}.{where}*")
        found: list[str] = []
        left = made["num_pending"]
        now = known.now_ms()
        while left > 0:
            want = min(left, 10_000)
            pull = json.dumps({"batch": want, "no_wait": True}).encode()
            (messages,) = yield Batch(Request(f"{_API}CONSUMER.MSG.NEXT.{self._stream}.{name}", pull, None, want, name))
            for message in messages:
                if not message.status:
                    entry = _consumed(message)
                    if not entry.deleted and (entry.expires_ms is None or entry.expires_ms > now):
                        found.append(decode(message.subject[len(where) :].decode()))
            left = 0 if messages[-1].status else left - len(messages)
        yield from self._api("CONSUMER.DELETE", None, f".{name}")
        return found

    # -- writing ----------------------------------------------------------

    def put(self, puts: Sequence[Put]) -> Flow[list[int | Refused]]:
        """Write each of some keys, in their order; returns sequences, and refusals of those that failed alone."""
        yield from self.ensure()
        answers = yield Batch(*[put.request({}) for put in puts], writes=True)
        found: list[int | Refused] = []
        for (message,) in answers:
            try:
                found.append(api_json(message)["seq"])
            except Refused as error:
                if error.code not in WRONG_SEQUENCES:
                    self._forget(error)
                    raise
                found.append(error)
        return found

    def put_all(self, puts: Sequence[Put]) -> Flow[bool]:
        """Write all or nothing; ``False``: a key has not the expected sequence. Each key comes once."""
        if len(puts) == 1:
            (done,) = yield from self.put(puts)
            return not isinstance(done, Refused)
        if len(puts) > MAX_BATCH:
            raise ResourceExhaustedError(f"a transaction on NATS writes {MAX_BATCH:,} keys at most: split it")
        yield from self.ensure()
        batch, last = secrets.token_hex(16), len(puts)
        requests = [
            put.request(
                {
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(number),
                    **({"Nats-Batch-Commit": "1"} if number == last else {}),
                },
                int(number in (1, last)),  # the first tells whether there can be a batch
            )
            for number, put in enumerate(puts, 1)
        ]
        answers = yield Batch(*requests, writes=True)
        try:
            for messages in (answers[0], answers[-1]):
                if messages[0].data or messages[0].status:
                    api_json(messages[0])
        except Refused as error:
            if error.code in WRONG_SEQUENCES:
                return False
            self._forget(error)
            raise
        return True

    def _forget(self, error: Refused) -> None:
        """Look at the bucket again, after an answer that says that it may be gone."""
        if error.code in (503, NO_STREAM):
            self._engine.buckets.pop(self.name, None)


class _Known:
    """What a look at a bucket has told."""

    def __init__(self, replicated: bool, time_ms: int) -> None:
        self.replicated = replicated
        self._time_ms = time_ms
        self._at = monotonic()

    def now_ms(self) -> int:
        # the answer is older than its arrival, so this is never ahead of the server
        return self._time_ms + int((monotonic() - self._at) * 1000)


def api_json(message: Message) -> dict[str, Any]:
    """Return an answer of JetStream's API.

    Raises:
        Refused: it is an error.
    """
    if message.status:
        raise Refused(message.status, "no responders")
    reply: dict[str, Any] = json.loads(message.data)
    if "error" in reply:
        raise Refused.of(reply["error"])
    return reply


def _entry(message: Message) -> Entry:
    if (status := message.status) == 404:
        return ABSENT
    if status:
        raise Refused(status, message.headers.get("Description", "no responders"))
    headers = message.headers
    return _made_of(int(headers["Nats-Sequence"]), message.data, headers, headers["Nats-Time-Stamp"])


def _leaders(message: Message) -> Entry:
    try:
        found = api_json(message)["message"]
    except Refused as error:
        if error.code == NO_MESSAGE:
            return ABSENT
        raise
    head = base64.b64decode(found.get("hdrs", ""))
    headers = Message(b"", b"", head, b"").headers
    return _made_of(found["seq"], base64.b64decode(found.get("data", "")), headers, found["time"])


def _consumed(message: Message) -> Entry:
    # $JS.ACK.stream.consumer.deliveries.sequence.number.nanoseconds.pending
    parts = message.reply.split(b".")
    return _made_of(int(parts[-4]), b"", message.headers, int(parts[-2]) // 1_000_000)


def _made_of(sequence: int, data: bytes, headers: dict[str, str], time: str | int) -> Entry:
    expires = None
    if (ttl := headers.get(_TTL)) is not None:
        expires = (time if isinstance(time, int) else milliseconds(time)) + int(ttl)
    deleted = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
    return Entry(sequence, data, headers, deleted, expires)


def milliseconds(text: str) -> int:
    """Return a time of RFC 3339 with nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1000 + int(fraction[:3].ljust(3, "0") or 0)
