"""Capa: the runtime that lives in the application's own process.

It opens components by name. A name that the configuration does not declare is a namespace of its own on the home of its service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, cast

from ... import registry
from ..._core.arguments import HIDDEN
from ..._core.home import is_memory
from ..._core.logs import once
from ..._core.threads import Mutex
from ...config import ClientSettings, build, duration, setting, typo, unknown, without_values
from ...errors import ClosedError, ComponentNotFoundError, InvalidArgumentError, UnsupportedError
from ...spi.component import Component, Runtime
from .homes import SERVICES, Home, variable

if TYPE_CHECKING:
    from ..._http.http1 import Endpoint
    from ...rpc.peers import Peers
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from ...spi.operation import Operation
    from ...spi.pubsub import PubSubDriver
    from ...spi.relay import RelayLog, SpoolSettings
    from ...spi.rpc import RpcDriver

__all__ = ["CapaRuntime", "runtime"]

_KEPT: Final = dict.fromkeys(("retention", "group_expiry", "history"), 36_500 * 86_400.0)
"""Settings of a spool's component: it sweeps nothing that others of the home may want to keep."""

_TELEMETRY: Final = "telemetry-spool.db"


def _home(value: object) -> str | dict[str, Any]:
    if isinstance(value, dict):
        if not isinstance(value.get("url"), str):
            raise ValueError('a table needs url = "postgresql://…" or "redis://…"')
    elif not isinstance(value, str):
        raise ValueError("expected a folder or a URL")
    return value


def _homes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected a table of services")
    for number, (service, home) in enumerate(value.items(), 1):
        if service not in SERVICES:
            raise ValueError(unknown("service", service, SERVICES, number))
        try:
            _home(home)
        except ValueError as error:
            raise ValueError(f"{service}: {error}") from None
    return value


@without_values
def _address(value: object) -> str:
    from ...rpc.peers import endpoint

    endpoint(value, "rpc_address")
    return str(value)


