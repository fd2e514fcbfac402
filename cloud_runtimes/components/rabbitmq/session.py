"""Protocol state of one connection, without I/O: the handshake, answers, confirms and deliveries."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

from ..._version import __version__
from .._net.connections import ConnectionLost
from .._net.partial import Partial
from .failures import NOT_FOUND, ServerError
from .wire import BODY, END, HEAD, HEADER, HEARTBEAT, METHOD, Delivered, Row, frame, method, read

__all__ = ["CALLS", "CLOSE", "CONFIRMS", "Ask", "Delivered", "Publish", "Session", "Step"]

CONFIRMS, CALLS = 1, 2
"""Channels: for what is published, and confirmed; for calls that have an answer. A refusal closes a channel, so each has its own. A caller may open others."""
_CHANNELS: Final = 255
"""The highest channel."""
_OPEN: Final = (20, 10), "s", ""
_SELECT: Final = (85, 10), "o", 0
_DELIVER: Final = b"\x00\x3c\x00\x3c"
_ANSWERS: Final = frozenset([
    (20, 11), (20, 41), (40, 11), (40, 21), (40, 31), (50, 11), (50, 21), (50, 31), (50, 41), (50, 51), (60, 11), (60, 21), (60, 31), (85, 11),
])  # fmt: skip
_CONSUMES: Final = (60, 21)
_FOLLOWS: Final = {10: 30, 30: 41, 41: 0}
"""Methods of the handshake, with the one that follows."""
_FRAMES: Final = 131072, 4096
"""Bytes of a frame: at most, since that is what servers are told; at least, as the specification has it."""
_LARGEST: Final = 1 << 29
"""Bytes of a message at most: those that a server can be told to take."""
_CAPABILITIES: Final = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "basic.nack": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class Step:
    """Request that a caller sends and waits for.

    Attributes:
        settled: called once it is answered, or failed.
        failure: why it failed.
        data: bytes to send.
    """

    failure: Exception | None = None
    data: bytes = b""

    def __init__(self) -> None:
        self.settled: Callable[[], None] = _nothing

    def fail(self, failure: Exception) -> None:
        """End it."""
        self.failure = failure
        self.settled()


class Ask(Step):
    """A method that has an answer.

    Attributes:
        answer: number of the method that answers it.
        channel: of both.
        reply: fields of the answer.
    """

    reply: bytes = b""

    def __init__(self, number: tuple[int, int], types: str, *values: Any, channel: int = CALLS) -> None:
        super().__init__()
        self.answer = number[0], number[1] + 1
        self.channel = channel
        self.data = method(channel, number, types, *values)


class Publish(Step):
    """Messages in a row, each of which the server confirms.

    Attributes:
        data: all of them as frames.
        count: how many.
        exchange: they go to.
        first: number of the first on its channel.
        refused: places of those that the server did not take.
        returned: bodies of those that no queue took.
    """

    def __init__(self, data: bytes, count: int, exchange: str) -> None:
        super().__init__()
        self.data = data
        self.count = count
        self.exchange = exchange
        self.first = 0
        self.refused: list[int] = []
        self.returned: list[bytes] = []
        self._low = 0
        self._beyond: set[int] = set()

    @property
    def remaining(self) -> int:
        """How many are not confirmed."""
        return self.first + self.count - self._low - len(self._beyond)

    @property
    def problem(self) -> Exception | None:
        """Why not all messages are in a queue; ``None``: they are."""
        if self.refused:
            return ServerError(0, "basic.nack")
        if self.returned:
            return ServerError(NOT_FOUND, f"NOT_FOUND - no queue of exchange '{self.exchange}'")
        return self.failure

    def begin(self, first: int) -> None:
        """It is sent."""
        self.first = self._low = first

    def unconfirmed(self) -> list[int]:
        """Return the places of those that the server is not known to have."""
        indexes = range(self._low - self.first, self.count)
        return self.refused + [index for index in indexes if index + self.first not in self._beyond]

    def confirm(self, number: int, multiple: bool, taken: bool) -> None:
        """Take in a confirm of one message, or of all up to it."""
        if multiple:
            end = min(number + 1, self.first + self.count)
            if not taken:
                self.refused += [each - self.first for each in range(self._low, end) if each not in self._beyond]
            self._low = max(self._low, end)
            self._beyond = {each for each in self._beyond if each >= self._low}
        elif number >= self._low and number not in self._beyond:  # a second confirm of a message says nothing
            if not taken:
                self.refused.append(number - self.first)
            self._beyond.add(number)
        while self._low in self._beyond:
            self._beyond.discard(self._low)
            self._low += 1


class Session:
    """See the module.

    Attributes:
        server: its properties.
        ready: whether it takes calls.
        frame_max: bytes of a frame.
        heartbeat: seconds; 0: none.
        blocked: why the server takes no messages now.
        out: what is to be sent in answer.
        deliveries: that came, by channel; see `take`.
        cancelled: whether the server ended the consumer.
        failure: why it closed the connection, or a channel where nobody waits.
    """

    def __init__(self, login: tuple[str, str] | None, vhost: str, heartbeat: int, name: str) -> None:
        """``login`` is user and password; ``None``: the client's certificate says who it is."""
        self._login = login
        self._vhost = vhost
        self._name = name
        self.server: dict[str, Any] = {}
        self.ready = False
        self.frame_max = _FRAMES[0]
        self.heartbeat = heartbeat
        self.blocked: str | None = None
        self.out = b""
        self.deliveries: defaultdict[int, list[Delivered]] = defaultdict(list)
        self.cancelled = False
        self.failure: ServerError | None = None
        self._rest = Partial()
        self._consumes = False
        self._follows = 10
        # of each channel; None: the session asked itself
        self._asked: dict[int, deque[Ask | None]] = {CONFIRMS: deque(), CALLS: deque()}
        self._publishing: deque[Publish] = deque()
        self._next = 1
        self._content: list[Any] | None = None
        self._channel = 0  # of that message
        self._again = False  # whether a message has the properties of the one before

    # -- what callers send ------------------------------------------------

    def begin(self, step: Step) -> bytes:
        """Wait for the answer of a step, and return what is to be sent."""
        if isinstance(step, Publish):
            step.begin(self._next)
            self._next += step.count
            self._publishing.append(step)
        else:
            assert isinstance(step, Ask)
            self._asked.setdefault(step.channel, deque()).append(step)
        return step.data

    def forget(self, step: Step) -> None:
        """Note that nobody waits for it any more."""
        step.settled = _nothing

    def end(self, failure: Exception) -> None:
        """Fail all that wait: the connection has ended."""
        asked = [step for steps in self._asked.values() for step in steps if step is not None]
        for step in (*self._publishing, *asked):
            step.fail(failure)
        self._publishing.clear()
        for steps in self._asked.values():
            steps.clear()

    # -- what the server says ---------------------------------------------

    def feed(self, received: bytes) -> None:
        """Take in bytes.

        Raises:
            ServerError: the server closed the connection.
            ValueError: it does not speak AMQP 0-9-1.
        """
        if self._rest.size and not (received := self._rest.add(received)):
            return
        data = received
        at, end, wanted = 0, len(data), HEAD.size
        first = header = body = -1  # where the frames of the message at hand begin, if they follow each other here
        while end - at >= HEAD.size:
            kind, channel, size = HEAD.unpack_from(data, at)
            stop = at + 7 + size
            if not 1 <= kind <= 8 or size > _FRAMES[0]:
                raise ValueError("a frame of no kind, or too large")
            if stop >= end:
                wanted = 8 + size
                break
            if data[stop] != END:
                raise ValueError("a frame that does not end where it says")
            if kind == METHOD:
                if data[at + 7 : at + 11] == _DELIVER:
                    offset = at + 12 + data[at + 11]
                    if offset + 8 > stop or not self._consumes or channel not in self._asked:
                        raise ValueError("a message without a tag, or that nobody asked for")
                    self._content = [int.from_bytes(data[offset : offset + 8], "big"), b"", 0, []]
                    self._channel = channel
                    first, header = at, stop + 1
                else:
                    self._method(channel, data[at + 7 : stop])
            elif self._content is not None and kind <= BODY:  # a heartbeat may be between
                self._part(kind, data, at + 7, stop)
                if kind == HEADER and at == header:
                    body = stop + 1
                elif at == body and self._content is None and self._again:
                    stop = Row(data, first, header, body).take(data, stop + 1, self.deliveries[channel]) - 1
            at = stop + 1
        if at < end:
            self._rest.keep(data[at:], wanted)

    def take(self) -> dict[int, list[Delivered]]:
        """Return the messages that came, by channel.

        Raises:
            ServerError: the server ended the consumer, or closed its channel.
        """
        if self.failure is not None:
            raise self.failure
        if self.cancelled:
            raise ServerError(NOT_FOUND, "the server ended the consumer")
        deliveries, self.deliveries = self.deliveries, defaultdict(list)
        return deliveries

    def _part(self, kind: int, data: bytes, begin: int, stop: int) -> None:
        """Take in a frame of a message's content."""
        content = self._content
        assert content is not None
        if kind == HEADER:
            content[1] = data[begin + 12 : stop]
            content[2] = int.from_bytes(data[begin + 4 : begin + 12], "big")
            if content[2] > _LARGEST:
                raise ValueError("a message that no server takes")
        elif kind == BODY:
            if begin < stop:
                content[3].append(data[begin:stop])
            content[2] -= stop - begin
        if content[2] <= 0:
            self._content = None
            of, properties, _, pieces = content
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if isinstance(of, int):
                arriving = self.deliveries[self._channel]
                self._again = bool(arriving) and arriving[-1][1] == properties
                arriving.append((of, properties, body))
            else:
                has = (each for each in self._publishing if each.exchange == of and b"".join(pieces[:1]) in each.data)
                step = next(has, None)
                if step is not None and len(step.returned) < step.count:
                    step.returned.append(body)

    def _method(self, channel: int, data: bytes) -> None:
        number = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        if channel and channel not in self._asked:
            raise ValueError("a channel that nobody opened")
        if number in ((60, 80), (60, 120)):
            tag, bits = read("qo", data, 4)
            self._confirmed(tag, bool(bits & 1), number == (60, 80))
        elif number in _ANSWERS:
            asked = self._asked[channel]
            if (step := asked[0]) is not None and step.answer != number:
                raise ValueError("an answer to what was not asked")
            asked.popleft()
            if step is not None:
                self._consumes = self._consumes or number == _CONSUMES
                step.reply = data[4:]
                step.settled()
        elif number == (60, 50):
            self._content = [read("hsss", data, 4)[2], b"", 0, []]
        elif number == (60, 30):
            self.cancelled = True
        elif number == (20, 40):
            code, text = read("hs", data, 4)
            self._closed(channel, ServerError(code, text))
        elif number[0] == 10:
            self._of_connection(number[1], data)

    def _of_connection(self, number: int, data: bytes) -> None:
        if number in _FOLLOWS:
            if number != self._follows:
                raise ValueError("a handshake in another order")
            self._follows = _FOLLOWS[number]
        if number == 10:
            _, _, self.server, mechanisms, _ = read("ootSS", data, 4)
            self._start(mechanisms.split())
        elif number == 30:
            channels, frame_max, heartbeat = read("hlh", data, 4)
            self.frame_max = min(frame_max or self.frame_max, self.frame_max)
            if self.frame_max < _FRAMES[1]:
                raise ValueError("frames that are too small for the protocol")
            self.heartbeat = min(heartbeat or self.heartbeat, self.heartbeat)
            self.out += method(
                0, (10, 31), "hlh", min(channels or _CHANNELS, _CHANNELS), self.frame_max, self.heartbeat
            )
            self.out += method(0, (10, 40), "sso", self._vhost, "", 0)
        elif number == 41:
            for channel in (CONFIRMS, CALLS):
                self._open(channel)
            self.ready = True
        elif number == 50:
            code, text = read("hs", data, 4)
            self.out += method(0, (10, 51), "")
            self.failure = ServerError(code, text)
            raise self.failure
        elif number == 51:
            self.ready = False
        elif number == 60:
            (self.blocked,) = read("s", data, 4)
        elif number == 61:
            self.blocked = None

    def _start(self, mechanisms: list[str]) -> None:
        kind = "EXTERNAL" if self._login is None else "PLAIN"
        if kind not in mechanisms:
            raise ServerError(403, f"login was refused using {kind}: the server has {', '.join(mechanisms)}")
        answer = "" if self._login is None else "\0{}\0{}".format(*self._login)
        about = {
            "product": "cloud-runtimes",
            "version": __version__,
            "platform": "Python",
            "connection_name": self._name,
            "capabilities": _CAPABILITIES,
        }
        self.out += method(0, (10, 11), "tsSs", about, kind, answer, "en_US")

    def _open(self, channel: int) -> None:
        self.out += method(channel, *_OPEN)
        self._asked[channel].append(None)
        if channel == CONFIRMS:
            self.out += method(channel, *_SELECT)
            self._asked[channel].append(None)

    def _confirmed(self, number: int, multiple: bool, taken: bool) -> None:
        for step in list(self._publishing):
            if step.first > number:
                break
            if multiple or number < step.first + step.count:
                step.confirm(number, multiple, taken)
                if not step.remaining:
                    self._publishing.remove(step)
                    step.settled()

    def _closed(self, channel: int, failure: ServerError) -> None:
        """Open a channel again that the server closed; what else waited there is told, or sent again. One that a caller opened is left to it."""
        self.out += method(channel, (20, 41), "")
        self._content = None
        asked = [each for each in self._asked[channel] if each is not None]
        self._asked[channel].clear()
        if channel == CONFIRMS:
            steps, self._publishing, self._next = self._publishing, deque(), 1
            self._open(channel)
            for step in steps:
                guilty = len(steps) == 1 or f"'{step.exchange}'" in failure.text
                step.fail(failure if guilty else ConnectionLost("the server closed the channel for another caller"))
            return
        if channel != CALLS:
            for each in asked:
                each.fail(failure)
            self.failure = failure
            return
        self._open(channel)
        for number, each in enumerate(asked):
            if number:
                self.out += self.begin(each)
            else:
                each.fail(failure)
        if not asked:
            self.failure = failure


CLOSE: Final = method(0, (10, 50), "hshh", 200, "", 0, 0)
"""Ends the connection once all before it is done."""


def _nothing() -> None:
    """Nobody waits."""


assert frame(8, 0, b"") == HEARTBEAT
