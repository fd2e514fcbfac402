"""Base of the sidecar runtimes: a driver for each service of the sidecar.

For other services it uses the drivers of a runtime in the process, if the configuration says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ... import registry
from ..._core.threads import Mutex
from ...config import ClientSettings, without_values
from ...errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ...spi.component import Runtime, server_of
from ...spi.operation import Method, Operation

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .channel import Channel
    from .transport import Flow

T = TypeVar("T")
_READY: Final = Method("client", "wait_ready", repeatable=True, writes=False)
PATIENCE: Final = 5.0
"""Seconds for one look at whether the sidecar answers."""
_LARGEST: Final = 1 << 30
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_WELL_KNOWN: Final = {"https": 443, "grpcs": 443, "http": 80}


class SidecarRuntime(Runtime):
    """Base of the runtimes that are sidecars."""

    # service → module, relative to the package, and class of its driver, which takes the transport and the name of the component
    drivers: ClassVar[Mapping[str, tuple[str, str]]]
    package: ClassVar[str]
    transport: Channel

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
        driver: Driver = getattr(import_module(module, self.package), kind)(self.transport, name)
        driver.system = self.name
        driver.server = server_of(self.transport.url.partition(" ")[0])
        return driver

    def native(self, service: str, name: str) -> Any:
        if service not in self.drivers and (fallback := self.fallback) is not None:
            return fallback.native(service, name)
        client = self.transport.native()
        return super().native(service, name) if client is None else client

    def ready(self) -> None:
        if why := self._why_not():
            raise UnavailableError(f"the sidecar at {self.transport.url} is not ready yet ({why})")
        if (fallback := self.fallback) is not None and fallback.declared():
            fallback.ready()

    def _why_not(self) -> str:
        """Return why the sidecar is not ready; ``""``: it is."""
        return self.look(self.transport.ready())

    def look(self, flow: Flow[T]) -> T:
        """Make a call of the runtime's own."""
        return self.transport.run(Operation(_READY, "sidecar", PATIENCE), flow)

    def is_inside(self) -> bool:
        return self._fallback is not None and self._fallback.is_inside()

    def close(self, timeout: float | None) -> None:
        self.transport.close()
        if (fallback := self._fallback) is not None:
            fallback.close(timeout)


def message_size(value: object) -> int:
    """Read a number of bytes: an integer, or text such as ``"16MiB"``."""
    match = re.fullmatch(r"([0-9]{1,10})(|KiB|MiB)", value) if isinstance(value, str) else None
    if match is not None:
        size = int(match[1]) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[match[2]]
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise ValueError('expected bytes or text such as "16MiB"')
    if not 1 << 16 <= size <= _LARGEST:
        raise ValueError('expected "64KiB" to "1024MiB"')
    return size


class Target(NamedTuple):
    """A gRPC address as the library names it, and whether it is TLS."""

    name: str
    secure: bool

    def __repr__(self) -> str:
        return "<Target>"  # of the configuration, and frames of errors hold this


@without_values
def target(address: str, where: str, port: int) -> Target:
    """Return what a gRPC address stands for: ``grpc(s)://``, ``http(s)://`` as SDKs of Dapr take it, ``host:port``, ``unix:path``, ``dns:host:port?tls=true``. A refusal names ``where`` it stands instead of the address, which may hold a password."""
    refusal = InvalidArgumentError(f"{where}: no address such as 'grpc://localhost:{port}', 'unix:///run/sidecar.sock'")
    if not address.isascii() or not address.isprintable() or " " in address:
        raise refusal
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        if path := rest.removeprefix("//"):
            return Target(f"unix:{path}", False)
        raise refusal
    secure = False
    if "://" in address:
        try:
            parts = urlsplit(address)
        except ValueError:  # which quotes the address
            raise refusal from None
        if parts.scheme not in ("grpc", "grpcs", "http", "https", "dns", "tcp") or parts.path not in ("", "/"):
            raise refusal
        rest, query = parts.netloc, parts.query
        secure = parts.scheme in ("grpcs", "https")
        port = _WELL_KNOWN.get(parts.scheme, port)
    else:
        rest, _, query = (rest if scheme == "dns" else address).partition("?")
    if query not in ("", "tls=true", "tls=false") or not _HOST_PORT.fullmatch(rest):
        raise refusal
    if not re.search(r":[0-9]+$", rest):
        rest = f"{rest}:{port}"
    return Target(rest, secure or query == "tls=true")
