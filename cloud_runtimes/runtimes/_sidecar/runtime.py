"""What a runtime that is a sidecar does: a driver for each service the sidecar has, and for the others, where the configuration says so, those of a runtime in the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ... import registry
from ..._core.threads import Mutex
from ...config import ClientSettings
from ...errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ...spi.component import Runtime
from ...spi.operation import Method, Operation

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .transport import Transport

__all__ = ["PATIENCE", "READY", "SidecarRuntime"]

READY: Final = Method("client", "wait_ready", repeatable=True, writes=False)
PATIENCE: Final = 5.0
"""Seconds for one look at whether the sidecar answers."""


class SidecarRuntime(Runtime):
    """Base of the runtimes that are sidecars.

    Attributes:
        drivers: service → module and class of its driver, which takes the transport and the name of the component.
        package: that the modules are relative to.
        transport: to the sidecar.
    """

    drivers: ClassVar[Mapping[str, tuple[str, str]]]
    package: ClassVar[str]
    transport: Transport

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        self._lock = Mutex()
        self._fallback: Runtime | None = None
        for service in settings.components:
            if not settings.components[service]:
                continue
            where = f"{settings.origin}: [{service}.{next(iter(settings.components[service]))}]"
            if service in self.drivers:
                raise InvalidArgumentError(
                    f'{where}: the sidecar has the components, in its own files; runtime = "capa" has them in the process'
                )
            if settings.fallback is None:
                raise InvalidArgumentError(
                    f'{where}: the runtime {self.name} has no {service}: fallback = "capa" has it in the process'
                )

    @property
    def fallback(self) -> Runtime | None:
        """The runtime that has what the sidecar has not."""
        with self._lock:
            if self._fallback is None and self.settings.fallback is not None:
                own = self.settings
                inner = replace(
                    own,
                    runtime=self.settings.fallback,
                    endpoint=None,
                    runtime_settings=own.fallback_settings,
                    components={name: each for name, each in own.components.items() if name not in self.drivers},
                )
                self._fallback = registry.find(registry.RUNTIMES, inner.runtime)(inner, self.executor)
            return self._fallback

    def declared(self) -> Mapping[tuple[str, str], str]:
        fallback = self.fallback
        return {} if fallback is None else fallback.declared()  # what the sidecar has, only it knows

    def driver(self, service: str, name: str) -> Driver:
        if service not in self.drivers:
            if (fallback := self.fallback) is not None:
                return fallback.driver(service, name)
            *first, last = self.drivers
            raise UnsupportedError(
                f"the runtime {self.name} has {', '.join(first)} and {last}, not {service}: "
                f'fallback = "capa" in the configuration has {service} in the process',
                service=service,
                component=name,
                runtime=self.name,
            )
        module, kind = self.drivers[service]
        driver: Driver = getattr(import_module(module, self.package), kind)(self.transport_for(service), name)
        return driver

    def native(self, service: str, name: str) -> Any:
        if service not in self.drivers and (fallback := self.fallback) is not None:
            return fallback.native(service, name)
        found = self.transport_for(service).native()
        return super().native(service, name) if found is None else found

    def transport_for(self, service: str) -> Transport:
        """Return what a service's drivers speak to the sidecar by."""
        return self.transport

    def ready(self) -> None:
        if why := self._why_not():
            raise UnavailableError(f"the sidecar at {self.transport.url} is not ready yet ({why})")
        if (fallback := self.fallback) is not None and fallback.declared():
            fallback.ready()

    def _why_not(self) -> str:
        """Return why the sidecar is not ready; ``""``: it is."""
        return self.transport.run(Operation(READY, "sidecar", PATIENCE), self.transport.ready())

    def is_inside(self) -> bool:
        return self._fallback is not None and self._fallback.is_inside()

    def close(self, timeout: float | None) -> None:
        self.transport.close()
        if (fallback := self._fallback) is not None:
            fallback.close(timeout)
