"""Base of the runtimes: a runtime is a source of drivers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from ..config import ClientSettings
from ..errors import UnsupportedError

if TYPE_CHECKING:
    from .driver import Driver
    from .executor import Executor
    from .operation import Operation
    from .portable import Portable
    from .relay import RelayLog

__all__ = ["Component", "Runtime"]


def no_native(service: str, name: str) -> UnsupportedError:
    """Return the error where nothing of a vendor stands behind a component."""
    return UnsupportedError(
        f"{service} {name!r} has no client or connection of a vendor", service=service, component=name
    )


def server_of(address: str) -> tuple[str, int | None] | None:
    """Return host and port of the first server of a URL, or of ``host:port,…``; the path of a socket without a port; ``None``: there is none."""
    scheme, separator, rest = address.partition("://")
    if scheme == "unix" and separator:
        return rest.partition("?")[0], None
    try:
        netloc = urlsplit(address).netloc if separator else address
        first = urlsplit("//" + netloc.rpartition("@")[2].partition(",")[0])
        return (first.hostname, first.port) if first.hostname else None
    except ValueError:  # the first call refuses it
        return None


class Runtime(ABC):
    """Base of a runtime, whose ``name`` is that of ``CloudRuntimesClient(runtime=…)``. Making one does no I/O; it belongs to one client.

    Attributes:
        inbox_retention: seconds for which a store of another engine keeps the ids of handled events.
    """

    name: ClassVar[str]
    inbox_retention: float = 604_800.0

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        self.attach(settings, executor)

    def attach(self, settings: ClientSettings, executor: Executor) -> None:
        """Take the settings and the executor of the client. One that is given to a client ready made gets them by this, before its first call."""
        self.settings = settings
        self.executor = executor

    @abstractmethod
    def driver(self, service: str, name: str) -> Driver:
        """Return the driver of a service for a store name; called once per name, without I/O.

        Raises:
            ComponentNotFoundError: no such component is configured.
            UnsupportedError: the runtime does not have this service.
        """

    def native(self, service: str, name: str) -> Any:
        """Return the vendor's client or connection behind a component; see `Component.native`."""
        raise no_native(service, name)

    def relay(self, service: str, name: str, waiting: str) -> RelayLog | None:
        """Return where events wait in the engine of a component, under a name; see `Component.relay`. The services ``spool`` and ``telemetry`` are their spools on this machine; each is a `SpoolLog`."""
        return None

    @abstractmethod
    def ready(self) -> None:
        """Return once the runtime answers; raise `UnavailableError` where it does not (yet)."""

    def vendor(self, service: str, name: str) -> str:
        """Return the component behind a name, for people; ``""``: it is not known here."""
        return self.declared().get((service, name), "")

    def __str__(self) -> str:
        return self.name

    def location(self) -> str:
        """Return where it keeps data, for the ``repr`` of its client: nothing that could be a secret in the wrong place."""
        return ""

    def stores(self) -> Mapping[str, Collection[str]] | None:
        """Return service → names of the components that there are; ``None``: any name is one, or it is not known. Asked once the runtime is `ready`; may do I/O."""
        if not (declared := self.declared()):
            return None
        names: dict[str, list[str]] = {service: [] for service, _ in declared}
        for service, name in declared:
            names[service].append(name)
        return names

    def checks(self) -> Sequence[tuple[str, str, Callable[[], None]]]:
        """Return what has to be ready, each with the service and name that it has, ``""``: all or any of them, and what returns once it is."""
        return [("", "", self.ready)]

    def names(self, op: Operation, service: str) -> Sequence[str]:
        """Return the names of a service that are declared or have data, in order; may do I/O."""
        return sorted((self.stores() or {}).get(service, ()))

    def is_inside(self) -> bool:
        """Return whether this is a signal handler that came while the thread was in a call for which closing would wait."""
        return False

    @abstractmethod
    def close(self, timeout: float | None) -> None:
        """Let go of everything, within ``timeout`` seconds."""

    @abstractmethod
    def declared(self) -> Mapping[tuple[str, str], str]:
        """Return (service, name) → component of what the configuration declares."""


class Component(ABC):
    """Base of a component of the in-process runtime: one vendor, its settings, its drivers.

    One instance serves one configuration table. Making one does no I/O.

    Attributes:
        name: of its folder or entry point.
        Settings: a frozen dataclass; see `cloud_runtimes.config.setting`.
        system: what spans call its engine, where that is not its name (see `Driver`).
        services: which services it has drivers for.
        home_schemes: schemes of the URLs by which it is a home, for undeclared names of these services.
    """

    name: ClassVar[str]
    system: ClassVar[str] = ""
    Settings: ClassVar[type[Any]]
    services: ClassVar[tuple[str, ...]]
    home_schemes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any, context: ClientSettings, executor: Executor) -> None:
        self.settings = settings
        self.context = context
        self.executor = executor

    @classmethod
    def home_table(cls, service: str, url: str) -> dict[str, Any]:
        """Return the settings of a home for a service; every store name must be a namespace of its own there. A wrong ``url`` is a `ValueError`."""
        return {"url": url}

    @abstractmethod
    def driver(self, service: str, name: str) -> Driver:
        """Return the driver of one of its `services` for a store name, without I/O; asked for before `ready` too, so perhaps several times. Settings that do not fit the service are an `InvalidArgumentError`."""

    @property
    def server(self) -> tuple[str, int | None] | None:
        """Host and port of the first server that the settings ``endpoint``, ``url`` or ``servers`` name, for spans; ``None``: they name none."""
        addresses = (getattr(self.settings, name, None) for name in ("endpoint", "url", "servers"))
        return server_of(next((each for each in addresses if isinstance(each, str)), ""))

    def native(self, service: str, name: str) -> Any:
        """Return the vendor's client or connection that a driver stands on, for what no service offers; `UnsupportedError`: there is none."""
        raise no_native(service, name)

    def relay(self, name: str) -> RelayLog | None:
        """Return where events wait in the engine for a broker of another one, under a name; ``None``: it has no such log."""
        return None

    def names(self, op: Operation, service: str) -> Sequence[str]:
        """Return the names of a service that have data here, for copying it; of schedules the applications."""
        raise UnsupportedError(f"the component {self.name!r} does not list its names of {service}", service=service)

    def portable(self, service: str, name: str) -> Portable:
        """Return the data of a name, for copying it; files are copied by their drivers."""
        raise UnsupportedError(
            f"the data of the component {self.name!r} cannot be copied", service=service, component=name
        )

    def ready(self) -> None:
        """Return once it answers; raise `UnavailableError` where it does not."""

    def is_inside(self) -> bool:
        """See `Runtime.is_inside`."""
        return False

    @abstractmethod
    def close(self, timeout: float | None) -> None:
        """Let go of connections and threads, within ``timeout`` seconds."""
