"""The frame of a service call: drivers by name, where errors come from, the call itself, and what may stand around it."""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast

from .._core import fork
from .._core.arguments import HIDDEN
from .._core.os_errors import resource_exhausted
from ..config import suggest
from ..errors import CloudRuntimesError, InvalidArgumentError, UnsupportedError
from ..spi.operation import Method, Operation, ends_driver, mark_interrupted, set_context

if TYPE_CHECKING:
    from .._core.propagation import Entered
    from ..spi.driver import Driver
    from ..spi.pubsub import Delivery, OutgoingBatch, SubscribeRequest
    from ..spi.schedule import DueRun
    from .context import ClientContext

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def error_context(method: Method, *, named: bool = True) -> Callable[[F], F]:
    """Have every error that leaves a service method say where it happened: also those of arguments, before the driver is asked, and of decoding, after it. An interrupt says ``maybe_applied``. A service or handle has ``_add_context`` for it. ``named``: the first argument is the component's name.

    The wrapper costs 0.3 µs; the hottest methods have the same ``except`` in their own bodies.
    """

    def decorate(inner: F) -> F:
        first = inner.__code__.co_varnames[1] if named else ""

        def component(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return (args[0] if args else kwargs.get(first)) if named else None

        if inspect.iscoroutinefunction(inner):

            @functools.wraps(inner)
            async def call_async(self: Any, *args: Any, **kwargs: Any) -> Any:
                try:
                    return await inner(self, *args, **kwargs)
                except BaseException as error:
                    _suggest_argument(error, inner)
                    self._add_context(error, method, component(args, kwargs))
                    raise

            return cast(F, call_async)

        @functools.wraps(inner)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return inner(self, *args, **kwargs)
            except BaseException as error:
                _suggest_argument(error, inner)
                self._add_context(error, method, component(args, kwargs))
                raise

        return cast(F, call)

    return decorate


def _suggest_argument(error: BaseException, function: Callable[..., Any]) -> None:
    """Name the argument that is probably meant by a keyword which the function does not have."""
    if not isinstance(error, TypeError) or error.__traceback__ is None or error.__traceback__.tb_next is not None:
        return  # what the function itself calls wrongly is another matter
    if match := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
        known = list(inspect.signature(function).parameters)[1:]
        error.args = (f"{str(error).partition('. Did you')[0]}; {suggest(match[1], known)}",)


class Outgoing:
    """Scope in which events are made before they are published."""

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

    def consuming(
        self, pubsub_name: str, request: SubscribeRequest
    ) -> Callable[[Any, Sequence[Delivery]], None] | None:
        """Return what is told the counters of a subscription, and what came since it was last."""
        return None

    def processing(
        self, pubsub_name: str, request: SubscribeRequest, events: Sequence[Any], *, batch: bool
    ) -> Entered | None:
        """Return what is around a handler of events; ``None``: the context that came with the event."""
        return None

    def forwarding(self, pubsub_name: str) -> Callable[[int, int], None] | None:
        """Return what is told how many events a forwarder has published, and how many the broker refused."""
        return None

    def serving(self, method: str, headers: Mapping[str, str]) -> Entered | None:
        """Return what is around a handler of an RPC method; ``None``: the context that came with the call."""
        return None

    def running(self, run: DueRun) -> Entered | None:
        """Return what is around a run of a job; ``None``: nothing, since a run comes with no context."""
        return None


_FEATURES: Final = "docs/reference/features.md"
MAX_NAMES: Final = 4096
"""Of components that a service remembers: callers of a sidecar may give any, and the oldest is made anew."""


class ServiceFrame:
    """Stand between the methods of a service and its drivers: look up drivers, refuse, run operations, complete errors.

    A service has one, which its handles share. Other packages get it by `frame_of`, so that users find nothing of it on ``client.state``.

    Attributes:
        name: of the service.
        context: of the client.
        timeout: seconds for a call that gives none.
        runtime_name: ``""`` until the first driver is made.
        drivers: those made so far, by component. Emptied when the client closes or is forked, so that the hot path needs no other check.
        interceptors: outermost first; there are some where the configuration says so.
        handlers: what the application has registered with the service.
        watch_relays: of pub/sub alone: has events forwarded, until the client is closed, that other processes leave in outboxes and spools.
        make_event: of pub/sub alone: makes an event for a transaction of another service. Returns the event, its id, what makes a write of events there, and what to call after the commit.
    """

    def __init__(self, name: str, context: ClientContext) -> None:
        self.name = name
        self.context = context
        self.timeout = context.timeout
        self.runtime_name = ""
        self.drivers: dict[str, Any] = {}
        self.interceptors: tuple[Interceptor, ...] = ()
        self.handlers: dict[Any, Any] = {}
        self.watch_relays: Callable[[], None]
        self.make_event: Callable[..., tuple[OutgoingBatch, str, Callable[[OutgoingBatch], Any], Callable[[], None]]]

    def driver(self, name: str) -> Any:
        """Return the driver for a store name; the first time it is made, without I/O."""
        driver = self.drivers.get(name)
        if driver is None:
            if not isinstance(name, str) or not name or len(name) > 255 or not name.isprintable():
                raise self._no_name(name)
            if name.startswith(HIDDEN):
                raise InvalidArgumentError(
                    f"{self.name}: names that begin with {HIDDEN!r}, such as {name!r}, are reserved"
                )
            with fork.importing:
                runtime = self.context.runtime(self)
                self.runtime_name = runtime.name
                self.timeout = self.context.timeout
                driver = self.drivers.get(name)
                if driver is None:
                    if len(self.drivers) >= MAX_NAMES:
                        del self.drivers[next(iter(self.drivers))]
                    driver = runtime.driver(self.name, name)
                    driver.executor = runtime.executor
                    self.drivers[name] = driver
        return driver

    def only(self) -> str:
        """Return the name of the one component of a service that has no more: the only one that is declared, else ``default``."""
        declared = [name for service, name in self.context.runtime(self).declared() if service == self.name]
        return declared[0] if len(declared) == 1 else "default"

    def _no_name(self, name: Any) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.name}: {name!r} is no name of a component: give printable text of 1 to 255 characters"
        )

    def add_context(self, error: BaseException, method: Method, component: Any) -> None:
        """Complete what leaves a service method: an error of ours says where it happened, an interrupt whether it may have been applied. Two others become ours: a component's name that cannot be looked up, no memory or too many open files."""
        name = component if isinstance(component, str) else None
        if isinstance(error, CloudRuntimesError):
            set_context(error, method, name, self.runtime_name or None)
        elif isinstance(error, TypeError) and isinstance(component, (list, dict, set, bytearray)):
            raise self._no_name(component) from None  # drivers are looked up by it first of all
        elif (exhausted := resource_exhausted(error)) is not None:
            exhausted.maybe_applied = method.writes and isinstance(error, MemoryError)  # of a reply, perhaps
            set_context(exhausted, method, name, self.runtime_name or None)
            raise exhausted from error
        elif not isinstance(error, Exception) and not hasattr(error, "maybe_applied"):
            mark_interrupted(error, method.writes)

    def _ends(self, op: Operation, error: BaseException) -> None:
        """Complete an interrupt that leaves a call; let go of a driver that is at its end."""
        if not isinstance(error, Exception):
            op.interrupted(error)
        elif ends_driver(error):
            self.drivers.pop(op.component, None)

    def outgoing(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments as the driver gets them, inside of all interceptors."""
        return args

    def need(self, driver: Driver, feature: str, what: str, component: str) -> None:
        """Refuse, before any I/O, what the driver does not declare."""
        if feature not in driver.features:
            vendor = self.context.runtime().vendor(self.name, component)
            has = (
                f"it has: {', '.join(sorted(driver.features)) or 'nothing beyond the minimum'}; for the components "
                f"that have {self.name}.{feature}, one of which [{self.name}.{component}] may name, see {_FEATURES}"
            )
            raise UnsupportedError(
                f"{what} is not supported by {component!r}{vendor and f', {vendor}'} on the runtime {self.runtime_name}; "
                f"{driver.alternatives.get(feature, has)}",
                service=self.name,
                runtime=self.runtime_name,
                component=component,
            )

    def first(self, ask: Callable[[Interceptor], R | None]) -> R | None:
        """Return what the first of the interceptors has that has any."""
        return next((result for each in self.interceptors if (result := ask(each)) is not None), None)

    def call(self, op: Operation, method: Callable[..., R], *args: Any) -> R:
        """Run ``method(op, *args)`` of a driver, or of what it returned: inside the interceptors, again while that may help."""
        try:
            if not self.interceptors:
                try:
                    return method(op, *args)
                except Exception as error:
                    delay = op.failed(error, self.runtime_name)
                time.sleep(delay)
            return cast(R, Call(self, op, method, args).proceed())
        except BaseException as error:
            self._ends(op, error)
            raise

    async def call_async(self, op: Operation, method: Callable[..., Awaitable[R]], *args: Any) -> R:
        """Asynchronous `call`."""
        try:
            if not self.interceptors:
                try:
                    return await method(op, *args)
                except Exception as error:
                    delay = op.failed(error, self.runtime_name)
                import asyncio

                await asyncio.sleep(delay)
            return cast(R, await Call(self, op, method, args).proceed_async())
        except BaseException as error:
            self._ends(op, error)
            raise


class Framed(Protocol):
    """A service or one of its handles."""

    _frame: ServiceFrame


class Service:
    """Base of the services."""

    name: ClassVar[str]
    _frame_type: ClassVar[type[ServiceFrame]] = ServiceFrame

    def __init__(self, context: ClientContext) -> None:
        self._frame = self._frame_type(self.name, context)
        self._add_context = self._frame.add_context

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._frame.context.client!r}>"


def frame_of(service: Framed) -> ServiceFrame:
    """Return what stands between a service, or a handle of one, and its drivers."""
    return service._frame


class Call:
    """A call on its way through the interceptors: ``method(op, *args)`` of the driver, or of what it returned."""

    __slots__ = ("_frame", "_passed", "args", "method", "op")

    def __init__(self, frame: ServiceFrame, op: Operation, method: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._frame = frame
        self._passed = 0
        self.op = op
        self.method = method
        self.args = args

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self._frame.runtime_name

    def _next(self) -> Interceptor | None:
        chain = self._frame.interceptors
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
        return self.method(op, *self._frame.outgoing(self.args))

    def retrying(self, error: Exception) -> None:
        """Tell all interceptors that another attempt follows."""
        for each in self._frame.interceptors:
            each.retrying(self.op, error)
