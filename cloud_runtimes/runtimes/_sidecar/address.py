"""Addresses of gRPC, and sizes of messages, as settings have them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ...config import without_values
from ...errors import InvalidArgumentError

__all__ = ["Target", "message_size", "target"]

_LARGEST: Final = 1 << 30
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def message_size(value: object) -> int:
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


class Target(NamedTuple):
    """A gRPC address as the library names it, and whether it is TLS."""

    name: str
    secure: bool

    def __repr__(self) -> str:
        return "<Target>"  # of the configuration, and frames of errors hold this


@without_values
def target(address: str, where: str, port: int) -> Target:
    """Return what a gRPC address stands for: ``grpc(s)://``, ``http(s)://`` as SDKs of Dapr take it, ``host:port``, ``unix:path``, ``dns:host:port?tls=true``.

    Args:
        where: what says so, for messages.
        port: where none is given.

    Raises:
        InvalidArgumentError: anything else; names ``where`` it stands, not the address, which may hold a password.
    """
    why = f"{where}: no address such as 'grpc://localhost:{port}', 'unix:///run/sidecar.sock'"
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
        try:
            parts = urlsplit(address)
        except ValueError:  # which quotes the address
            raise InvalidArgumentError(why) from None
        if parts.scheme not in ("grpc", "grpcs", "http", "https", "dns", "tcp") or parts.path not in ("", "/"):
            raise InvalidArgumentError(why)
        rest, query = parts.netloc, parts.query
        secure = parts.scheme in ("grpcs", "https")
        default = 443 if secure else 80 if parts.scheme == "http" else port
    else:
        rest, _, query = (rest if scheme == "dns" else address).partition("?")
        default = port
    if query not in ("", "tls=true", "tls=false") or not _HOST_PORT.fullmatch(rest):
        raise InvalidArgumentError(why)
    if not re.search(r":[0-9]+$", rest):
        rest = f"{rest}:{default}"
    return Target(rest, secure or query == "tls=true")
