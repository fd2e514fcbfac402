"""A member of a consumer group that has a connection of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from time import time_ns
from typing import Any, ClassVar

from ..._core.waker import Waker
from ..operation import Operation
from ..pubsub import Deliveries, EventSource, Settled
from .in_flight import InFlight
from .policy import POLL, POLL_TIMEOUT, DeliveryPolicy


class SocketMember(EventSource):
    """The order of what a member does: settle, ask, wait, deliver.

    Attributes:
        component: its ``check_open()`` raises `ClosedError` once the client was closed.
        failures: what a connection raises besides our errors.
        policy: of the member.
        in_flight: what it holds.
        waker: ends its wait.
    """

    failures: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, component: Any, policy: DeliveryPolicy, in_flight: InFlight) -> None:
        self.component = component
        self.policy = policy
        self.in_flight = in_flight
        self.waker = Waker()

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Whether there is a connection."""

    @abstractmethod
    def _connect(self) -> None:
        """Make the connection."""

    @abstractmethod
    def _exchange(self, want: int) -> None:
        """Say what became of messages, renew leases, and ask for more where ``want`` events are wanted."""

    @abstractmethod
    def _wait(self, want: int, timeout: float | None) -> None:
        """Wait for messages, for `waker`, or for what is due; ``None``: without end."""

    @abstractmethod
    def _leave(self) -> None:
        """Settle and give back what is held; there may be no connection."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection, if there is one."""

    @abstractmethod
    def _failed(self, error: Exception, *, leaving: bool = False) -> Exception:
        """Return our error for one of `failures`, and disconnect; ``leaving``: what was held goes to another member."""

    def _now_us(self) -> int:
        """Return the time by which events expire, in microseconds since 1970 UTC."""
        return time_ns() // 1000

    def operation(self) -> Operation:
        """Return a call of the member."""
        return Operation(POLL, self.policy.pubsub, POLL_TIMEOUT)

    def poll(self, settled: Sequence[Settled], want: int, timeout: float | None, /) -> Deliveries:
        self.component.check_open()
        in_flight = self.in_flight
        in_flight.settle(settled)
        try:
            if not self.is_connected:
                self._connect()
            self._exchange(want)
            if not (want and in_flight.is_ready):
                self._wait(want, timeout)
        except self.failures as error:
            if (failure := self._failed(error)) is error:
                raise
            raise failure from error
        return in_flight.deliver(want, self._now_us())

    def wake(self) -> None:
        self.waker.wake()

    def close(self, settled: Sequence[Settled], /) -> None:
        self.in_flight.settle(settled)
        try:
            self._leave()
        except self.failures as error:
            if (failure := self._failed(error, leaving=True)) is error:
                raise
            raise failure from error
        finally:
            self._disconnect()
            self.waker.close()
