"""How a new group gets what the stream of its topic has: one member copies it into the group's queue, then has the queue bound to the topic.

Meanwhile the group has another queue, whose message tells the offset from which on nothing was copied. Its single active consumer is the member that copies. When that one leaves, another goes on. An event that is published while the queue is bound is copied too, since nobody knows whether it was routed before.
"""

from __future__ import annotations

import threading
from contextlib import closing
from secrets import token_hex
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from ..._core.logs import repeated
from ..._core.threads import Background
from ...spi.broker.policy import POLL, POLL_TIMEOUT, DeliveryPolicy
from ...spi.operation import Operation
from ...spi.pubsub import SubscribeRequest
from . import RabbitmqComponent
from .failures import NOT_FOUND, ServerError
from .link import PATIENCE, ask
from .messages import OFFSET, published
from .session import CALLS, Ask, Delivered, Publish
from .wire import Properties, method, read_properties

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Flow
    from .pubsub import RabbitmqPubSub

_AGAIN: Final = 1.0
"""Seconds before a failure is tried again."""
_OVERLAP: Final = 0.5
"""Seconds after which what was published before the queue was bound is in the stream, also where nodes of a cluster learn of it later."""
_LOOK: Final = 0.1
"""Seconds before one that waits looks whether it is to end."""
_AHEAD: Final = 1000
_MARK: Final = "x-cr-mark"
"""A message in the stream that tells how far it went when that was published."""
_NEXT: Final = "x-cr-next"
"""The offset from which on nothing was copied."""


def is_replayed(driver: RabbitmqPubSub, request: SubscribeRequest) -> Flow[bool]:
    """Return whether a group gets what the stream has: a new one does, and one that has not all of it."""
    topology, topic, group = driver.topology, request.topic, request.group
    replay = topology.replay(topic, group)
    if (yield from topology.has(topology.queue(topic, group))):
        return (yield from topology.has(replay))
    yield from topology.begin_replay(topic, group)
    yield from _publish(driver, [(replay, Properties(None, {_NEXT: 0}, 2), b"")])
    return True


def is_event(about: Properties) -> bool:
    """Return whether a message of a stream is none of a replay's own."""
    headers = about.headers or {}
    return _MARK not in headers and _NEXT not in headers


def _publish(driver: RabbitmqPubSub, messages: list[tuple[str, Properties, bytes]]) -> Flow[None]:
    """Publish messages into queues."""
    due = driver.topology.due
    step = Publish(
        b"".join([driver.message(due, *message, mandatory=True) for message in messages]), len(messages), due
    )
    yield (step,)
    if step.problem is not None:
        raise step.problem


class Replay:
    """A thread that ends once the group has all, or by `close`."""

    def __init__(self, component: RabbitmqComponent, driver: RabbitmqPubSub, rules: DeliveryPolicy) -> None:
        request = rules.request
        self._engine = component.engine
        self._driver = driver
        self._label = rules.label
        self._request = request
        self._group = request.topic, request.group
        self._queue = driver.topology.queue(*self._group)
        self._stream = driver.topology.stream(request.topic)
        self._tells = driver.topology.replay(*self._group)
        self._closing = threading.Event()
        self._bound = False
        self._thread = Background(self._work, "cloud-runtimes-rabbitmq-replay")
        self._thread.start()

    def close(self) -> None:
        """End it. What was copied is noted; a queue that is bound gets the rest."""
        self._closing.set()
        self._thread.join(POLL_TIMEOUT)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                connection = self._engine.open(self._operation(), f"replaying {self._stream}")
                with closing(connection):
                    self._replay(connection)
                return
            except Exception as error:
                if isinstance(error, ServerError) and error.code == NOT_FOUND:
                    return  # another member is done
                repeated(f"replay {self._label}", "%s: its stream was not read to the end: %s", self._label, error)
            self._closing.wait(_AGAIN)

    def _operation(self) -> Operation:
        return Operation(POLL, self._driver.name, POLL_TIMEOUT)

    def _run(self, flow: Flow[Any]) -> Any:
        return self._engine.run(self._operation(), flow)

    def _replay(self, connection: Connection) -> None:
        """Copy all, unless another member does."""
        ask(connection, Ask((60, 10), "lho", 0, _AHEAD, 0), self._consume(self._tells, {}))
        if not (deliveries := self._wait(connection)):
            return
        start = max([(read_properties(properties).headers or {}).get(_NEXT, 0) for _, properties, _ in deliveries])
        ask(connection, self._consume(self._stream, {OFFSET: start}))
        if not self._copy(connection):
            return
        self._run(self._driver.topology.join(self._request))
        self._bound = True
        sleep(_OVERLAP)
        self._copy(connection)
        self._run(self._driver.topology.end_replay(*self._group))

    def _consume(self, queue: str, arguments: dict[str, Any]) -> Ask:
        return Ask((60, 20), "hssot", 0, queue, queue, 0, arguments)

    def _wait(self, connection: Connection) -> list[Delivered]:
        """Return what comes next; nothing where it is to end."""
        while not (deliveries := connection.session.take().get(CALLS, [])) and (
            self._bound or not self._closing.is_set()
        ):
            connection.beat()
            connection.send_all(b"", monotonic() + PATIENCE)
            if connection.wait(monotonic() + _LOOK):
                connection.receive()
        return deliveries

    def _copy(self, connection: Connection) -> bool:
        """Copy what is in the stream now and was not copied; returns whether it did."""
        mark, seen = token_hex(8), False
        self._run(_publish(self._driver, [(self._stream, Properties(None, {_MARK: mark}, 2), b"")]))
        while not seen and (deliveries := self._wait(connection)):
            copied, after = [], 0
            for _, properties, body in deliveries:
                about = read_properties(properties)
                headers = about.headers or {}
                after = headers.get(OFFSET, after - 1) + 1
                seen = seen or headers.get(_MARK) == mark
                if is_event(about):
                    copied.append((self._queue, about._replace(headers=published(headers)), body))
            if copied:
                self._run(_publish(self._driver, copied))
            if after:
                self._run(_publish(self._driver, [(self._tells, Properties(None, {_NEXT: after}, 2), b"")]))
                # this one stands for those before it
                connection.send_all(method(CALLS, (60, 80), "qo", deliveries[-1][0], 1), monotonic() + PATIENCE)
        return seen
