"""What may stand around the calls of a service and around its handlers, and how a call passes through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .._core.propagation import Entered
    from ..spi.operation import Operation
    from ..spi.pubsub import SubscribeRequest

__all__ = ["Call", "Interceptor", "Outgoing", "Target"]


class Outgoing:
    """What is around the making of events that are about to be published."""

    def leave(self) -> None:
        """The events are made."""

    def tell(self, name: str, value: Any) -> None:
        """Say what is known about them since then."""


class Interceptor:
    """Base of interceptors. Each method lets everything pass; override those that matter."""

    def call(self, call: Call) -> Any:
        """Make a call, by ``call.proceed()``."""
        return call.proceed()

    async def call_async(self, call: Call) -> Any:
        """Asynchronous `call`."""
        return await call.proceed_async()

    def retrying(self, op: Operation, error: Exception) -> None:
        """Note that an attempt failed and another one follows."""

    def creating(self, op: Operation, topic: str) -> Outgoing | None:
        """Return what is around the making of events for a topic."""
        return None

    def processing(
        self, pubsub_name: str, request: SubscribeRequest, events: Sequence[Any], *, batch: bool
    ) -> Entered | None:
        """Return what is around a handler of events; ``None``: the context that came with the event."""
        return None

    def serving(self, method: str, headers: Mapping[str, str]) -> Entered | None:
        """Return what is around a handler of an RPC method; ``None``: the context that came with the call."""
        return None


class Target:
    """What a call needs of the service that makes it."""

    name: ClassVar[str]
    _interceptors: tuple[Interceptor, ...]
    _drivers: dict[str, Any]
    _runtime_name: str

    def _outgoing(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments as the driver gets them, inside of all interceptors."""
        return args


class Call:
    """One call on its way through the interceptors, to the attempts at its end.

    Attributes:
        op: the operation.
        method: of the driver, or of what it returned.
        args: its arguments behind the operation.
    """

    __slots__ = ("_passed", "_target", "args", "method", "op")

    def __init__(self, target: Target, op: Operation, method: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._target = target
        self._passed = 0
        self.op = op
        self.method = method
        self.args = args

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self._target._runtime_name

    def _next(self) -> Interceptor | None:
        chain = self._target._interceptors
        if self._passed == len(chain):
            return None
        self._passed += 1
        return chain[self._passed - 1]

    def proceed(self) -> Any:
        """Go on to the next interceptor; behind the last one, make attempts until one succeeds or none is left."""
        if (following := self._next()) is not None:
            return following.call(self)
        while True:
            try:
                return self.attempt(self.op)
            except Exception as error:
                delay = self.op.failed(error, self.runtime)
                self.retrying(error)
            time.sleep(delay)

    async def proceed_async(self) -> Any:
        """Asynchronous `proceed`."""
        if (following := self._next()) is not None:
            return await following.call_async(self)
        while True:
            try:
                return await self.attempt(self.op)
            except Exception as error:
                delay = self.op.failed(error, self.runtime)
                self.retrying(error)
            import asyncio

            await asyncio.sleep(delay)

    def attempt(self, op: Operation) -> Any:
        """Ask the driver once: for the result, or for what is awaited for it."""
        return self.method(op, *self._target._outgoing(self.args))

    def retrying(self, error: Exception) -> None:
        """Tell all interceptors that another attempt follows."""
        for each in self._target._interceptors:
            each.retrying(self.op, error)
