"""Capa: the runtime that lives in the application's own process.

It opens components by name. With no component configured, every service stands on the embedded default, ``sqlite`` in the home folder, and every name is a namespace of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import registry
from ..._runtime import Component, Runtime
from ...config import ClientSettings, build, setting
from ...errors import ComponentNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from ..._bridge import Bridge
    from ..._driver import Driver

__all__ = ["CapaRuntime", "runtime"]

DEFAULT = "sqlite"
DEFAULTS = {"database": "sqlalchemy"}
"""Service → component of the embedded default, where it is not `DEFAULT`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapaSettings:
    """Settings of the table ``[capa]``.

    Attributes:
        home: folder of the embedded default, else ``CLOUD_RUNTIMES_HOME``, else ``./.cloud_runtimes``; ``":memory:"`` keeps everything in the process.
    """

    home: str | None = setting(None, help="folder of the embedded default")


class CapaRuntime(Runtime):
    """Components in the process."""

    name = "capa"

    def __init__(self, settings: ClientSettings, bridge: Bridge) -> None:
        super().__init__(settings, bridge)
        self.capa = build(CapaSettings, settings.runtime_settings, f"{settings.origin}: [capa]")
        self._lock = threading.RLock()
        self._components: dict[tuple[str, str], Component] = {}

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {
            (service, name): table["component"]
            for service, tables in self.settings.components.items()
            for name, table in tables.items()
        }

    def driver(self, service: str, name: str) -> Driver:
        component = self._component(service, name)
        if service not in component.services:
            raise UnsupportedError(
                f"the component {component.name!r} has no {service}; it has {', '.join(component.services)}",
                service=service,
                component=name,
                runtime=self.name,
            )
        return component.driver(service, name)

    def _component(self, service: str, name: str) -> Component:
        declared = self.declared()
        # without a declaration one instance of each default serves all its services and names
        default = DEFAULTS.get(service, DEFAULT)
        key = (service, name) if declared else ("", default)
        if declared and key not in declared:
            raise ComponentNotFoundError(
                f"no component is configured for {service} {name!r}; {self.settings.origin} declares "
                f"{', '.join(f'[{s}.{n}]' for s, n in sorted(declared))}: add [{service}.{name}]",
                service=service,
                component=name,
                runtime=self.name,
            )
        with self._lock:
            component = self._components.get(key)
            if component is None:
                table: dict[str, Any] = dict(self.settings.components[service][name]) if declared else {}
                made: type[Component] = registry.find(registry.COMPONENTS, table.pop("component", default))
                where = f"{self.settings.origin}: [{service}.{name}]" if declared else "the environment"
                if (
                    made.name in (DEFAULT, *DEFAULTS.values())
                    and self.capa.home is not None
                    and not {"path", "url"} & set(table)
                ):
                    table.setdefault("home", self.capa.home)
                component = made(build(made.Settings, table, where), self.settings, self.bridge)
                self._components[key] = component
            return component

    def ready(self) -> None:
        for service, name in self.declared() or {("state", "default"): DEFAULT}:
            self._component(service, name).ready()

    def is_inside(self) -> bool:
        return any(component.is_inside() for component in list(self._components.values()))

    def close(self, timeout: float | None) -> None:
        with self._lock:
            components, self._components = self._components, {}
        for component in components.values():
            component.close(timeout)


runtime = CapaRuntime
