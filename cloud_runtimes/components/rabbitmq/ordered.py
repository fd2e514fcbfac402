"""A member of a group whose events come in the order of their keys (``order="key"``).

RabbitMQ gives all messages of a part's queue to one consumer, until its channel ends; then to the one that waits longest. A member consumes from each queue on a channel of its own. Where it is the one of more parts than its share, it leaves some: once its handlers are through with what they have, it closes the channel. All that is not acknowledged then goes back to the head of the queue in one step and in its order. After ``basic.cancel`` the next consumer would get later messages first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

from ...spi.broker.ordered import SURVEY_EVERY
from ...spi.pubsub import Deliveries, Settled
from .member import Acknowledgements, RabbitmqMember
from .messages import Reader
from .session import Ask
from .topology import QUEUES, SHARES
from .wire import read

_PREFETCH: Final = 64, 1000, 65535
"""Events of a queue at once: at least, unless said otherwise, and what AMQP can say at most. A member should have no less than the one before: RabbitMQ puts what is given back behind what was given back earlier and found no room."""
_FIRST: Final = 3
"""The channel of the first queue."""
_LEAVE_EVERY: Final = 0.1
_LANDS: Final = 0.1
"""Seconds in which acknowledgements reach a queue. It forgets some if the channel ends before."""


class OrderedMember(RabbitmqMember):
    """See the module."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        request = self.policy.request
        # RabbitMQ counts all that was on its way whenever a part moves, so its count gives up nothing
        self._reader = Reader(self.in_flight, min(2, self.policy.max_deliveries or 2))
        self.in_flight.stays = True
        least, usual, most = _PREFETCH
        events = min(most, max(least, request.max_in_flight or usual))
        self._messages = max(1, int(events / self._per_message))
        self._queues = [self._topology.part(request.topic, request.group, name) for name in QUEUES]
        self._count = self._topology.part(request.topic, request.group, "members")
        self._begin()

    def _begin(self) -> None:
        # channels on which something came; those that close, and when
        self._active: dict[int, None] = {}
        self._leaving: dict[int, float] = {}
        self._members = 1
        self._looked = self._left = 0.0
        self._failure: Exception | None = None
        self.valid_until = 0.0
        self.revision += 1

    # -- the source -------------------------------------------------------

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        most = _LANDS if self._leaving else self._every
        return super().poll(settled, want, most if timeout is None else min(timeout, most))

    def _exchange(self, want: int) -> None:
        self._settle()
        if monotonic() >= self._looked + self._every:
            self._look()
        self._share()
        self._close_drained()
        self._read()
        self._flush()
        if self._failure is not None:
            raise self._failure

    def _give_back(self) -> None:
        """The server does, with the end of the connection."""

    # -- the connection ---------------------------------------------------

    def _connect(self) -> None:
        super()._connect()
        self._ask(Ask((60, 20), "hssot", 0, self._count, "m", 0, {}))
        self._open(range(_FIRST, _FIRST + len(QUEUES)))

    def _disconnect(self) -> None:
        super()._disconnect()
        self._begin()

    def _queue_of(self, channel: Any) -> str:
        queue: str = self._queues[channel - _FIRST]
        return queue

    def _open(self, channels: Iterable[int]) -> None:
        """Begin to consume, behind all that wait."""
        asks = []
        for channel in channels:
            self._acks[channel] = Acknowledgements(channel)
            asks += [
                Ask((20, 10), "s", "", channel=channel),
                Ask((60, 10), "lho", 0, self._messages, 0, channel=channel),
                Ask((60, 20), "hssot", 0, self._queue_of(channel), "m", 0, {}, channel=channel),
            ]
        self._ask(*asks)

    @property
    def _lease(self) -> float:
        """Seconds for which the server keeps a connection that says nothing."""
        connection = self._connection
        return 2.0 * connection.session.heartbeat or inf if connection is not None else inf

    @property
    def _every(self) -> float:
        return min(SURVEY_EVERY, self._lease / 4)

    def _look(self) -> None:
        """Ask how many members there are. The answer tells that the server has this connection, too."""
        assert self._connection is not None
        look = Ask((50, 10), "hsot", 0, self._count, 1, {})
        look.settled = partial(self._seen, look, monotonic())
        self._looked = inf
        self._out.append(self._connection.session.begin(look))

    def _seen(self, look: Ask, begun: float) -> None:
        self._failure = look.failure
        if look.failure is None:
            self._looked = begun
            self.valid_until = begun + self._lease
            self._members = read("sll", look.reply, 0)[2]

    # -- parts ------------------------------------------------------------

    def _share(self) -> None:
        """Leave the last of the queues that are beyond a share."""
        if not self._members or monotonic() < self._left + _LEAVE_EVERY:
            return
        staying = [each for each in self._active if each not in self._leaving and each < _FIRST + SHARES]
        for channel in staying[-(-SHARES // self._members) :]:
            self.in_flight.withhold(channel)
            self._leaving[channel] = inf
            self._left = monotonic()
            self.revision += 1

    def _close_drained(self) -> None:
        """Close channels of which handlers have nothing any more."""
        now = monotonic()
        for channel, at in self._leaving.items():
            if at == inf and self.in_flight.is_drained(channel):
                self._leaving[channel] = now + (_LANDS if self._acks[channel].any else 0.0)
        if not (closing := [channel for channel, at in self._leaving.items() if at <= now]):
            return
        assert self._connection is not None
        self._ask(*[Ask((20, 40), "hshh", 200, "", 0, 0, channel=channel) for channel in closing])
        for channel in closing:
            self._connection.session.deliveries.pop(channel, None)
            self.in_flight.forget(channel)
            del self._leaving[channel], self._active[channel]
        self._open(closing)

    def _read(self) -> None:
        assert self._connection is not None
        for channel, deliveries in self._connection.session.take().items():
            if channel >= _FIRST and channel not in self._leaving:
                self._active[channel] = None
                self._reader.take(channel, deliveries)
