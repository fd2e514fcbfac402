"""Calls of several steps that are written once and serve both APIs.

A *flow* is a generator without I/O. It yields what it asks of a server, is sent the answers, and returns the result of the call. A `FlowEngine` exchanges an ask for an answer, in a thread or in an event loop, and runs flows with that. A `FlowDriver` writes each method as one flow, and `both_apis` makes the pair of methods::

    class RedisState(FlowDriver, StateDriver):
        def _get(self, op: Operation, key: str, consistency: str | None, /) -> Flow[Batch, list[Any], StoredValue | None]:
            (reply,) = yield Batch(("GET", key))
            return None if reply is None else StoredValue(reply)

        get, get_async = both_apis(_get)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from time import sleep
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

from ..errors import InternalError
from .driver import Driver
from .operation import Operation

__all__ = ["Flow", "FlowDriver", "FlowEngine", "both_apis", "run_sync"]

P = ParamSpec("P")
T = TypeVar("T")
Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
D = TypeVar("D", bound="_HasFlows")

Flow: TypeAlias = Generator[Ask, Answer, T]
"""Yields asks, is sent their answers, or their errors at the ``yield``, and returns the result of a call."""


class FlowEngine(ABC, Generic[Ask, Answer]):
    """Runs flows over the connections to a server, for threads and for event loops."""

    @abstractmethod
    def exchange(self, op: Operation, step: Any, /) -> Any:
        """Send what a step asks and return its answer, by the deadline of the call.

        Args:
            op: the call.
            step: what `steps` yields. Without steps of the engine's own, an ask of the flow.

        Raises:
            Exception: anything; `steps` gets it where it yielded. Without steps of the engine's own, so does the flow.
        """

    @abstractmethod
    async def exchange_async(self, op: Operation, step: Any, /) -> Any:
        """Asynchronous `exchange`."""

    def steps(self, op: Operation, flow: Flow[Ask, Answer, T]) -> Generator[Any, Any, T]:
        """Return the steps of a call: those of its flow, and what the engine adds, such as retries and errors of its own.

        Besides asks, steps yield pauses: seconds, as ``float``.
        """
        return flow

    def run(self, op: Operation, flow: Flow[Ask, Answer, T]) -> T:
        """Run the flow of a call in this thread.

        Raises:
            CloudRuntimesError: it failed; ``maybe_applied`` says whether it may have been applied.
        """
        steps = self.steps(op, flow)
        answer: Any = None
        failure: BaseException | None = None
        try:
            while True:
                try:
                    while True:
                        step = steps.send(answer) if failure is None else steps.throw(failure)
                        answer = failure = None
                        if step.__class__ is float:
                            sleep(step)
                        else:
                            answer = self.exchange(op, step)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                except BaseException as error:
                    if getattr(steps, "gi_frame", None) is None:
                        raise  # by the flow itself
                    # of a step, or an interrupt between two: thrown above, where it is not the context of another
                    failure = error
        finally:
            # the frames of an error that leaves show no answer, which may hold a secret, and are in no cycle with it
            step = answer = failure = None

    async def run_async(self, op: Operation, flow: Flow[Ask, Answer, T]) -> T:
        """Asynchronous `run`."""
        steps = self.steps(op, flow)
        answer: Any = None
        failure: BaseException | None = None
        try:
            while True:
                step = steps.send(answer) if failure is None else steps.throw(failure)
                answer = failure = None
                try:
                    if step.__class__ is float:
                        import asyncio

                        await asyncio.sleep(step)
                    else:
                        answer = await self.exchange_async(op, step)
                except BaseException as error:
                    failure = error
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            step = answer = failure = None


class _HasFlows(Protocol):
    @property
    def flows(self) -> FlowEngine[Any, Any]: ...


class FlowDriver(Driver):
    """A driver whose methods are flows.

    Attributes:
        flows: runs them.
    """

    flows: FlowEngine[Any, Any]


def both_apis(
    flow: Callable[Concatenate[D, Operation, P], Generator[Any, Any, T]],
) -> tuple[Callable[Concatenate[D, Operation, P], T], Callable[Concatenate[D, Operation, P], Coroutine[Any, Any, T]]]:
    """Return the method that a flow stands for, and its asynchronous twin: ``get, get_async = both_apis(_get)``.

    Args:
        flow: a method with the parameters of both. A subclass may override it.
    """

    name = flow.__name__  # by which a subclass may have another

    def call(self: D, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self.flows.run(op, getattr(self, name)(op, *args, **kwargs))
        return result

    def call_async(self: D, op: Operation, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.flows.run_async(op, getattr(self, name)(op, *args, **kwargs))

    return call, call_async


def run_sync(flow: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, and return its result.

    Flows of several steps are written once as ``async def`` over awaitables that, in the sync API, are done at once.

    Raises:
        InternalError: it did suspend; that is a fault of the flow.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    flow.close()
    raise InternalError(f"{getattr(flow, '__qualname__', flow)} waited for an event loop in the sync API")
