"""The frame of a service call: the only two loops of the package that wait for a driver."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ._operation import Operation
from .errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from ._driver import Driver
    from .client import CloudRuntimesClient

__all__ = ["Service"]

R = TypeVar("R")
D = TypeVar("D", bound="Driver")


class Service:
    """Base of the services: looks up drivers and runs operations.

    Attributes:
        name: of the service, as in the configuration.
    """

    name: ClassVar[str]

    def __init__(self, client: CloudRuntimesClient) -> None:
        self._client = client
        self._timeout: float | None = client._timeout
        self._runtime_name = ""
        # emptied when the client closes or is forked, so that the hot path needs no other check
        self._drivers: dict[str, Any] = {}
        # span, retry and policy, once something enables them
        self._hooks: Callable[[Operation], Any] | None = None

    def _driver(self, name: str) -> Any:
        """Return the driver for a store name; the first time it is made, without I/O."""
        driver = self._drivers.get(name)
        if driver is None:
            if not isinstance(name, str) or not name or len(name) > 255 or not name.isprintable():
                raise InvalidArgumentError(
                    f"{self.name}: {name!r} is no name of a component: give printable text of 1 to 255 characters"
                )
            runtime = self._client._runtime_for(self)
            self._runtime_name = runtime.name
            self._timeout = self._client._timeout
            driver = self._drivers[name] = runtime.driver(self.name, name)
        return driver

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

    def _call(self, op: Operation, method: Callable[..., R], *args: Any) -> R:
        if self._hooks is not None:
            self._hooks(op)
        while True:
            try:
                return method(op, *args)
            except Exception as error:
                delay = op.failed(error, self._runtime_name)
            time.sleep(delay)

    async def _call_async(self, op: Operation, method: Callable[..., Awaitable[R]], *args: Any) -> R:
        if self._hooks is not None:
            self._hooks(op)
        while True:
            try:
                return await method(op, *args)
            except Exception as error:
                delay = op.failed(error, self._runtime_name)
            import asyncio

            await asyncio.sleep(delay)