def _host_names(value: object) -> list[str]:
    from ..._http.request_guard import RequestGuard

    if not isinstance(value, list):
        raise ValueError("expected a list of names")
    RequestGuard(value, option="rpc_allowed_hosts")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CapaSettings:
    """Settings of the table ``[capa]``.

    Attributes:
        home: folder of the embedded default, or URL of a server (``postgresql://user@host/name``, ``redis://user@host/0``), else ``CLOUD_RUNTIMES_HOME``, else ``./.cloud_runtimes``; ``":memory:"`` keeps everything in the process. A table ``[capa.home]`` has the ``url`` together with further settings of its component. A component of its kind that is declared without a ``url`` has these too.
        homes: service → home of its own: ``file = "s3://bucket/prefix"``, ``pubsub = "kafka://host:9092"``, ``database = "postgresql://user@host/name"``, a folder, or a table with the ``url`` and further settings; else ``CLOUD_RUNTIMES_HOME_<SERVICE>``, else ``home``.
        strict: refuse names that the configuration does not declare, instead of keeping them on the home.
        inbox_retention: seconds for which a store keeps the ids of events that ``event.transaction`` handled, where the events have another engine. An event that comes again later is handled again.
        rpc_address: where other machines reach this application's methods, e.g. ``"http://shop-1.example.com:8080"``, behind a mapping of ports or a name. Default: where it listens; on all addresses (``host="0.0.0.0"``) the one by which this machine reaches the server of its home.
        rpc_token: what callers of this application's methods may give as ``token`` in ``[rpc.<service>]``, besides the token of its home; at least 16 characters.
        rpc_open: take calls without a token: for an application that guards itself.
        rpc_allowed_hosts: names under which this application is reached behind a proxy or a mapping of ports, e.g. ``["shop.example.com"]``; one with a port stands for that port alone, one that begins with a dot for all names below it.
    """

    home: str | dict | None = setting(None, parse=_home, help="folder of the embedded default, or URL of a server")  # type: ignore[type-arg]
    homes: dict | None = setting(None, parse=_homes, help="service → home of its own")  # type: ignore[type-arg]
    strict: bool = setting(False, help="refuse undeclared names")
    inbox_retention: float = setting(7 * 86400.0, parse=duration, help="how long ids of handled events are kept")
    rpc_address: str | None = setting(None, parse=_address, help="where others reach this application")
    rpc_token: str | None = setting(None, help="token of callers from elsewhere")
    rpc_open: bool = setting(False, help="take calls without a token")
    rpc_allowed_hosts: list | None = setting(None, parse=_host_names, help="further names of this application")  # type: ignore[type-arg]

    def __post_init__(self) -> None:
        if self.rpc_token is not None:
            check_token(self.rpc_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcTable:
    """Settings of a table ``[rpc.<service>]``: where a service is that no registry knows.

    Attributes:
        address: ``http(s)://host[:port][/prefix]``, or a list of them, tried in turn where one is not reached.
        token: the server's ``rpc_token``; with it the server must prove to be the service before anything is sent.
    """

    address: str | list = setting(None, help="where the service is")  # type: ignore[type-arg]
    token: str | None = setting(None, help="the server's rpc_token")

    def __post_init__(self) -> None:
        if not self.address:
            raise ValueError('give address = "http://host:port"')
        if self.token is not None:
            check_token(self.token)


def check_token(token: str) -> None:
    """Refuse a secret that could be guessed."""
    if len(token) < 16:
        raise ValueError("a token has at least 16 characters")


@without_values
def _read_home(value: object, origin: str, service: str = "") -> Home | None:
    """Return the home of a setting or a variable; ``None``: the service has none of its own."""
    where = f"{origin}: [capa.homes] {service}" if service else f"{origin}: [capa] home"
    if not value:
        value, where = os.environ.get(variable(service)), variable(service)
    return Home(value, where, service) if value or not service else None


class CapaRuntime(Runtime):
    """Components in the process.

    Attributes:
        homes: service → home of its own.
    """

    name = "capa"
    Settings = CapaSettings

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        self.capa = build(CapaSettings, settings.runtime_settings, f"{settings.origin}: [capa]")
        self.inbox_retention = self.capa.inbox_retention
        self._home = cast("Home", _read_home(self.capa.home, settings.origin))
        own = {each: _read_home((self.capa.homes or {}).get(each), settings.origin, each) for each in SERVICES}
        self.homes: Mapping[str, Home] = {service: home for service, home in own.items() if home is not None}
        self._lock = Mutex()
        self._components: dict[tuple[Any, ...], Component] = {}

    def attach(self, settings: ClientSettings, executor: Executor) -> None:
        super().attach(settings, executor)
        self._closed = False

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {
            (service, name): table["component"]
            for service, tables in self.settings.components.items()
            for name, table in tables.items()
        }

    def driver(self, service: str, name: str) -> Driver:
        if service == "rpc":
            from .rpc import CapaRpc

            return CapaRpc(self, name)
        component = self.component(service, name)
        if service not in component.services:
            raise UnsupportedError(
                f"the component {component.name!r} has no {service}; it has {', '.join(component.services)}: "
                f"give [{service}.{name}] another",
                service=service,
                component=name,
                runtime=self.name,
            )
        driver = component.driver(service, name)
        driver.system = driver.system or component.system or component.name
        driver.server = driver.server or component.server
        if service == "pubsub" and (spool := self._spool(service, name)) is not None:
            return self._spooled(cast("PubSubDriver", driver), component.name, name, spool)
        return driver

    @without_values
    def _spool(self, service: str, name: str) -> SpoolSettings | None:
        """Return the settings of the spool of a pub/sub name, or of telemetry; ``None``: it has none."""
        telemetry = service == "telemetry"
        table = self.settings.telemetry if telemetry else self.settings.components.get("pubsub", {}).get(name, {})
        if "spool" not in table:
            return None
        from ...spi.relay import spool_settings

        return spool_settings(table["spool"], self._spool_origin(service, name))

    def _spool_origin(self, service: str, name: str) -> str:
        return f"{self.settings.origin}: [{service if service == 'telemetry' else f'pubsub.{name}'}]"

    def _spooled(self, driver: PubSubDriver, vendor: str, name: str, settings: SpoolSettings) -> Driver:
        from ...spi.relay import SPOOL, relay_name
        from .spool import SpooledPubSub

        return SpooledPubSub(driver, self._spool_store("pubsub", name), name, relay_name(SPOOL, vendor, name), settings)

    def _spool_store(self, service: str, name: str) -> Component:
        """Return the embedded store of this machine, with the limits of the spool of a pub/sub name, or of telemetry."""
        settings = self._spool(service, name)
        home = Home(None, "the environment") if self._home.is_server else self._home
        where = self._spool_origin(service, name) if settings else home.where
        limits: dict[str, Any] = {}
        if settings is not None:
            if is_memory(str(home)):
                raise InvalidArgumentError(f"{where}: spool: events wait on the disk: give a folder as the home")
            limits = {"max_bytes": settings.max_bytes, "when_full": settings.when_full, **_KEPT}
        component_type: type[Component] = registry.find(registry.COMPONENTS, "sqlite")
        folder = {"home": home.folder} if home.folder else {}
        if service == "telemetry":
            # megabytes at a time: nobody else is to wait for that
            folder, name = {"path": os.path.join(str(home), _TELEMETRY)}, ""
        return self._open(("spool", service, name if settings else ""), component_type, {**folder, **limits}, where)

    def native(self, service: str, name: str) -> Any:
        if service == "rpc":
            return super().native(service, name)
        return self.component(service, name).native(service, name)

    def relay(self, service: str, name: str, waiting: str) -> RelayLog | None:
        if service in ("spool", "telemetry"):
            return self._spool_store(service, name).relay(waiting)
        return self.component(service, name).relay(waiting)

    # -- rpc --------------------------------------------------------------

    @cached_property
    def peers(self) -> Peers:
        """The connections to configured addresses: those of the embedded store, which has some to the addresses of its registry."""
        home = self.home("rpc")
        component: Any = self._at_home(Home(None, "the environment") if home.is_server else home, "rpc", "")
        return cast("Peers", component.peers)

    @without_values
    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        """Return where the configuration says that a service is."""
        from ...rpc.peers import endpoint

        where = f"{self.settings.origin}: [rpc.{name}]"
        table = build(RpcTable, self.settings.addresses[name], where)
        secret = None if table.token is None else table.token.encode()
        addresses = [table.address] if isinstance(table.address, str) else table.address
        return tuple(endpoint(address, where, secret) for address in addresses)

    def embedded_rpc(self, name: str) -> RpcDriver:
        """Return the way to a service by the registry of the embedded store, whatever else is declared."""
        return cast("RpcDriver", self._at_home(self.home("rpc"), "rpc", name).driver("rpc", name))

    # -- components -------------------------------------------------------

    def component(self, service: str, name: str) -> Component:
        """Return the component that has a name of a service.

        Raises:
            ComponentNotFoundError: the configuration does not declare the name, and is strict.
        """
        if name in self.settings.components.get(service, ()):
            return self._declared(service, name)
        if self.capa.strict:
            declared = ", ".join(f"[{kind}.{each}]" for kind, each in sorted(self.declared())) or "none"
            raise ComponentNotFoundError(
                f"no component is configured for {service} {name!r}; {self.settings.origin} is strict and declares "
                f"{declared}: add [{service}.{name}]",
                service=service,
                component=name,
                runtime=self.name,
            )
        if meant := typo(name, self.settings.components.get(service, ())):
            once(
                f"undeclared {service} {name}",
                "%s %r is not declared; is [%s.%s] meant? strict = true in [capa] refuses undeclared names",
                *(service, name, service, meant),
            )
        return self._at_home(self.home(service), service, name)

    def undeclared(self, service: str) -> Component | None:
        """Return the component of undeclared names of a service; ``None``: there are no such names."""
        home = self.home(service)
        if self.capa.strict or not (home.is_server or not self.declared() or os.path.isdir(str(home))):
            return None
        try:
            return self._at_home(home, service, "")
        except UnsupportedError:
            return None

    def home(self, service: str = "") -> Home:
        """Return where the undeclared names of a service live; without one the home of all services that have none of their own."""
        return self.homes.get(service, self._home)

    @without_values
    def _at_home(self, home: Home, service: str, name: str) -> Component:
        component_type, table = home.find(service, name)
        # one for all services and names, unless the home gives services other places
        key = (
            component_type.name,
            home.where,
            *(home.location(component_type, service).values() if home.is_server else ()),
        )
        return self._open(key, component_type, table, home.where)

    @without_values
    def _declared(self, service: str, name: str) -> Component:
        table, where = self.settings.components[service][name], f"{self.settings.origin}: [{service}.{name}]"
        component_type: type[Component] = registry.find(
            registry.COMPONENTS, table["component"], where=where, service=service
        )
        for home in (self.home(service), self._home):
            table = home.complete(service, table, component_type)
        table = {key: value for key, value in table.items() if key != "spool" or service != "pubsub"}
        return self._open((service, name), component_type, table, where)

    @without_values
    def _open(
        self, key: tuple[Any, ...], component_type: type[Component], table: Mapping[str, Any], where: str
    ) -> Component:
        """Return the component with these settings, of which there is one for each key."""
        with self._lock:
            component = self._components.get(key)
            if component is None:
                if self._closed:  # nobody would close it
                    raise ClosedError("this client is closed: make another")
                settings = build(component_type.Settings, table, where, beside="component")
                component = self._components[key] = component_type(settings, self.settings, self.executor)
            return component

    def ready(self) -> None:
        for service, name in self.declared():
            self.driver(service, name)  # refuses what will never be ready
        for _, _, check in self.checks():
            check()

    def checks(self) -> Sequence[tuple[str, str, Callable[[], None]]]:
        declared = self.declared().keys()
        homes = dict(self.homes)
        checks = [(*each, partial(lambda *each: self.component(*each).ready(), *each)) for each in declared]
        if self._home.is_server or not (declared or homes):
            homes[""] = self._home
        return checks + [(service, "", partial(self._ready_at, service, home)) for service, home in homes.items()]

    def _ready_at(self, service: str, home: Home) -> None:
        self._at_home(home, service or home.services[0], "").ready()

    def vendor(self, service: str, name: str) -> str:
        return "" if service == "rpc" else self.component(service, name).name

    def location(self) -> str:
        return self._described(repr)

    def __str__(self) -> str:
        return self._described(str)

    def _described(self, form: Callable[[Home], str]) -> str:
        return ", ".join([form(self._home), *(f"{service}: {form(home)}" for service, home in self.homes.items())])

    def stores(self) -> Mapping[str, Collection[str]] | None:
        return super().stores() if self.capa.strict else None

    def names(self, op: Operation, service: str) -> Sequence[str]:
        names = set(self.settings.components.get(service, ()))
        if (home := self.undeclared(service)) is not None:
            with suppress(UnsupportedError):  # it does not list them
                names.update(name for name in home.names(op, service) if not name.startswith(HIDDEN))
        return sorted(names)

    def is_inside(self) -> bool:
        return any(component.is_inside() for component in list(self._components.values()))

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            components, self._components = self._components, {}
        for component in components.values():
            component.close(timeout)


runtime = CapaRuntime
