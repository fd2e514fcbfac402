"""The frame of a service call: drivers by name, where errors come from, and the call itself."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from .._core import fork
from .._core.os_errors import out_of_files
from ..errors import CloudRuntimesError, InvalidArgumentError, UnsupportedError
from ..spi.operation import Method, Operation, mark_interrupted, place
from .interceptor import Call, Interceptor, Target

if TYPE_CHECKING:
    from ..spi.driver import Driver
    from .context import ClientContext

__all__ = ["MAX_NAMES", "Service", "error_context"]

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def error_context(method: Method, *, named: bool = True) -> Callable[[F], F]:
    """Have every error that leaves a service method say where it happened: also those of arguments, before the driver is asked, and of decoding, after it. An interrupt says ``maybe_applied``.

    The wrapper costs 0.3 µs; the hottest methods have the same ``except`` in their own bodies.

    Args:
        method: which one it is.
        named: the first argument is the component's name.
    """

    def decorate(inner: F) -> F:
        first = inner.__code__.co_varnames[1] if named else ""

        def component(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return (args[0] if args else kwargs.get(first)) if named else None

        if inspect.iscoroutinefunction(inner):

            @functools.wraps(inner)
            async def call_async(self: Service, *args: Any, **kwargs: Any) -> Any:
                try:
                    return await inner(self, *args, **kwargs)
                except BaseException as error:
                    self._add_context(error, method, component(args, kwargs))
                    raise

            return cast(F, call_async)

        @functools.wraps(inner)
        def call(self: Service, *args: Any, **kwargs: Any) -> Any:
            try:
                return inner(self, *args, **kwargs)
            except BaseException as error:
                self._add_context(error, method, component(args, kwargs))
                raise

        return cast(F, call)

    return decorate


MAX_NAMES: Final = 4096
"""Of components that a service remembers: callers of a sidecar may give any, and the oldest is made anew."""


class Service(Target):
    """Base of the services: looks up drivers and runs operations.

    Attributes:
        name: of the service, as in the configuration.
    """

    name: ClassVar[str]

    def __init__(self, context: ClientContext) -> None:
        self._context = context
        self._timeout = context.timeout
        self._runtime_name = ""
        # emptied when the client closes or is forked, so that the hot path needs no other check
        self._drivers: dict[str, Any] = {}
        # outermost first; there are some where the configuration says so
        self._interceptors: tuple[Interceptor, ...] = ()

    def _driver(self, name: str) -> Any:
        """Return the driver for a store name; the first time it is made, without I/O."""
        driver = self._drivers.get(name)
        if driver is None:
            if not isinstance(name, str) or not name or len(name) > 255 or not name.isprintable():
                raise self._no_name(name)
            with fork.importing:
                runtime = self._context.runtime(self)
                self._runtime_name = runtime.name
                self._timeout = self._context.timeout
                driver = self._drivers.get(name)
                if driver is None:
                    if len(self._drivers) >= MAX_NAMES:
                        del self._drivers[next(iter(self._drivers))]
                    driver = runtime.driver(self.name, name)
                    driver.executor = runtime.executor
                    self._drivers[name] = driver
        return driver

    def _no_name(self, name: Any) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.name}: {name!r} is no name of a component: give printable text of 1 to 255 characters"
        )

    def _add_context(self, error: BaseException, method: Method, component: Any) -> None:
        """Complete what leaves a service method: an error of ours says where it happened, an interrupt whether it may have been applied.

        Raises:
            InvalidArgumentError: instead of a `TypeError`, where the component's name is of a type that no driver can be found by.
            ResourceExhaustedError: instead of a system's error that too many files are open, such as by an import on first use.
        """
        name = component if isinstance(component, str) else None
        if isinstance(error, CloudRuntimesError):
            place(error, method, name, self._runtime_name or None)
        elif isinstance(error, TypeError) and isinstance(component, (list, dict, set, bytearray)):
            raise self._no_name(component) from None  # drivers are looked up by it first of all
        elif (exhausted := out_of_files(error)) is not None:
            place(exhausted, method, name, self._runtime_name or None)
            raise exhausted from error
        elif not isinstance(error, Exception) and not hasattr(error, "maybe_applied"):
            mark_interrupted(error, method.writes)

    def _ends(self, op: Operation, error: BaseException) -> None:
        """Complete an interrupt that leaves a call; let go of a driver that is at its end."""
        if not isinstance(error, Exception):
            op.interrupted(error)
        elif getattr(error, "_ends_driver", False):
            self._drivers.pop(op.component, None)

    def _need(self, driver: Driver, feature: str, what: str, component: str) -> None:
        """Refuse, before any I/O, what the driver does not declare."""
        if feature not in driver.features:
            raise UnsupportedError(
                f"{what} is not supported by {component!r} on the runtime {self._runtime_name}"
                f"; it has: {', '.join(sorted(driver.features)) or 'nothing beyond the minimum'}",
                service=self.name,
                runtime=self._runtime_name,
                component=component,
            )

    def _first(self, ask: Callable[[Interceptor], R | None]) -> R | None:
        """Return what the first of the interceptors has that has any."""
        return next((found for each in self._interceptors if (found := ask(each)) is not None), None)

    def _call(self, op: Operation, method: Callable[..., R], *args: Any) -> R:
        try:
            if not self._interceptors:
                try:
                    return method(op, *args)
                except Exception as error:
                    delay = op.failed(error, self._runtime_name)
                time.sleep(delay)
            return cast(R, Call(self, op, method, args).proceed())
        except BaseException as error:
            self._ends(op, error)
            raise

    async def _call_async(self, op: Operation, method: Callable[..., Awaitable[R]], *args: Any) -> R:
        try:
            if not self._interceptors:
                try:
                    return await method(op, *args)
                except Exception as error:
                    delay = op.failed(error, self._runtime_name)
                import asyncio

                await asyncio.sleep(delay)
            return cast(R, await Call(self, op, method, args).proceed_async())
        except BaseException as error:
            self._ends(op, error)
            raise
