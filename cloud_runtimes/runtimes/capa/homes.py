"""Homes: where the undeclared names of services live, a folder or a server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ... import registry
from ..._core.home import home_folder, is_memory
from ..._core.urls import without_secrets
from ...config import suggest, without_values
from ...errors import CloudRuntimesError, InvalidArgumentError, UnsupportedError
from ...spi.component import Component

SERVICES: Final = ("state", "pubsub", "lock", "configuration", "schedule", "rpc", "file", "database")
"""The services whose data is on a home."""
_EMBEDDED: Final[Mapping[str, str]] = {"database": "sqlalchemy", "file": "local", "secret": "env"}
"""The components of a folder that are not ``sqlite``."""
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}")


def variable(service: str = "") -> str:
    """Return the variable with the home of a service, or of all."""
    return f"CLOUD_RUNTIMES_HOME_{service.upper()}" if service else "CLOUD_RUNTIMES_HOME"


class Home:
    """A folder or a server.

    Attributes:
        where: what says so, for messages.
        service: the only one that lives there; ``""``: all do.
        folder: the folder, if one is given.
        is_server: whether it is none.
        component: of a server; the settings beside its URL are for this one.
    """

    @without_values
    def __init__(self, value: object, where: str, service: str = "") -> None:
        self.where = where
        self.service = service
        self._settings = dict(value) if isinstance(value, dict) else {}
        self._url: str = self._settings.pop("url") if self._settings else str(value or "")
        scheme, separator, _ = self._url.partition("://")
        self._scheme = scheme
        self.is_server = bool(separator)
        self.folder = None if self.is_server else self._url or None
        self.component = next(_components_at(self._scheme, service), None) if self.is_server else None
        if self.is_server and self.component is None:
            raise InvalidArgumentError(f"{where}: {self._unknown()}")
        if isinstance(value, dict) and not self.is_server:
            raise InvalidArgumentError(f"{where}: url must be that of a server; a folder is text instead of the table")

    def __repr__(self) -> str:
        # in a traceback: what is no home yet may be a secret in the wrong place
        if self.is_server:
            scheme, separator, rest = str(self).partition("://")
            return scheme + separator + rest.partition("/")[0]
        return str(self) if is_memory(str(self)) or os.path.isdir(str(self)) else "a new folder"

    def __str__(self) -> str:
        return without_secrets(self._url) if self.is_server else home_folder(self._url)

    def _lack(self, service: str, name: str) -> str:
        there = (
            f"give {_choices(service)} by [capa.homes] {service} or {variable(service)}, or declare [{service}.{name}]"
        )
        if len(self.services) == 1:
            (only,) = self.services
            there = f"name it by [capa.homes] {only} or {variable(only)} instead, which leaves the others in a folder; or {there}"
            return f"the home {self} has {only} alone: {there}"
        return f"the home {self} has no {service}: {there}"

    def _unknown(self) -> str:
        if next(_components_at(self._scheme, ""), None) is not None:
            return f"{self._scheme}:// has no {self.service}: give {_choices(self.service)}"
        known = {scheme for each in _components() for scheme in each.home_schemes}
        shown = f"{self._scheme}://" if _SCHEME.fullmatch(self._scheme) else "this URL"
        return f"no component takes {shown} as a home; {suggest(self._scheme, known)}; else give a folder"

    def find(self, service: str, name: str) -> tuple[type[Component], dict[str, Any]]:
        """Return the component of an undeclared name, and its settings.

        Raises:
            UnsupportedError: the server has no such service.
        """
        if not self.is_server or service == "secret":
            embedded = registry.find(registry.COMPONENTS, _EMBEDDED.get(service, "sqlite"))
            return embedded, {"home": self.folder} if self.folder and takes_home(embedded) else {}
        component_type = next(_components_at(self._scheme, service), None)
        if component_type is None:
            raise UnsupportedError(self._lack(service, name))
        return component_type, {
            **self.location(component_type, service),
            **(self._settings if component_type is self.component else {}),
        }

    @property
    def services(self) -> tuple[str, ...]:
        """The services that live there, but for those of another component."""
        if self.service:
            return (self.service,)
        return SERVICES if self.component is None else self.component.services

    @without_values
    def location(self, component: type[Component], service: str) -> dict[str, Any]:
        """Return the settings of a component that say where the server is."""
        try:
            return component.home_table(service, self._url)
        except ValueError as error:
            raise InvalidArgumentError(f"{self.where}: {error}") from None

    def complete(self, service: str, table: Mapping[str, Any], component_type: type[Component]) -> dict[str, Any]:
        """Return the settings of a declared component, with those of the home where it says no other place."""
        if component_type is self.component:
            location = self.location(component_type, service)
            if not table.keys() & {*location, "home", "path"}:
                return {**location, **self._settings, **table}
        elif self.folder and takes_home(component_type) and not table.keys() & {"url", "home", "path"}:
            return {**table, "home": self.folder}
        return dict(table)


def takes_home(component: type[Component]) -> bool:
    """Return whether a component keeps its data in a home folder."""
    return "home" in component.Settings.__dataclass_fields__


def _components(scheme: str = "") -> Iterator[type[Component]]:
    """Yield all components. Each is imported for it, so the likely ones of a scheme come first, and entry points last."""
    inside = sorted(registry.built_in(registry.COMPONENTS), key=lambda name: not scheme.startswith(name))
    yield from _loaded(inside)
    yield from _loaded(name for name in registry.names(registry.COMPONENTS) if name not in inside)


def _loaded(names: Iterable[str]) -> Iterator[type[Component]]:
    for name in names:
        try:
            yield registry.find(registry.COMPONENTS, name)
        except CloudRuntimesError:  # e.g. it needs a package, which concerns only who uses it
            continue


def _components_at(scheme: str, service: str) -> Iterator[type[Component]]:
    """Yield the components that are homes by URLs of a scheme, and have a service."""
    return (
        each
        for each in _components(scheme)
        if scheme in each.home_schemes and (not service or service in each.services)
    )


def _choices(service: str) -> str:
    schemes = sorted(each.home_schemes[0] for each in _components() if each.home_schemes and service in each.services)
    return ", ".join(["a folder", *(f"{scheme}://…" for scheme in schemes)])
