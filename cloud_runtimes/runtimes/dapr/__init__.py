"""Dapr: the runtime that is a sidecar, over its HTTP and its gRPC API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Final

from ...config import ClientSettings, build
from ...errors import UnsupportedError
from ...protocols.dapr.messages import messages
from ...rpc._peers import endpoint
from ...spi.operation import Operation
from .._sidecar.address import target
from .._sidecar.runtime import PATIENCE, READY, SidecarRuntime
from .._sidecar.transport import Token
from .address import GRPC_PORT, DaprSettings, addresses
from .callbacks import DaprCallbacks
from .combined_transport import CombinedTransport
from .grpc_transport import GrpcTransport
from .http_transport import HttpTransport

if TYPE_CHECKING:
    from ...spi.executor import Executor
    from .transport import DaprTransport

__all__ = ["DaprRuntime", "runtime"]

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
    """A sidecar of Dapr, or of `cloud_runtimes.dapr_server`."""

    transport: DaprTransport

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
        grpc: GrpcTransport | None = None
        if found.grpc is not None:
            at = target(*found.grpc, GRPC_PORT)
            if find_spec("grpc") is not None and find_spec("google.protobuf") is not None:
                grpc = GrpcTransport(
                    at.name,
                    found.grpc[0],
                    secure=at.secure,
                    metadata=() if token is None else (("dapr-api-token", token),),
                    app_id=settings.app_id,
                    largest=own.max_message,
                )
            elif found.http is None:
                raise UnsupportedError(
                    f'{found.grpc[1]}: the address is gRPC: pip install "cloud-runtimes-python[dapr]"', runtime="dapr"
                )
        if found.http is None:
            assert grpc is not None
            self.transport = grpc
        elif grpc is None:
            self.transport = HttpTransport(endpoint(*found.http), token, settings.app_id, own.max_message)
        else:
            self.transport = CombinedTransport(endpoint(*found.http), token, settings.app_id, grpc)
        self.transport.callbacks = DaprCallbacks()

    def transport_for(self, service: str) -> DaprTransport:
        if self.transport.streams:
            messages()  # imported here, where a fork waits for it
        return self.transport

    def stores(self) -> Mapping[str, Collection[str]] | None:
        found: dict[str, list[str]] = {}
        for name, kind in self.transport.run(
            Operation(READY, "sidecar", PATIENCE), self.transport.components()
        ).items():
            for service in _SERVICES.get(kind.partition(".")[0], ()):
                found.setdefault(service, []).append(name)
        # a sidecar of ours without component files has a store of every name, and tells none
        return found or None


runtime = DaprRuntime
