"""Dapr: the runtime that is a sidecar, over its HTTP and its gRPC API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from ..._core import extras
from ...config import ClientSettings, build
from ...errors import UnavailableError
from ...protocols.dapr.messages import messages
from ...rpc.peers import endpoint
from ...spi.operation import Method, Operation
from .._sidecar.address import target
from .._sidecar.runtime import SidecarRuntime
from .._sidecar.transport import Token
from .address import GRPC_PORT, DaprSettings, addresses
from .callbacks import DaprCallbacks

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .transport import DaprTransport

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


class DaprRuntime(SidecarRuntime):
    """A sidecar of Dapr, or of `cloud_runtimes.dapr_server`.

    Attributes:
        link: the way to it; where both its addresses are known each call takes the better one.
        calls: the way of calls: HTTP where it is known, since over gRPC an application's failure loses its body.
    """

    name = "dapr"
    package = __name__
    Settings = DaprSettings
    drivers: ClassVar[Mapping[str, tuple[str, str]]] = {
        "configuration": (".configuration", "DaprConfiguration"),
        "database": (".database", "DaprDatabase"),
        "file": (".file", "DaprFile"),
        "lock": (".._sidecar.lock", "SidecarLock"),
        "pubsub": (".pubsub", "DaprPubSub"),
        "rpc": (".rpc", "DaprRpc"),
        "schedule": (".schedule", "DaprSchedule"),
        "secret": (".secret", "DaprSecret"),
        "state": (".state", "DaprState"),
    }

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        own = build(DaprSettings, settings.runtime_settings, f"{settings.origin}: [dapr]")
        found = addresses(settings, own)
        token = None if settings.api_token is None else Token(settings.api_token)
        http: DaprTransport | None = None
        grpc: DaprTransport | None = None
        if found.grpc is not None:
            at = target(*found.grpc, GRPC_PORT)
            if extras.installed("grpc", "google.protobuf"):
                from .over_grpc import GrpcTransport

                grpc = GrpcTransport(
                    at.name,
                    found.grpc[0],
                    secure=at.secure,
                    metadata=() if token is None else (("dapr-api-token", token),),
                    app_id=settings.app_id,
                    largest=own.max_message,
                )
            elif found.http is None:
                raise extras.missing(f"{found.grpc[1]}: the address is gRPC, which", "dapr")
        if found.http is not None:
            from .over_http import HttpTransport

            http = HttpTransport(endpoint(*found.http), token, settings.app_id, own.max_message)
        self.calls: DaprTransport
        self.link: DaprTransport
        if http is not None and grpc is not None:
            from .two_ways import TwoWays

            self.calls, self.link = http, TwoWays(http, grpc)
        elif (only := http or grpc) is not None:
            self.calls = self.link = only
        self.link.callbacks = self.calls.callbacks = DaprCallbacks()

    def way(self, service: str) -> DaprTransport:
        if self.link.streams:
            messages()  # imported here, where a fork waits for it
        return self.calls if service == "rpc" else self.link

    def ready(self) -> None:
        link = self.calls
        if why := link.run(Operation(_READY, "sidecar", _PATIENCE), link.ready()):
            raise UnavailableError(f"the sidecar at {link.url} is not ready yet ({why})")
        if (fallback := self.fallback) is not None and fallback.declared():
            fallback.ready()

    def stores(self) -> Mapping[str, Collection[str]] | None:
        found: dict[str, list[str]] = {}
        for name, kind in self.link.run(Operation(_READY, "sidecar", _PATIENCE), self.link.components()).items():
            for service in _SERVICES.get(kind.partition(".")[0], ()):
                found.setdefault(service, []).append(name)
        # a sidecar of ours without component files has a store of every name, and tells none
        return found or None

    def close(self, timeout: float | None) -> None:
        self.link.close()
        super().close(timeout)


runtime = DaprRuntime
