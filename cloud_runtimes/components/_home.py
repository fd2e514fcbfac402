"""A component that can be a home: one engine, which its drivers share, for many services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from .._core.threads import Mutex
from ..config import ClientSettings
from ..errors import ClosedError, UnsupportedError
from ..spi.component import Component

if TYPE_CHECKING:
    from ..rpc.peers import Peers
    from ..spi.driver import Driver
    from ..spi.executor import Executor
    from ..spi.operation import Operation
    from ..spi.portable import Portable


class HomeComponent(Component):
    """See the module.

    Attributes:
        drivers: service → class of its driver, in the module of that name.
    """

    drivers: ClassVar[Mapping[str, str]]

    def __init__(self, settings: Any, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self._lock = Mutex()
        self._peers: Peers | None = None
        self._closed = False

    @property
    def peers(self) -> Peers:
        """The connections to services that the registry knows."""
        with self._lock:
            if self._peers is None:
                from ..rpc.peers import Peers

                self._peers = Peers()
            return self._peers

    def check_open(self) -> None:
        """Refuse to go on waiting once the client was closed, though the engine may serve others."""
        if self._closed:
            raise ClosedError("the client was closed while this call waited")

    def driver(self, service: str, name: str) -> Driver:
        if service not in self.drivers:
            raise UnsupportedError(
                f"{self.name} has no {service}: add [{service}.{name}] with a component that has it",
                service=service,
                component=name,
            )
        driver: Driver = getattr(self._module(service), self.drivers[service])(self, name)
        return driver

    def _module(self, name: str) -> Any:
        """Import a module beside the component; a subclass of another package has those of its base."""
        package = next(cls.__module__ for cls in type(self).__mro__ if "drivers" in vars(cls))
        return import_module(f"{package}.{name}")

    def names(self, op: Operation, service: str) -> Sequence[str]:
        result: Sequence[str] = self._module("portable").names(self, op, service)
        return result

    def portable(self, service: str, name: str) -> Portable:
        result: Portable = self._module("portable").portable(self, service, name)
        return result

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            peers, self._peers = self._peers, None
        if peers is not None:
            peers.close()
