"""Requests and their answers, without I/O: many share one subscription to an inbox."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Mapping
from math import inf
from typing import Final, NamedTuple, TypeAlias, TypeVar

from ...errors import CloudRuntimesError
from .failures import ServerError
from .protocol import Message, publish

T = TypeVar("T")
_API: Final = "$JS.API."
_STORED: Final = (_API, "$KV.", "$O.")
_CONSUMER: Final = -6
"""Of ``$JS.ACK.stream.consumer.deliveries.sequence.number.nanoseconds.pending``."""


class Request(NamedTuple):
    """A message that wants an answer.

    Attributes:
        subject, data, headers: of it.
        answers: how many: a server's status ends them early. 0: none is wanted.
        consumer: that is asked for messages; they come under their own subjects and name it.
    """

    subject: str
    data: bytes = b""
    headers: Mapping[str, str] | None = None
    answers: int = 1
    consumer: str = ""


class Bulk:
    """Messages that are made together and have one reply subject. A server finds it once, and not for each of them.

    Attributes:
        subject: of the first of them.
        render: makes them, given their reply.
        answers: how many. Acknowledgements are only counted: ``taken``.
    """

    data, headers, consumer = b"", None, ""  # as a request has them

    def __init__(self, subject: str, render: Callable[[bytes], bytes], answers: int) -> None:
        self.subject = subject
        self.render = render
        self.answers = answers
        self.taken = 0


class Batch:
    """Requests that are sent together.

    Attributes:
        requests: in the order of sending.
        writes: whether they may change anything that others see.
        until: to when of `time.monotonic` they are sent again while they get no answer, since a leader may have died with them.
        failure: after which the flow wants to wait a moment and go on; then there are no requests.
        resend_at: `time.monotonic` at which they are sent again without an answer; ``None``: never. The engine sets it.
        sent: how often they were sent.
        unanswered: whether no answer came to one time.
    """

    __slots__ = ("failure", "requests", "resend_at", "sent", "unanswered", "until", "writes")

    def __init__(
        self,
        *requests: Request | Bulk,
        writes: bool = False,
        until: float | None = None,
        failure: ServerError | CloudRuntimesError | None = None,
    ) -> None:
        """Without ``until``, writes are sent once, and what only asks as long as the call has time."""
        self.requests = requests
        self.writes = writes
        self.until = until if until is not None else 0.0 if writes else inf
        self.failure = failure
        self.sent = 0
        self.resend_at: float | None = None
        self.unanswered = False

    def moved(self, api: str) -> Batch:
        """Return these for the JetStream of another domain, whose API has that prefix."""
        return Batch(*[_moved(request, api) for request in self.requests])


def _moved(request: Request | Bulk, api: str) -> Request | Bulk:
    if isinstance(request, Request) and request.subject.startswith(_STORED):
        return request._replace(subject=api + request.subject.removeprefix(_API))
    return request


Flow: TypeAlias = Generator[Batch, list[list[Message]], T]
"""The steps of a call, without I/O: yields requests, and gets the answers of each."""


class Call:
    """A batch under way.

    Attributes:
        answers: of each request.
        missing: how many answers of each have not come.
        remaining: how many requests are not yet answered.
        failure: why there is no answer to one.
    """

    __slots__ = ("answers", "done", "failure", "missing", "remaining", "tokens")

    def __init__(self, batch: Batch, done: Callable[[Call], None]) -> None:
        self.answers: list[list[Message]] = [[] for _ in batch.requests]
        self.missing = [request.answers for request in batch.requests]
        self.remaining = sum(map(bool, self.missing))
        self.failure: ServerError | None = None
        self.tokens: list[bytes] = []
        self.done = done


class Inbox:
    """Where the answers of a connection arrive, under a token for each request.

    Attributes:
        subject: to subscribe to.
        waiting: requests by token or consumer: their call, their place in it, and themselves.
    """

    def __init__(self, prefix: str) -> None:
        name = f"{prefix}.{secrets.token_hex(12)}."
        self.subject = f"{name}*"
        self.waiting: dict[bytes, tuple[Call, int, Request | Bulk]] = {}
        self._prefix = name.encode()
        self._next = 0
        self._bulks = 0  # how many wait
        # an acknowledgement, and those of the same reply behind it
        begin, rest = re.escape(b"MSG " + self._prefix), rb'\d+\r\n\{"stream":"[^"]*",[^{}\r\n]*\}\r\n'
        self._taken = re.compile(rb"(%b(\d+) 1 )%b(?:\1%b)*+" % (begin, rest, rest))

    def begin(self, call: Call, batch: Batch) -> bytes:
        """Wait for the answers of a batch, and return what is to be sent."""
        parts = []
        for index, request in enumerate(batch.requests):
            reply = b""
            if request.answers:
                self._next += 1
                token = b"%d" % self._next
                self._wait(token, call, index, request)
                if isinstance(request, Bulk):
                    self._bulks += 1
                    request.taken = 0
                    parts.append(request.render(self._prefix + token))
                    continue
                if request.consumer:
                    self._wait(request.consumer.encode(), call, index, request)
                reply = self._prefix + token
            assert isinstance(request, Request)
            parts.append(publish(request.subject, request.data, reply, request.headers))
        return b"".join(parts)

    def _wait(self, token: bytes, call: Call, index: int, request: Request | Bulk) -> None:
        call.tokens.append(token)
        self.waiting[token] = call, index, request

    def forget(self, call: Call) -> None:
        """Wait no longer; an answer that comes later is dropped."""
        for token in call.tokens:
            self._pop(token)

    def _pop(self, token: bytes) -> None:
        entry = self.waiting.pop(token, None)
        if entry is not None and isinstance(entry[2], Bulk):
            self._bulks -= 1

    def take_bulk(self, data: bytes, at: int) -> int:
        """Take in acknowledgements of a bulk that stand in a row; returns where they end."""
        if not self._bulks or (match := self._taken.match(data, at)) is None:
            return at
        waits = self.waiting.get(match[2])
        if waits is not None:
            call, index, bulk = waits
            if not isinstance(bulk, Bulk):
                return at
            count = match[0].count(match[1])
            bulk.taken += count
            call.missing[index] -= count
            self._look(match[2], waits)
        return match.end()

    def take(self, message: Message) -> None:
        """Take in a message of the subscription."""
        if message.subject.startswith(self._prefix):
            token = message.subject[len(self._prefix) :]
        else:
            words = message.reply.split(b".")
            token = words[_CONSUMER] if len(words) >= -_CONSUMER else b""  # of another program
        entry = self.waiting.get(token)
        if entry is None:
            return
        call, index, request = entry
        call.answers[index].append(message)
        if isinstance(request, Bulk):
            call.missing[index] -= 1
        else:
            call.missing[index] = 0 if message.status else call.missing[index] - 1
        self._look(token, entry)

    def _look(self, token: bytes, entry: tuple[Call, int, Request | Bulk]) -> None:
        """Note what is complete."""
        call, index, request = entry
        if call.missing[index] <= 0:
            if request.consumer:
                self.forget(call)
            self._pop(token)
            self._answered(call)

    def denied(self, text: str) -> bool:
        """Take in an ``-ERR``: a request to a subject that it names gets no other answer. Returns whether there is one."""
        handled = False
        for token, (call, _, request) in list(self.waiting.items()):
            if f'"{request.subject}"' in text:
                self._pop(token)
                call.failure = call.failure or ServerError(0, text)
                self._answered(call)
                handled = True
        return handled

    def _answered(self, call: Call) -> None:
        call.remaining -= 1
        if not call.remaining:
            call.done(call)
