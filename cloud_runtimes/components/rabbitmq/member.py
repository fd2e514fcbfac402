"""A member of a consumer group on RabbitMQ, with a connection of its own.

The server sends messages as they come, up to the prefetch, and keeps them for this member while its connection lives. What comes again and dead letters are published by the connection of the process, and acknowledged once the server has confirmed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..._core.logs import repeated
from ...errors import CloudRuntimesError, UnavailableError
from ...spi.broker.in_flight import Held, InFlight
from ...spi.broker.member import SocketMember
from ...spi.broker.policy import POLL, POLL_TIMEOUT, DeliveryPolicy
from ...spi.broker.redelivery import write_history
from ...spi.operation import Operation
from ...spi.pubsub import Settled
from .._net.connections import ConnectionLost
from . import RabbitmqComponent
from .failures import NOT_FOUND, ServerError
from .link import PATIENCE, ask
from .messages import FRAME, GONE, OFFSET, PAST, TOPIC, Reader, id_of, letter_of, waiting
from .session import CALLS, CLOSE, Ask, Publish
from .wire import Properties, method, read_properties

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Flow
    from .pubsub import RabbitmqPubSub
    from .replay import Replay

_MOST: Final = 65535
_GONE: Final = 3
"""The channel of what tells which letters are gone."""
_AHEAD: Final = 1000
_LOOK = 30.0
"""Seconds without a message after which an idle member begins its consumer again: RabbitMQ 3.10 does not always say that a queue was deleted."""
_LOOK_TIMEOUT: Final = 1.5
"""Seconds of a look whether a group is paused: fewer than those after which a connection with a silent server is given up, and all that others publish by it."""


class RabbitmqMember(SocketMember):
    """See the module; made by `RabbitmqPubSub.subscribe` once the group exists."""

    component: RabbitmqComponent
    failures = (ConnectionLost, ServerError, TimeoutError)

    def __init__(
        self, component: RabbitmqComponent, driver: RabbitmqPubSub, rules: DeliveryPolicy, replay: Replay | None = None
    ) -> None:
        """``replay`` is closed with it."""
        super().__init__(component, rules, InFlight(rules, id_of))
        self._driver = driver
        self._replay = replay
        self._topology = driver.topology
        self._reader = Reader(self.in_flight)
        self._acks: dict[Any, Acknowledgements] = {}
        request = rules.request
        self._queue = self._topology.queue(request.topic, request.group)
        self._connection: Connection | None = None
        self._out: list[bytes] = []
        self._wanted = 0  # events that were wanted at once
        self._prefetch = 0  # messages
        self._consumers = 0  # so far
        self._per_message = 100.0 if component.settings.layout == "frame" else 1.0  # events of the last ones
        self._letters: set[str] = set()  # that are gone
        self._heard = 0.0  # when the last message came, or the consumer began

    # -- the source -------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def is_paused(self) -> bool:
        op, request = Operation(POLL, self.policy.pubsub, _LOOK_TIMEOUT), self.policy.request
        return bool(self.component.engine.run(op, self._topology.is_paused(request.topic, request.group)))

    def _exchange(self, want: int) -> None:
        self._settle()
        self._consume(want)
        self._read()
        self._flush()

    def _failed(self, error: Exception, *, leaving: bool = False) -> CloudRuntimesError:
        self._disconnect()
        if leaving:
            return UnavailableError(f"rabbitmq {self._where}: {error}: what was held goes to another member")
        if isinstance(error, TimeoutError):
            return UnavailableError(f"rabbitmq {self._where}: the server does not read")
        if isinstance(error, ServerError) and error.code == NOT_FOUND:
            self._rejoin()
            return UnavailableError(
                f"rabbitmq {self._where}: the queue of {self.policy.label} had gone, and was made again"
            )
        return self.component.engine.map_error(error)

    def close(self, settled: Sequence[Settled], /) -> None:
        try:
            super().close(settled)
        finally:
            if self._replay is not None:
                self._replay.close()

    def _leave(self) -> None:
        if self._connection is None:
            return  # what was held has gone to others with the connection
        self._give_back()
        self._settle()
        self._out.append(CLOSE)
        self._flush()
        end = monotonic() + PATIENCE
        while self._connection.session.ready:
            if not self._connection.wait(end):
                raise TimeoutError
            self._connection.receive()

    def _give_back(self) -> None:
        """Have what is held come again, at once and uncounted."""
        self._cancel()
        self._read()
        self.in_flight.release()

    @property
    def _where(self) -> str:
        return self.component.engine.where

    def _run(self, flow: Flow[Any]) -> Any:
        """Run steps on the connection of the process."""
        return self.component.engine.run(self.operation(), flow)

    # -- the connection ---------------------------------------------------

    def _connect(self) -> None:
        """Connect; what an earlier connection had is delivered again."""
        request, engine = self.policy.request, self.component.engine
        name = f"{request.topic} of {request.group}"
        learns = self._topology.streams and self._run(self._topology.has(self._topology.gone(request.topic)))
        # a server gives up a client that says nothing for two intervals
        self._connection = engine.open(self.operation(), name, self.policy.ack_wait_ms / 2000)
        self._prefetch = 0
        self._acks = {CALLS: Acknowledgements(CALLS)}
        self._out.clear()
        if learns:
            try:
                self._learn(self._topology.gone(request.topic))
            except BaseException:
                self._disconnect()
                raise

    def _learn(self, stream: str) -> None:
        """Learn which letters of the topic are gone, and consume what is told of others."""
        connection, mark = self._connection, token_hex(8)
        assert connection is not None
        self._ask(
            Ask((20, 10), "s", "", channel=_GONE),
            Ask((60, 10), "lho", 0, _AHEAD, 0, channel=_GONE),
            Ask((60, 20), "hssot", 0, stream, "gone", 0, {OFFSET: "first"}, channel=_GONE),
        )
        self._run(self._driver.tell_gone(self.policy.request.topic, mark))
        end = monotonic() + POLL_TIMEOUT
        while mark not in self._letters:
            if not connection.wait(end):
                raise TimeoutError
            connection.receive()
            self._read()
            self._flush()

    def _removed(self, held: Held) -> Iterator[int]:
        """Yield which events of a message are letters that are gone."""
        return (index for index in range(held.length) if letter_of(held.frame[index]) in self._letters)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            in_flight = self.in_flight
            in_flight.forget()
            in_flight.unacked.clear()
            in_flight.done.clear()
            self._reader.early.clear()

    def _rejoin(self) -> None:
        """Make the group again, whose queue has gone."""
        self._topology.forget()
        self._run(self._topology.join(self.policy.request))

    def _queue_of(self, channel: Any) -> str:
        """Return the queue that has its messages on a channel."""
        return self._queue

    def _flush(self) -> None:
        connection = self._connection
        assert connection is not None
        data = b"".join(self._out)
        self._out.clear()
        connection.send_all(data, monotonic() + POLL_TIMEOUT)

    def _ask(self, *asks: Ask) -> None:
        """Send methods behind what is to be sent, and wait for their answers."""
        assert self._connection is not None
        self._flush()
        ask(self._connection, *asks)

    def _cancel(self) -> None:
        if self._prefetch:
            self._ask(Ask((60, 30), "so", f"m{self._consumers}", 0))
            self._prefetch = 0

    def _consume(self, want: int) -> None:
        """Have as many messages sent as there is room for events; frames have many."""
        self._wanted = max(self._wanted, want)
        prefetch = min(_MOST, max(1, -int(-self._wanted // self._per_message)))
        if not want or self._prefetch / 4 < prefetch <= self._prefetch:
            return
        self._cancel()
        self._consumers += 1  # RabbitMQ 3.10 fails where a consumer that had messages is begun again
        self._ask(
            Ask((60, 10), "lho", 0, prefetch, 0),
            Ask((60, 20), "hssot", 0, self._queue, f"m{self._consumers}", 0, {}),
        )
        self._prefetch = prefetch
        self._heard = monotonic()

    # -- settling ---------------------------------------------------------

    def _settle(self) -> None:
        """Say what became of messages; what is to be published first has been, once this returns."""
        in_flight, early = self.in_flight, self._reader.early
        self._tell_gone()
        done = {channel: list(tags) for channel, tags in in_flight.done.items()}
        if in_flight.unacked or early:
            self._run(self._publish())
            for part in in_flight.unacked:
                if part.done:
                    done.setdefault(part.held.origin, []).extend(part.tokens)
            for each in early:
                done.setdefault(each.channel, []).append(each.tag)
            in_flight.unacked.clear()
            early.clear()
        in_flight.done.clear()
        # at once: a queue of RabbitMQ forgets acknowledgements beyond some 32 if the connection ends with them
        for channel, tags in done.items():
            self._out += self._acks[channel].take(tags)

    def _tell_gone(self) -> None:
        """Say what comes no more, since RabbitMQ has nothing that counts it."""
        in_flight, label = self.in_flight, self.policy.label
        if in_flight.dropped:
            message = "%s: %d events were dropped: there is no dead-letter topic"
            repeated(f"gone {label}", message, label, in_flight.dropped)
            in_flight.dropped = 0
        if in_flight.expired:
            repeated(f"expired {label}", "%s: %d events had expired", label, in_flight.expired)
            in_flight.expired = 0

    def _publish(self) -> Flow[None]:
        """Publish what comes again, and dead letters."""
        steps: list[Publish] = []
        request = self.policy.request

        def add(exchange: str, key: str, about: Properties, body: bytes, mandatory: bool = False) -> None:
            steps.append(Publish(self._driver.message(exchange, key, about, body, mandatory=mandatory), 1, exchange))

        for part in self.in_flight.unacked:
            if part.frame is None:
                continue
            if part.delay_ms is None:
                exchange = self._topology.exchange(request.dead_letter_topic or "")
                messages = self._driver.messages([part.frame], raw=False)
                for (about, body), key in zip(messages, self._driver.keys([part.frame], len(messages)), strict=True):
                    add(exchange, key, _with(about, {TOPIC: request.topic}), body)
                continue
            exchange, rest = yield from self._topology.park(part.delay_ms)
            about = _with(FRAME, {PAST: write_history(part.deliveries, part.history)})
            add(exchange, self._queue_of(part.held.origin), waiting(about, rest), part.frame, True)
        for each in self._reader.early:
            exchange, rest = yield from self._topology.park(each.delay_ms)
            add(exchange, self._queue_of(each.channel), waiting(each.properties, rest), each.body, True)
        yield tuple(steps)
        for step in steps:
            problem = step.problem
            if isinstance(problem, ServerError) and problem.code == NOT_FOUND:
                self._topology.forget()
                yield from self._topology.join(request)
                raise UnavailableError(
                    f"rabbitmq {self._where}: {step.exchange} or its queue had gone, and was made again"
                )
            if problem is not None:
                raise problem

    # -- reading ----------------------------------------------------------

    def _wait(self, want: int, timeout: float | None) -> None:
        """Wait for messages, for `wake`, or for what is due."""
        connection = self._connection
        assert connection is not None
        end = monotonic() + (3600.0 if timeout is None else timeout)
        while True:
            look = self._heard + _LOOK if want and self._prefetch and not self.in_flight.held else inf
            due = min(end, connection.beat(), look)
            readable = connection.has_decrypted() or self.waker.wait(connection, max(0.0, due - monotonic()))
            if readable:
                connection.receive()
                self._read()
                if (want and self.in_flight.is_ready) or self._reader.early or self.in_flight.unacked:
                    return
                if monotonic() >= end:  # it sends without an end
                    return
                self._flush()
            elif readable is False or monotonic() >= end:
                return
            elif monotonic() >= look:
                self._cancel()
                self._consume(want)
                self._read()

    def _read(self) -> None:
        """Take in what has come."""
        connection = self._connection
        assert connection is not None
        taken = connection.session.take()
        if told := taken.get(_GONE):
            self._letters.update(str((read_properties(about).headers or {}).get(GONE)) for _, about, _ in told)
            self.in_flight.removed = self._removed
            self._out.append(method(_GONE, (60, 80), "qo", told[-1][0], 1))
        if deliveries := taken.get(CALLS):
            self._heard = monotonic()
            count = self._reader.take(CALLS, deliveries)
            self._per_message = max(1.0, count / len(deliveries))


class Acknowledgements:
    """Which messages of a channel are acknowledged."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._low = 0  # up to here all are
        self._beyond: set[int] = set()  # and these

    @property
    def any(self) -> bool:
        """Whether some are."""
        return bool(self._low or self._beyond)

    def take(self, tags: Sequence[int]) -> list[bytes]:
        """Return what acknowledges messages: together where no other is between."""
        beyond, low, channel = self._beyond, self._low, self._channel
        beyond.update(tags)
        while low + 1 in beyond:
            low += 1
            beyond.remove(low)
        self._low = low
        # up to one that is not acknowledged yet, since another is an error
        together = max((tag for tag in tags if tag <= low), default=0)
        out = [method(channel, (60, 80), "qo", together, 1)] if together else []
        # in their order: a queue that forgets some of them forgets the last of a key
        return out + [method(channel, (60, 80), "qo", tag, 0) for tag in sorted(tags) if tag > low]


def _with(about: Properties, headers: dict[str, str]) -> Properties:
    return about._replace(headers={**(about.headers or {}), **headers})
