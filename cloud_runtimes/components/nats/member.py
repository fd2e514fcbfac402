"""A member of a consumer group on NATS, with a connection of its own.

It asks for as many messages as it has room for, and the server sends them as they come: so an idle member makes no call but that one, which ends after a while. What is settled, and renewals of leases, go by the same connection and have no answer. What comes again otherwise than by the server itself, and dead letters, go by the connection of the process, since their answers must be known first.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..._native import events as kernel
from ...errors import InternalError, UnavailableError
from ...spi.broker.in_flight import InFlight, Unacked
from ...spi.broker.member import SocketMember
from ...spi.broker.policy import LOOK_TIMEOUT, POLL, POLL_TIMEOUT, DeliveryPolicy
from ...spi.broker.redelivery import pieces
from ...spi.operation import Operation
from .._net.connections import ConnectionLost
from . import NatsComponent
from .entries import TTL, read_reply
from .failures import ServerError, map_error
from .messages import TOPIC, Due, Events, Reader, part_headers, sequence_of
from .protocol import Message, publish, subscribe, unsubscribe
from .requests import Flow, Request
from .streams import MAIN, RETRY

if TYPE_CHECKING:
    from .connection import Connection
    from .pubsub import NatsPubSub

_IDLE: Final = 30.0
"""Seconds after which a request for messages ends."""
_HEARTBEAT: Final = 5.0
"""Seconds of silence after which the server says that it still has the request."""
_GRACE: Final = 5.0
_LEAVING: Final = 2.0
_MOST: Final = 8 * 1024 * 1024
_ROOM: Final = 8192
_NO_RESPONDERS: Final = 503
_ACK: Final = b"+ACK"
_TERM: Final = b"+TERM"


class NatsMember(SocketMember):
    """See the module; made by `NatsPubSub.subscribe` once the group exists."""

    component: NatsComponent
    failures = (ConnectionLost, TimeoutError)

    def __init__(
        self,
        component: NatsComponent,
        driver: NatsPubSub,
        rules: DeliveryPolicy,
        in_flight: Callable[[DeliveryPolicy, Callable[[bytes], str]], InFlight] = InFlight,
        since: Mapping[int, str] | None = None,
    ) -> None:
        """``since``: when the consumers of its group were made."""
        self._stream = stream = driver.stream
        super().__init__(component, rules, in_flight(rules, lambda token: f"{stream.name}-{sequence_of(token)}"))
        self._driver = driver
        self._reader = Reader(self.in_flight)
        request = rules.request
        self._names = {each: self._stream.consumer(each, request.topic, request.group) for each in (MAIN, RETRY)}
        self._ack_wait = rules.ack_wait_ms / 1000
        self._connection: Connection | None = None
        self._inbox = ""
        self._new: dict[int, list[Message | Events]] = {MAIN: [], RETRY: []}
        self._asked = {MAIN: 0, RETRY: 0}  # messages that the server may still send
        self._heard = {MAIN: 0.0, RETRY: 0.0}  # when it last said something of them
        self._until = 0.0  # when the requests for them end
        self._requests = 0
        self._since = since or {}  # when the consumers were made
        self._gone = 0  # the status that says that a consumer is not there any more
        self._renewed = monotonic()
        self._shown = -inf  # when it last said that it is there
        self._out: list[bytes] = []
        self._acks: list[bytes] = []
        self._sent: list[bytes] = []  # the last acknowledgements, which a new connection sends again
        self._per_message = 100 if component.settings.layout == "frame" else 1  # events of the last ones

    # -- the source -------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def is_paused(self) -> bool:
        op = Operation(POLL, self.policy.pubsub, LOOK_TIMEOUT)
        return bool(self.component.engine.run(op, self._paused()))

    def _paused(self) -> Flow[bool]:
        try:
            return (yield from self._stream.is_paused(self._names[MAIN]))
        except ServerError:  # a consumer that has gone is made again by the next request
            return False

    def _exchange(self, want: int) -> None:
        self._settle(leaving=False)
        self._renew()
        if want and not self.in_flight.is_ready:
            self._ask(want)
        self._flush()

    def _failed(self, error: Exception, *, leaving: bool = False) -> UnavailableError:
        self._disconnect()
        what = str(error) if isinstance(error, ConnectionLost) or leaving else "the server does not read"
        held = ": what was held goes to another member" if leaving else ""
        return UnavailableError(f"nats {self._where}: {what}{held}")

    def _leave(self) -> None:
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        self._out += [unsubscribe(origin) for origin in self._names]
        self._ping()
        self.in_flight.release()
        self._settle(leaving=True)
        self._ping()
        if self._shown > -inf:
            subject = self._stream.presence(self._names[MAIN], self.policy.name)
            self._run(self._stream.clear(subject))

    @property
    def _where(self) -> str:
        return self.component.engine.where

    def _now_us(self) -> int:
        return int(self._stream.now() * 1e6)

    def _run(self, flow: Flow[Any]) -> Any:
        """Run steps on the connection of the process."""
        return self.component.engine.run(self.operation(), flow)

    # -- the connection ---------------------------------------------------

    def _connect(self) -> None:
        """Connect; what was asked for by an earlier connection does not come."""
        self._inbox = f"{self.component.settings.inbox_prefix}.{secrets.token_hex(12)}"
        greeting = b"".join(subscribe(f"{self._inbox}.{origin}.*", origin) for origin in self._names)
        self._connection = connection = self.component.engine.open(self.operation(), greeting)
        for origin, new in self._new.items():
            new.clear()
            connection.session.callbacks[origin] = new.append
        connection.session.bulk = self._take_events
        self._asked = dict.fromkeys(self._asked, 0)
        self._acks = self._sent + self._acks
        self._out.clear()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _flush(self) -> None:
        """Send what is to be sent."""
        if self._connection is not None and (self._out or self._acks):
            data = b"".join(self._acks + self._out)
            if self._acks:
                self._sent, self._acks = self._acks, []
            self._out.clear()
            self._connection.send(data, monotonic() + POLL_TIMEOUT)

    def _ping(self) -> None:
        """Send all, and wait until the server has taken it; what it sent before is taken in."""
        connection = self._connection
        assert connection is not None
        pongs = connection.session.pongs
        self._out.append(b"PING\r\n")
        self._flush()
        end = monotonic() + _LEAVING
        while connection.session.pongs == pongs:
            if not connection.wait(end):
                raise TimeoutError
            self._read()

    # -- settling ---------------------------------------------------------

    def _settle(self, leaving: bool) -> None:
        """Say what became of messages; what is to be published first has been, once this returns."""
        in_flight = self.in_flight
        native = [not leaving and self._is_whole(part) for part in in_flight.unacked]
        self._write(part for part, alone in zip(in_flight.unacked, native, strict=True) if not alone)
        for part, alone in zip(in_flight.unacked, native, strict=True):
            if alone:
                for token in part.tokens:
                    self._reader.remember(part.held.origin, token, part.history)
                self._answer(b"-NAK %b" % _delayed(part.delay_ms or 0), part.tokens)
            elif part.done:
                self._answer(_ACK if part.delay_ms is not None or not part.events else _TERM, part.tokens)
        in_flight.unacked.clear()
        self._answer(_ACK, in_flight.take_done())
        in_flight.expired = 0

    def _write(self, parts: Iterable[Unacked]) -> None:
        """Publish what is to be published of parts, and count what comes no more."""
        requests = [request for part in parts for request in self._publishing(part)]
        counters = list(self._counters())
        if requests or counters:
            self._run(self._published(requests, counters))

    def _give_back_early(self) -> None:
        for token, delay_ms in self._reader.early:
            self._answer(b"-NAK %b" % _delayed(delay_ms), (token,))
        self._reader.early.clear()

    def _is_whole(self, part: Unacked) -> bool:
        """Return whether a part is all that is in its messages, so that they can come again themselves."""
        whole = part.done and (part.held.single or part.events == part.held.length)
        return whole and part.delay_ms is not None and not isinstance(part.tokens[0], Due)

    def _publishing(self, part: Unacked) -> Iterable[Request]:
        """Return what is published of a part before its messages are acknowledged."""
        if part.frame is None:
            return
        request, now_ms = self.policy.request, self._now_us() // 1000
        consumer = self._source_of(part)
        if part.delay_ms is None:
            subject = self._stream.topic(request.dead_letter_topic or "")
            for data in self._driver.letters(part.frame):
                headers = part_headers(part, consumer, now_ms, data)
                yield Request(subject, data, headers | {TOPIC: request.topic})
        else:
            subject = self._stream.subject(RETRY, request.topic, request.group)
            for piece in pieces(part.frame, self.component.engine.max_payload - _ROOM):
                yield Request(subject, piece, part_headers(part, consumer, now_ms, piece))

    def _source_of(self, part: Unacked) -> str:
        """Return the name of what a part came from, the same for every member."""
        return self._names[part.held.origin]  # type: ignore[index]

    def _counters(self) -> Iterator[Request]:
        """Return what counts events that come no more, and were not acknowledged."""
        request = self.policy.request
        for part in self.in_flight.unacked:
            if part.events and part.delay_ms is None:
                what = "dropped" if part.frame is None else "dead_lettered"
                id = f"{self._source_of(part)} {sequence_of(part.tokens[0])} {what} {part.held.remaining} {part.events}"
                yield self._stream.counter(what, request, part.events, id)
        if expired := self.in_flight.expired:
            yield self._stream.counter(
                "expired", request, expired, f"{self.policy.name} {self._requests} {monotonic()}"
            )

    def _published(self, requests: Sequence[Request], counters: Sequence[Request]) -> Flow[None]:
        if counters and (yield from self._stream.counts()):
            requests = [*requests, *counters]
        if requests:
            for (message,) in (yield self._stream.writes(requests, ids=True)):
                read_reply(message)

    def _answer(self, what: bytes, tokens: Iterable[bytes]) -> None:
        tail = b" %d\r\n%b\r\n" % (len(what), what)
        lines = self._acks if what in (_ACK, _TERM) else self._out
        lines += [b"PUB %b%b" % (token, tail) for token in tokens]

    def _renew(self) -> None:
        """Renew the leases of what is held, and say that the member is there where no request for messages does."""
        now = monotonic()
        if self.in_flight.held and now >= self._shown + self._ack_wait / 3 and not any(self._asked.values()):
            self._shown = now
            subject = self._stream.presence(self._names[MAIN], self.policy.name)
            self._out.append(publish(subject, b"", b"", {"Nats-Rollup": "sub", TTL: str(self.policy.ack_wait_ms)}))
        if self.in_flight.held and now >= self._renewed + self._ack_wait / 3:
            for origin in self._names:
                self._answer(b"+WPI", self.in_flight.tokens(origin))
            self._renewed = now
        elif not self.in_flight.held:
            self._renewed = now

    # -- asking -----------------------------------------------------------

    def _ask(self, want: int) -> None:
        """Ask for messages, unless those that were asked for are enough."""
        now = monotonic()
        if now > self._until + _GRACE:
            self._asked = dict.fromkeys(self._asked, 0)
        count = max(1, want // self._per_message)
        missing = count - self._asked[MAIN]
        if missing > count // 2:
            self._request(MAIN, missing)
        if RETRY in self._names and not self._asked[RETRY]:
            self._request(RETRY, 1)

    def _request(self, origin: int, count: int) -> None:
        self._requests += 1
        asked = {
            "batch": count, "expires": int(_IDLE * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9),
            # frames may be where events were expected; a server gives up clients that are too far behind
            "max_bytes": _MOST + 2 * self.component.engine.max_payload,
        }  # fmt: skip
        body = json.dumps(asked)
        reply = f"{self._inbox}.{origin}.{self._requests}"
        subject = self._stream.next_of(self._names[origin])
        self._out.append(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(body), body.encode()))
        if not self._asked[origin]:
            self._heard[origin] = monotonic()
        self._asked[origin] += count
        self._until = monotonic() + _IDLE

    # -- reading ----------------------------------------------------------

    def _wait(self, want: int, timeout: float | None) -> None:
        """Wait for messages, for `wake`, or for what is due."""
        connection = self._connection
        assert connection is not None
        end = None if timeout is None else monotonic() + timeout
        while True:
            now = monotonic()
            due = self._due(now)
            remaining = (due if end is None else min(end, due)) - now
            readable = connection.has_decrypted() or self.waker.wait(connection, max(0.0, remaining))
            if readable:
                self._read()
                if (want and self.in_flight.is_ready) or self.in_flight.unacked or self.in_flight.done:
                    return
                if end is not None and monotonic() >= end:  # it sends without an end
                    return
                if want:
                    self._ask(want)
                self._flush()
            elif readable is False or (end is not None and monotonic() >= end):
                return
            elif monotonic() >= due:
                if monotonic() > self._silent_from():
                    raise ConnectionLost("the server does not answer")
                self._renew()
                self._flush()

    def _due(self, now: float) -> float:
        """Return when there is something to do without being told."""
        due = now + _IDLE
        if self.in_flight.held:
            due = min(due, self._renewed + self._ack_wait / 3)
        return min(due, self._silent_from() + 0.01)

    def _silent_from(self) -> float:
        """Return when a consumer that was asked has said nothing for too long: its leader may have died with the request, whatever the connection brings of the other."""
        heard = [self._heard[origin] for origin, asked in self._asked.items() if asked]
        return min(heard, default=inf) + 2 * _HEARTBEAT + _GRACE

    def _read(self) -> None:
        """Take in what has come."""
        connection = self._connection
        assert connection is not None
        connection.receive()
        if answer := connection.answer():
            self._out.append(answer)
        if (error := connection.session.error) is not None:
            connection.session.error = None
            if error.lower().startswith("permissions violation"):
                raise map_error(self._where, ServerError(0, error))
        for origin, new in self._new.items():
            if new:
                self._heard[origin] = monotonic()
                messages, new[:] = new[:], []
                self._take(origin, messages)
        if self._gone:
            self._rejoin()

    def _take_events(self, data: bytes, at: int) -> int:
        """Take in messages that the kernel knows; see `Session.bulk`."""
        at, tokens, frame = kernel.take_messages(data, at, MAIN, self.in_flight.topic)
        if frame is not None:
            self._new[MAIN].append(Events(tokens, frame))
        return at

    def _take(self, origin: int, messages: list[Message | Events]) -> None:
        statuses = [each for each in messages if isinstance(each, Message) and not each.reply and each.status]
        if statuses:
            told = set(map(id, statuses))
            messages = [message for message in messages if id(message) not in told]
        if messages:
            taken = sum(len(each.tokens) if isinstance(each, Events) else 1 for each in messages)
            self._asked[origin] = max(0, self._asked[origin] - taken)
            count = self._reader.take(origin, messages, self._now_us() // 1000)
            if origin == MAIN and count:
                self._per_message = max(1, count // taken)
            self._give_back_early()
        for message in statuses:
            self._status(origin, message)

    def _status(self, origin: int, message: Message) -> None:
        """Take in what a server says of a request for messages."""
        status = message.status
        if status == 100:
            return
        text = message.head.partition(b"\r\n")[0].decode(errors="replace")
        pending = message.headers.get("Nats-Pending-Messages")
        self._asked[origin] = 0 if pending is None else max(0, self._asked[origin] - int(pending))
        if status == _NO_RESPONDERS or "Consumer Deleted" in text:
            self._gone = max(self._gone, status)
        elif "Exceeded" in text:  # a limit that others set
            raise UnavailableError(f"nats {self._where}: {self._names[origin]}: {text}")
        elif status not in (404, 408, 409):
            raise InternalError(f"nats {self._where}: {text}")

    def _rejoin(self) -> None:
        """Make the group again where it has gone, from the beginning: what is there may come twice, and nothing is missed.

        A deleted consumer answers each request for messages that it had, so some of these answers come when there is a new one, which may have delivered already.
        """
        lost, self._gone = self._gone, 0
        self._asked = dict.fromkeys(self._asked, 0)
        self._stream.forget()
        before = self._since
        self._since = self._run(self._stream.join(self.policy.request, self.policy.ack_wait_ms, None, None))
        changed = [origin for origin, since in self._since.items() if since != before.get(origin)]
        if changed:
            for origin in changed:  # what was held of it comes again
                self.in_flight.forget(origin)
            for lines in (self._acks, self._sent):  # a new one would take them for its own messages
                lines.clear()
            raise UnavailableError(
                f"nats {self._where}: the consumer of {self.policy.label} had gone, and was made again"
            )
        if lost == _NO_RESPONDERS:
            raise UnavailableError(
                f"nats {self._where}: the consumer of {self.policy.label} has no leader now: "
                "most of its servers must run and have caught up, which /healthz of each tells"
            )


def _delayed(delay_ms: int) -> bytes:
    return b'{"delay": %d}' % (delay_ms * 1_000_000) if delay_ms > 0 else b""
