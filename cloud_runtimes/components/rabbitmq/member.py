"""A member of a consumer group on RabbitMQ, with a connection of its own.

The server sends messages as they come, up to the prefetch, and keeps them for this member while its connection lives. What comes again and dead letters are published by the connection of the process, and acknowledged once the server has confirmed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final

from ..._core.logs import repeated
from ...errors import UnavailableError
from ...spi.operation import Operation
from ...spi.pubsub import Deliveries, EventSource, Settled
from .._connections import Lost
from .._deliveries import POLL, POLL_TIMEOUT, Rules
from .._messages.holding import Holding
from .._messages.parts import write_past
from .._messages.waker import Waker
from .failures import NOT_FOUND, Refused
from .link import PATIENCE, ask
from .messages import FRAME, PAST, TOPIC, Reader, id_of
from .pubsub import waiting
from .session import CALLS, CLOSE, Ask, Publish
from .wire import Properties, method

if TYPE_CHECKING:
    from . import RabbitmqComponent
    from .connection import Connection
    from .engine import Flow
    from .pubsub import RabbitmqPubSub
    from .replay import Replay

__all__ = ["RabbitmqMember"]

_MOST: Final = 65535
_LOOK = 30.0
"""Seconds without a message after which an idle member begins its consumer again: RabbitMQ 3.10 does not always say that a queue was deleted."""


class RabbitmqMember(EventSource):
    """See the module; made by `RabbitmqPubSub.subscribe` once the group exists."""

    def __init__(
        self, component: RabbitmqComponent, driver: RabbitmqPubSub, rules: Rules, replay: Replay | None = None
    ) -> None:
        """``replay`` is closed with it."""
        self._component = component
        self._driver = driver
        self._rules = rules
        self._replay = replay
        self._topology = driver.topology
        self._holding = Holding(rules, id_of)
        self._reader = Reader(self._holding)
        request = rules.request
        self._queue = self._topology.queue(request.topic, request.group)
        self._connection: Connection | None = None
        self._waker = Waker()
        self._out: list[bytes] = []
        self._most = 0  # events that were wanted at once
        self._prefetch = 0  # messages
        self._consumers = 0  # so far
        self._per_message = 100.0 if component.settings.layout == "frame" else 1.0  # events of the last ones
        self._heard = 0.0  # when the last message came, or the consumer began
        self._low = 0  # up to here all tags are acknowledged
        self._beyond: set[int] = set()  # and these

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        self._component.check_open()
        holding = self._holding
        holding.settle(settled)
        try:
            if self._connection is None:
                self._connect()
            self._settle()
            self._consume(want)
            self._hear()
            self._flush()
            if not (want and holding.is_ready):
                self._wait(want, timeout)
        except (Lost, Refused) as error:
            self._disconnect()
            if isinstance(error, Refused) and error.code == NOT_FOUND:
                self._rejoin()
                message = f"the queue of {self._rules.label} had gone, and was made again"
                raise UnavailableError(f"rabbitmq {self._where}: {message}") from error
            raise self._component.engine.explained(error) from error
        except TimeoutError as error:
            self._disconnect()
            raise UnavailableError(f"rabbitmq {self._where}: the server does not read") from error
        return holding.deliver(want, time_ns() // 1000)

    def wake(self) -> None:
        self._waker.wake()

    def close(self, settled: Sequence[Settled], /) -> None:
        self._holding.settle(settled)
        try:
            self._leave()
        except (Lost, Refused, TimeoutError) as error:
            raise UnavailableError(f"rabbitmq {self._where}: {error}: what was held goes to another member") from error
        finally:
            self._disconnect()
            self._waker.close()
            if self._replay is not None:
                self._replay.close()

    def _leave(self) -> None:
        if self._connection is None:
            return  # what was held has gone to others with the connection
        self._cancel()
        self._hear()
        self._holding.give_back()
        self._settle()
        self._out.append(CLOSE)
        self._flush()
        end = monotonic() + PATIENCE
        while self._connection.session.ready:
            if not self._connection.wait(end):
                raise TimeoutError
            self._connection.receive()

    @property
    def _where(self) -> str:
        return self._component.engine.where

    def _run(self, flow: Flow[Any]) -> Any:
        """Run steps on the connection of the process."""
        return self._component.engine.run(Operation(POLL, self._driver.name, POLL_TIMEOUT), flow)

    # -- the connection ---------------------------------------------------

    def _connect(self) -> None:
        """Connect; what an earlier connection had is delivered again."""
        request, engine = self._rules.request, self._component.engine
        name = f"{request.topic} of {request.group}"
        op = Operation(POLL, self._driver.name, POLL_TIMEOUT)
        # a server gives up a client that says nothing for two intervals
        self._connection = engine.open(op, name, self._rules.ack_wait_ms / 2000)
        self._prefetch = self._low = 0
        self._beyond.clear()
        self._out.clear()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            holding = self._holding
            holding.forget()
            holding.parts.clear()
            holding.done.clear()
            self._reader.early.clear()

    def _rejoin(self) -> None:
        """Make the group again, whose queue has gone."""
        request = self._rules.request
        self._topology.forget()
        self._run(self._topology.join(request.topic, request.group, request.dead_letter_topic))

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
        self._most = max(self._most, want)
        prefetch = min(_MOST, max(1, -int(-self._most // self._per_message)))
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
        holding, early = self._holding, self._reader.early
        self._tell_gone()
        done = [tag for tags in holding.done.values() for tag in tags]
        if holding.parts or early:
            self._run(self._publish())
            done += [tag for part in holding.parts if part.done for tag in part.tokens]
            done += [each.tag for each in early]
            holding.parts.clear()
            early.clear()
        holding.done.clear()
        # at once: a queue of RabbitMQ forgets acknowledgements beyond some 32 if the connection ends with them
        self._acknowledge(done)

    def _tell_gone(self) -> None:
        """Say what comes no more, since RabbitMQ has nothing that counts it."""
        holding, label = self._holding, self._rules.label
        if holding.dropped:
            message = "%s: %d events were dropped: there is no dead-letter topic"
            repeated(f"gone {label}", message, label, holding.dropped)
            holding.dropped = 0
        if holding.expired:
            repeated(f"expired {label}", "%s: %d events had expired", label, holding.expired)
            holding.expired = 0

    def _publish(self) -> Flow[None]:
        """Publish what comes again, and dead letters."""
        steps: list[Publish] = []
        request = self._rules.request

        def add(exchange: str, key: str, about: Properties, body: bytes) -> None:
            steps.append(Publish(self._driver.message(exchange, key, about, body), 1, exchange))

        for part in self._holding.parts:
            if part.frame is None:
                continue
            if part.delay_ms is None:
                exchange = self._topology.exchange(request.dead_letter_topic or "")
                for about, body in self._driver.messages([part.frame], raw=False):
                    add(exchange, "", _with(about, {TOPIC: request.topic}), body)
                continue
            exchange, rest = yield from self._topology.park(part.delay_ms)
            about = _with(FRAME, {PAST: write_past(part.deliveries, part.past)})
            add(exchange, self._queue, waiting(about, rest), part.frame)
        for each in self._reader.early:
            exchange, rest = yield from self._topology.park(each.delay_ms)
            add(exchange, self._queue, waiting(each.properties, rest), each.body)
        yield tuple(steps)
        for step in steps:
            problem = step.problem
            if isinstance(problem, Refused) and problem.code == NOT_FOUND:
                self._topology.forget()
                yield from self._topology.join(request.topic, request.group, request.dead_letter_topic)
                raise UnavailableError(
                    f"rabbitmq {self._where}: {step.exchange} or its queue had gone, and was made again"
                )
            if problem is not None:
                raise problem

    def _acknowledge(self, tags: Sequence[int]) -> None:
        """Acknowledge messages, together where no other is between."""
        beyond, low = self._beyond, self._low
        beyond.update(tags)
        while low + 1 in beyond:
            low += 1
            beyond.remove(low)
        self._low = low
        # up to one that is not acknowledged yet, since another is an error
        together = max((tag for tag in tags if tag <= low), default=0)
        if together:
            self._out.append(method(CALLS, (60, 80), "qo", together, 1))
        self._out += [method(CALLS, (60, 80), "qo", tag, 0) for tag in tags if tag > low]

    # -- reading ----------------------------------------------------------

    def _wait(self, want: int, timeout: float | None) -> None:
        """Wait for messages, for `wake`, or for what is due."""
        connection = self._connection
        assert connection is not None
        end = monotonic() + (3600.0 if timeout is None else timeout)
        while True:
            look = self._heard + _LOOK if want and self._prefetch and not self._holding.held else inf
            due = min(end, connection.beat(), look)
            readable = connection.has_decrypted() or self._waker.wait(connection, max(0.0, due - monotonic()))
            if readable:
                connection.receive()
                self._hear()
                if (want and self._holding.is_ready) or self._reader.early or self._holding.parts:
                    return
                if monotonic() >= end:  # it sends without an end
                    return
                self._flush()
            elif readable is False or monotonic() >= end:
                return
            elif monotonic() >= look:
                self._cancel()
                self._consume(want)
                self._hear()

    def _hear(self) -> None:
        """Take in what has come."""
        connection = self._connection
        assert connection is not None
        if deliveries := connection.session.take():
            self._heard = monotonic()
            found = self._reader.take(deliveries)
            self._per_message = max(1.0, found / len(deliveries))


def _with(about: Properties, headers: dict[str, str]) -> Properties:
    return about._replace(headers={**(about.headers or {}), **headers})
