"""Dapr: the runtime that is a sidecar, over its HTTP and its gRPC API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from ..._dapr.messages import messages
from ..._operation import Method, Operation
from ..._runtime import Runtime
from ...config import ClientSettings, build
from ...errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ...rpc._peers import endpoint
from .address import DaprSettings, addresses, target
from .callbacks import DaprCallbacks

if TYPE_CHECKING:
    from ..._bridge import Bridge
    from ..._driver import Driver
    from .transport import Transport

__all__ = ["DaprRuntime", "runtime"]

_READY: Final = Method("client", "wait_ready", repeatable=True, writes=False)
_PATIENCE: Final = 5.0
"""Seconds for one look at whether the sidecar answers."""

_SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "bindings": ("database", "file"),
    "configuration": ("configuration",),
    "lock": ("lock",),
    "pubsub": ("pubsub",),
    "secretstores": ("secret",),
    "state": ("state",),
}
"""What the type of a component begins with in Dapr → services that it may serve."""
_DRIVERS: Final[Mapping[str, tuple[str, str]]] = {
    "configuration": (".configuration", "DaprConfiguration"),
    "database": (".database", "DaprDatabase"),
    "file": (".file", "DaprFile"),
    "lock": (".lock", "DaprLock"),
    "pubsub": (".pubsub", "DaprPubSub"),
    "rpc": (".rpc", "DaprRpc"),
    "schedule": (".schedule", "DaprSchedule"),
    "secret": (".secret", "DaprSecret"),
    "state": (".state", "DaprState"),
}
"""Service → module and class of its driver, which takes the transport and the name of the component."""


class DaprRuntime(Runtime):
    """A sidecar of Dapr, or of `cloud_runtimes.sidecar`.

    Attributes:
        link: the way to it; gRPC where both its addresses are known.
        calls: the way of calls: HTTP where both are known, since over gRPC an application's failure loses its body.
    """

    name = "dapr"
    Settings = DaprSettings

    def __init__(self, settings: ClientSettings, bridge: Bridge) -> None:
        super().__init__(settings, bridge)
        own = build(DaprSettings, settings.runtime_settings, f"{settings.origin}: [dapr]")
        for service, tables in settings.components.items():
            if tables:
                raise InvalidArgumentError(
                    f"{settings.origin}: [{service}.{next(iter(tables))}]: the sidecar has the components, in its resource files; "
                    'runtime = "capa" has them in the process'
                )
        found = addresses(settings, own)
        http: Transport | None = None
        grpc: Transport | None = None
        if found.grpc is not None:
            at = target(*found.grpc)
            if find_spec("grpc") is not None and find_spec("google.protobuf") is not None:
                from .over_grpc import GrpcTransport

                grpc = GrpcTransport(
                    at.name,
                    found.grpc[0],
                    secure=at.secure,
                    token=settings.api_token,
                    app_id=settings.app_id,
                    largest=own.max_message,
                )
            elif found.http is None:
                raise UnsupportedError(
                    f'{found.grpc[1]}: {found.grpc[0]!r} is gRPC: pip install "cloud-runtimes-python[dapr]"',
                    runtime="dapr",
                )
        if found.http is not None:
            from .over_http import HttpTransport

            http = HttpTransport(endpoint(*found.http), settings.api_token, settings.app_id, own.max_message)
        made = [each for each in (grpc, http) if each is not None]
        self.link, self.calls = made[0], made[-1]
        self.link.callbacks = self.calls.callbacks = DaprCallbacks()

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}  # only the sidecar knows

    def driver(self, service: str, name: str) -> Driver:
        if service not in _DRIVERS:
            *first, last = _DRIVERS
            raise UnsupportedError(
                f"the runtime dapr has {', '.join(first)} and {last} in this version, not {service}: "
                f'CloudRuntimesClient(runtime="capa") has {service} in the process',
                service=service,
                component=name,
                runtime=self.name,
            )
        if self.link.streams:
            messages()  # imported here, where a fork waits for it
        module, kind = _DRIVERS[service]
        driver: Driver = getattr(import_module(module, __name__), kind)(
            self.calls if service == "rpc" else self.link, name
        )
        return driver

    def ready(self) -> None:
        link = self.calls
        if why := link.run(Operation(_READY, "sidecar", _PATIENCE), link.ready()):
            raise UnavailableError(f"the sidecar at {link.url} is not ready yet ({why})")

    def stores(self) -> Mapping[str, Collection[str]] | None:
        found: dict[str, list[str]] = {}
        for name, kind in self.link.run(Operation(_READY, "sidecar", _PATIENCE), self.link.components()).items():
            for service in _SERVICES.get(kind.partition(".")[0], ()):
                found.setdefault(service, []).append(name)
        # a sidecar of ours without component files has a store of every name, and tells none
        return found or None

    def close(self, timeout: float | None) -> None:
        for link in {self.link, self.calls}:
            link.close()


runtime = DaprRuntime
