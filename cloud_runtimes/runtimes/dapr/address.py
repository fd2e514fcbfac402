"""Where the sidecar is: the endpoint, the table ``[dapr]``, the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, NamedTuple

from ...config import ClientSettings, setting, without_values
from ...errors import InvalidArgumentError
from .._sidecar.address import message_size

__all__ = ["GRPC_PORT", "Addresses", "DaprSettings", "addresses"]

GRPC_PORT: Final = 50001


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


class Addresses(NamedTuple):
    """Each address with what says so; at least one of them is there."""

    http: tuple[str, str] | None
    grpc: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"<Addresses by {', '.join(each[1] for each in self if each)}>"  # either may hold a password


@without_values
def addresses(settings: ClientSettings, own: DaprSettings) -> Addresses:
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
        return Addresses(http, grpc)
    environment = os.environ
    host = environment.get("DAPR_RUNTIME_HOST") or "127.0.0.1"
    for kind in ("HTTP", "GRPC"):
        found: tuple[str, str] | None = None
        if text := environment.get(f"DAPR_{kind}_ENDPOINT"):
            found = text, f"DAPR_{kind}_ENDPOINT"
        elif port := environment.get(f"DAPR_{kind}_PORT"):
            found = f"{kind.lower()}://{host}:{port}", f"DAPR_{kind}_PORT"
        if kind == "HTTP":
            http = found
        else:
            grpc = found
    if not http and not grpc:
        http = f"http://{host}:3500", "DAPR_HTTP_PORT"
    return Addresses(http, grpc)
