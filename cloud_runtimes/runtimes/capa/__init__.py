"""Capa: the runtime that lives in the application's own process.

It opens components by name. With no component configured, every service stands on its embedded default, ``sqlite`` in the home folder or what `DEFAULTS` says, and every name is a namespace of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from ... import registry
from ..._core.threads import Mutex
from ...config import ClientSettings, build, setting, without_values
from ...errors import ClosedError, ComponentNotFoundError, InvalidArgumentError, UnsupportedError
from ...spi.component import Component, Runtime

if TYPE_CHECKING:
    from ..._http.http1 import Endpoint
    from ...rpc.peers import Peers
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from ...spi.rpc import RpcDriver

__all__ = ["CapaRuntime", "runtime"]

DEFAULT: Final = "sqlite"
DEFAULTS: Final[Mapping[str, str]] = {"database": "sqlalchemy", "file": "local", "secret": "env"}
"""The embedded default of the services that do not stand on `DEFAULT`."""
AT_HOME: Final = ("sqlite", "sqlalchemy", "local")
"""The components whose data is in the home folder."""
SERVERS: Final[Mapping[str, str]] = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "redis": "redis",
    "rediss": "redis",
    **{f"{scheme}+{kind}": "redis" for scheme in ("redis", "rediss") for kind in ("sentinel", "cluster")},
    "unix": "redis",
    "nats": "nats",
    "tls": "nats",
    "etcd": "etcd",
    "etcds": "etcd",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
}
"""Scheme of a home that is a server's URL → the component that every service stands on that it has."""

_SQL: Final[Mapping[str, str]] = {"postgres": "postgresql+psycopg"}
"""Component of a home → how SQLAlchemy names its server, where databases are there too."""


def _home(value: object) -> str | dict[str, Any]:
    if isinstance(value, dict):
        if not isinstance(value.get("url"), str):
            raise ValueError('[capa.home]: give url = "postgresql://…" or "redis://…"')
    elif not isinstance(value, str):
        raise ValueError("expected a folder or a URL")
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
        rpc_address: where other machines reach this application's methods, e.g. ``"http://shop-1.example.com:8080"``, behind a mapping of ports or a name. Default: where it listens; on all addresses (``host="0.0.0.0"``) the one by which this machine reaches the server of its home.
        rpc_token: what callers of this application's methods may give as ``token`` in ``[rpc.<service>]``, besides the token of its home; at least 16 characters.
        rpc_open: take calls without a token: for an application that guards itself.
        rpc_allowed_hosts: names under which this application is reached behind a proxy or a mapping of ports, e.g. ``["shop.example.com"]``; one with a port stands for that port alone, one that begins with a dot for all names below it.
    """

    home: str | dict | None = setting(None, parse=_home, help="folder of the embedded default, or URL of a server")  # type: ignore[type-arg]
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
def home_server(setting: Any) -> dict[str, Any] | None:
    """Return the table of the server that is the home; ``None``: a folder is. Its user and password stay unsaid."""
    home = setting or os.environ.get("CLOUD_RUNTIMES_HOME") or ""
    table = dict(home) if isinstance(home, dict) else {"url": home}
    scheme, is_url, _ = table["url"].partition("://")
    if scheme in SERVERS and is_url:
        return {"component": SERVERS[scheme], **table}
    if is_url or isinstance(home, dict):
        raise InvalidArgumentError(
            f"the home is no URL of a server that is known: give {', '.join(f'{each}://…' for each in SERVERS)}, or a folder"
        )
    return None


class CapaRuntime(Runtime):
    """Components in the process."""

    name = "capa"

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        self.capa = build(CapaSettings, settings.runtime_settings, f"{settings.origin}: [capa]")
        self._server = home_server(self.capa.home)
        self._lock = Mutex()
        self._components: dict[tuple[str, str], Component] = {}

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
            other = DEFAULTS.get(service, DEFAULT)
            raise UnsupportedError(
                f"the component {component.name!r} has no {service}; it has {', '.join(component.services)}: "
                f'declare another, such as [{service}.{name}] component = "{other}", and beside it what else is used',
                service=service,
                component=name,
                runtime=self.name,
            )
        return component.driver(service, name)

    def native(self, service: str, name: str) -> Any:
        if service == "rpc":
            return super().native(service, name)
        return self.component(service, name).native(service, name)

    # -- rpc --------------------------------------------------------------

    @property
    def peers(self) -> Peers:
        """The connections to configured addresses: those of the embedded store, which has some to the addresses of its registry."""
        component: Any = self._shared(DEFAULT, "")
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
        return cast("RpcDriver", self._shared(self._default("rpc"), "").driver("rpc", name))

    # -- components -------------------------------------------------------

    def component(self, service: str, name: str) -> Component:
        """Return the component that has a name of a service.

        Raises:
            ComponentNotFoundError: the configuration declares components, and this is none of them.
        """
        declared = self.declared().keys()
        if not declared:
            return self._shared(self._default(service), "")
        if (service, name) not in declared:
            raise ComponentNotFoundError(
                f"no component is configured for {service} {name!r}; {self.settings.origin} declares "
                f"{', '.join(f'[{s}.{n}]' for s, n in sorted(declared))}: add [{service}.{name}]",
                service=service,
                component=name,
                runtime=self.name,
            )
        return self._shared(service, name)

    def _default(self, service: str) -> str:
        """Return the component of a service for which none is declared."""
        component = "" if self._server is None else str(self._server["component"])
        if not component or service == "secret" or (service == "database" and component in _SQL):
            return DEFAULTS.get(service, DEFAULT)
        return component

    def _shared(self, service: str, name: str) -> Component:
        """Return a declared component; without a name the embedded default, ``service``, which serves all names."""
        key = service, name
        with self._lock:
            component = self._components.get(key)
            if component is None:
                if self._closed:  # nobody would close it
                    raise ClosedError("this client is closed: make another")
                component = self._components[key] = self._made(service, name)
            return component

    @without_values
    def _made(self, service: str, name: str) -> Component:
        if name:
            table, where = dict(self.settings.components[service][name]), f"{self.settings.origin}: [{service}.{name}]"
            if self._server is not None and self._server["component"] == table["component"] and "url" not in table:
                table = {**self._server, **table}
        elif self._server is not None and self._server["component"] == service:
            table, where = dict(self._server), "the home"
        elif self._server is not None and service == "sqlalchemy":
            rest = self._server["url"].partition("://")[2]
            url = f"{_SQL[self._server['component']]}://{rest}"
            table, where = {"component": service, "url": url, "schemas": True}, "the home"
        else:
            table, where = {"component": service}, "the environment"
        made: type[Component] = registry.find(
            registry.COMPONENTS, table["component"], where=where if name else "", service=service if name else ""
        )
        if made.name in AT_HOME and isinstance(self.capa.home, str) and not {"path", "url"} & set(table):
            table.setdefault("home", self.capa.home)
        return made(build(made.Settings, table, where, beside="component"), self.settings, self.executor)

    def ready(self) -> None:
        declared = self.declared().keys()
        for service, name in declared:
            self.driver(service, name)  # refuses what will never be ready
        for service, name in declared:
            self.component(service, name).ready()
        if self._server is not None or not declared:
            self._shared(self._default("state"), "").ready()

    def is_inside(self) -> bool:
        return any(component.is_inside() for component in list(self._components.values()))

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            components, self._components = self._components, {}
        for component in components.values():
            component.close(timeout)


runtime = CapaRuntime
