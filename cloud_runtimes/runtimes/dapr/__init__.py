"""Dapr: the runtime that is a sidecar, over its HTTP and its gRPC API."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from ..._core import extras
from ...config import ClientSettings, build, setting, without_values
from ...errors import InvalidArgumentError
from ...protocols.dapr.messages import messages
from ...rpc.peers import endpoint
from ...spi.executor import Executor
from .._sidecar.runtime import SidecarRuntime, message_size, target
from .._sidecar.transport import Token
from .callbacks import DaprCallbacks
from .grpc_transport import CombinedTransport, GrpcTransport
from .http_transport import HttpTransport

__all__ = ["DaprRuntime", "DaprSettings", "runtime"]

_GRPC_PORT: Final = 50001
_SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "bindings": ("database", "file"),
    "configuration": ("configuration",),
    "lock": ("lock",),
    "pubsub": ("pubsub",),
    "secretstores": ("secret",),
    "state": ("state",),
}
"""What the type of a component begins with in Dapr → services that it may serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaprSettings:
    """Settings of the table ``[dapr]``.

    Attributes:
        http_endpoint: where the sidecar's HTTP API is, beside or instead of ``endpoint``; else ``DAPR_HTTP_ENDPOINT``, ``DAPR_HTTP_PORT``.
        grpc_endpoint: where its gRPC API is; else ``DAPR_GRPC_ENDPOINT``, ``DAPR_GRPC_PORT``.
        max_message: bytes of one message over gRPC, and of one with events over HTTP, or text such as ``16MiB``; the sidecar has a limit of its own (``--max-body-size``).
    """

    http_endpoint: str | None = setting(None)
    grpc_endpoint: str | None = setting(None)
    max_message: int = setting("4MiB", parse=message_size)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_message", message_size(self.max_message))


class _Addresses(NamedTuple):
    """Each address with what says so; at least one of them is there."""

    http: tuple[str, str] | None
    grpc: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"<Addresses by {', '.join(each[1] for each in self if each)}>"  # either may hold a password


@without_values
def _addresses(settings: ClientSettings, own: DaprSettings) -> _Addresses:
    """Return where the sidecar is. The environment counts only where nothing else is said."""
    http: tuple[str, str] | None = None
    grpc: tuple[str, str] | None = None
    if own.http_endpoint:
        http = own.http_endpoint, f"{settings.origin}: [dapr] http_endpoint"
    if own.grpc_endpoint:
        grpc = own.grpc_endpoint, f"{settings.origin}: [dapr] grpc_endpoint"
    if (given := settings.endpoint) is not None:
        if given.startswith(("http://", "https://")):
            http = given, "endpoint"
        elif given.startswith(("grpc://", "grpcs://", "unix:")):
            grpc = given, "endpoint"
        else:
            raise InvalidArgumentError(
                "endpoint: give http://host:port or https, grpc://host:port or grpcs, or unix:///path"
            )
    if http or grpc:
        return _Addresses(http, grpc)
    environment = os.environ
    host = environment.get("DAPR_RUNTIME_HOST") or "127.0.0.1"
    addresses: dict[str, tuple[str, str]] = {}
    for kind in ("http", "grpc"):
        name = f"DAPR_{kind.upper()}"
        if text := environment.get(f"{name}_ENDPOINT"):
            addresses[kind] = text, f"{name}_ENDPOINT"
        elif port := environment.get(f"{name}_PORT"):
            addresses[kind] = f"{kind}://{host}:{port}", f"{name}_PORT"
    if not addresses:
        addresses["http"] = f"http://{host}:3500", "DAPR_HTTP_PORT"
    return _Addresses(addresses.get("http"), addresses.get("grpc"))


class DaprRuntime(SidecarRuntime):
    """A sidecar of Dapr, or of `cloud_runtimes.dapr_server`."""

    transport: HttpTransport | GrpcTransport  # type: ignore[assignment]  # with the same calls

    name = "dapr"
    package = __name__
    Settings = DaprSettings
    drivers: ClassVar[Mapping[str, tuple[str, str]]] = {
        "configuration": (".stores", "DaprConfiguration"),
        "database": (".database", "DaprDatabase"),
        "file": (".file", "DaprFile"),
        "lock": (".._sidecar.stores", "SidecarLock"),
        "pubsub": (".pubsub", "DaprPubSub"),
        "rpc": (".rpc", "DaprRpc"),
        "schedule": (".schedule", "DaprSchedule"),
        "secret": (".stores", "DaprSecret"),
        "state": (".stores", "DaprState"),
    }

    def __init__(self, settings: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, executor)
        own = build(DaprSettings, settings.runtime_settings, f"{settings.origin}: [dapr]")
        addresses = _addresses(settings, own)
        token = None if settings.api_token is None else Token(settings.api_token)
        grpc: GrpcTransport | None = None
        if addresses.grpc is not None:
            at = target(*addresses.grpc, _GRPC_PORT)
            if extras.installed("grpc", "google.protobuf"):
                messages()  # imported here, where a fork waits for it
                grpc = GrpcTransport(
                    at.name,
                    addresses.grpc[0],
                    secure=at.secure,
                    metadata=() if token is None else (("dapr-api-token", token),),
                    app_id=settings.app_id,
                    largest=own.max_message,
                )
            elif addresses.http is None:
                raise extras.missing(f"{addresses.grpc[1]}: the address is gRPC, which", "dapr")
        if addresses.http is None:
            assert grpc is not None
            self.transport = grpc
        elif grpc is None:
            self.transport = HttpTransport(endpoint(*addresses.http), token, settings.app_id, own.max_message)
        else:
            self.transport = CombinedTransport(endpoint(*addresses.http), token, settings.app_id, grpc)
        self.transport.callbacks = DaprCallbacks()

    def stores(self) -> Mapping[str, Collection[str]] | None:
        names: dict[str, list[str]] = {}
        for name, kind in self.look(self.transport.components()).items():
            for service in _SERVICES.get(kind.partition(".")[0], ()):
                names.setdefault(service, []).append(name)
        # a sidecar of ours without component files has a store of every name, and tells none
        return names or None


runtime = DaprRuntime
