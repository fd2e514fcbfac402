"""Where the sidecar is: the endpoint, the table ``[dapr]``, the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ...config import ClientSettings, setting
from ...errors import InvalidArgumentError

__all__ = ["Addresses", "DaprSettings", "Target", "addresses", "target"]

_LARGEST: Final = 1 << 30
_GRPC_PORT: Final = 50001
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def _bytes(value: object) -> int:
    """Read a number of bytes: an integer, or text such as ``"16MiB"``."""
    found = re.fullmatch(r"([0-9]{1,10})(|KiB|MiB)", value) if isinstance(value, str) else None
    if found is not None:
        size = int(found[1]) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[found[2]]
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise ValueError('expected bytes or text such as "16MiB"')
    if not 1 << 16 <= size <= _LARGEST:
        raise ValueError('expected "64KiB" to "1024MiB"')
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class DaprSettings:
    """Settings of the table ``[dapr]``.

    Attributes:
        http_endpoint: where the sidecar's HTTP API is, beside or instead of ``endpoint``; else ``DAPR_HTTP_ENDPOINT``, ``DAPR_HTTP_PORT``.
        grpc_endpoint: where its gRPC API is; else ``DAPR_GRPC_ENDPOINT``, ``DAPR_GRPC_PORT``.
        max_message: bytes of one message over gRPC, and of one with events over HTTP, or text such as ``16MiB``; the sidecar has a limit of its own (``--max-body-size``).
    """

    http_endpoint: str | None = None
    grpc_endpoint: str | None = None
    max_message: int = setting("4MiB", parse=_bytes)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_message", _bytes(self.max_message))


class Addresses(NamedTuple):
    """Each address with what says so; at least one of them is there."""

    http: tuple[str, str] | None
    grpc: tuple[str, str] | None


class Target(NamedTuple):
    """A gRPC address as the library names it, and whether it is TLS."""

    name: str
    secure: bool


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
                f"endpoint {given[:80]!r}: give http://host:port or https, grpc://host:port or grpcs, or unix:///path"
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


def target(address: str, where: str) -> Target:
    """Return what a gRPC address stands for: ``grpc(s)://``, ``http(s)://`` as Dapr's SDKs take it, ``host:port``, ``unix:path``, ``dns:host:port?tls=true``.

    Raises:
        InvalidArgumentError: anything else; names ``where`` it stands.
    """
    why = f"{where}: {address[:80]!r} is no address such as 'grpc://localhost:50001', 'http://localhost:3500', 'unix:///run/dapr.sock'"
    if not address.isascii() or not address.isprintable() or " " in address:
        raise InvalidArgumentError(why)
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        path = rest.removeprefix("//")
        if not path:
            raise InvalidArgumentError(why)
        return Target(f"unix:{path}", False)
    secure = False
    if "://" in address:
        parts = urlsplit(address)
        if parts.scheme not in ("grpc", "grpcs", "http", "https", "dns", "tcp") or parts.path not in ("", "/"):
            raise InvalidArgumentError(why)
        rest, query = parts.netloc, parts.query
        secure = parts.scheme in ("grpcs", "https")
        default = 443 if secure else 80 if parts.scheme == "http" else _GRPC_PORT
    else:
        rest, _, query = (rest if scheme == "dns" else address).partition("?")
        default = _GRPC_PORT
    if query not in ("", "tls=true", "tls=false") or not _HOST_PORT.fullmatch(rest):
        raise InvalidArgumentError(why)
    if not re.search(r":[0-9]+$", rest):
        rest = f"{rest}:{default}"
    return Target(rest, secure or query == "tls=true")
