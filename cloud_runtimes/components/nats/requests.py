"""Requests and their answers, without I/O: many share one subscription to an inbox."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping
from typing import Final, NamedTuple, TypeAlias, TypeVar

from .failures import Refused
from .protocol import Message, publish

__all__ = ["Batch", "Call", "Flow", "Inbox", "Request"]

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


class Batch:
    """Requests that are sent together.

    Attributes:
        requests: in the order of sending.
        writes: whether they may change anything. Those that do not are made again when they get no answer.
        failure: after which the flow wants to wait a moment and go on; then there are no requests.
    """

    __slots__ = ("failure", "requests", "writes")

    def __init__(self, *requests: Request, writes: bool = False, failure: Refused | None = None) -> None:
        self.requests = requests
        self.writes = writes
        self.failure = failure

    def moved(self, api: str) -> Batch:
        """Return these for the JetStream of another domain, whose API has that prefix."""
        requests = [
            (
                request._replace(subject=api + request.subject.removeprefix(_API))
                if request.subject.startswith(_STORED)
                else request
            )
            for request in self.requests
        ]
        return Batch(*requests, writes=self.writes)


Flow: TypeAlias = Generator[Batch, list[list[Message]], T]
"""The steps of a call, without I/O: yields requests, and gets the answers of each."""


class Call:
    """A batch under way.

    Attributes:
        answers: of each request.
        left: how many requests are not yet answered.
        failure: why there is no answer to one.
    """

    __slots__ = ("answers", "done", "failure", "left", "tokens")

    def __init__(self, batch: Batch, done: Callable[[Call], None]) -> None:
        self.answers: list[list[Message]] = [[] for _ in batch.requests]
        self.left = len([1 for request in batch.requests if request.answers])
        self.failure: Refused | None = None
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
        self.waiting: dict[bytes, tuple[Call, int, Request]] = {}
        self._prefix = name.encode()
        self._next = 0

    def begin(self, call: Call, batch: Batch) -> bytes:
        """Wait for the answers of a batch, and return what is to be sent."""
        parts = []
        for place, request in enumerate(batch.requests):
            reply = b""
            if request.answers:
                self._next += 1
                token = b"%d" % self._next
                self._wait(token, call, place, request)
                if request.consumer:
                    self._wait(request.consumer.encode(), call, place, request)
                reply = self._prefix + token
            parts.append(publish(request.subject, request.data, reply, request.headers))
        return b"".join(parts)

    def _wait(self, token: bytes, call: Call, place: int, request: Request) -> None:
        call.tokens.append(token)
        self.waiting[token] = call, place, request

    def forget(self, call: Call) -> None:
        """Wait no longer; an answer that comes later is dropped."""
        for token in call.tokens:
            self.waiting.pop(token, None)

    def take(self, message: Message) -> None:
        """Take in a message of the subscription."""
        if message.subject.startswith(self._prefix):
            token = message.subject[len(self._prefix) :]
        else:
            token = message.reply.split(b".")[_CONSUMER]
        found = self.waiting.get(token)
        if found is None:
            return
        call, place, request = found
        answers = call.answers[place]
        answers.append(message)
        if len(answers) >= request.answers or message.status:
            if request.consumer:
                self.forget(call)
            self.waiting.pop(token, None)
            self._answered(call)

    def denied(self, text: str) -> bool:
        """Take in an ``-ERR``: a request to a subject that it names gets no other answer. Tells whether there is one."""
        found = False
        for token, (call, _, request) in list(self.waiting.items()):
            if f'"{request.subject}"' in text:
                self.waiting.pop(token, None)
                call.failure = call.failure or Refused(0, text)
                self._answered(call)
                found = True
        return found

    def _answered(self, call: Call) -> None:
        call.left -= 1
        if not call.left:
            call.done(call)
