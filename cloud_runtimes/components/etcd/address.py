"""Where the servers are and who the client is, from a URL."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ...config import without_values
from ...errors import InvalidArgumentError
from .._net.connections import Server, Tls

TLS: Final = Tls("tls_ca", "tls_certificate", "tls_key")
_PORT: Final = 2379


class Address(NamedTuple):
    """Servers of one cluster.

    Attributes:
        servers: host and port of each.
        username, password: ``None``: none is sent.
        tls: whether they speak TLS.
    """

    servers: tuple[Server, ...]
    username: str | None
    password: str | None
    tls: bool

    def __repr__(self) -> str:
        return f"etcd {self.where}"

    @property
    def where(self) -> str:
        """How messages name them, without user and password."""
        return ",".join(f"{host}:{port}" for host, port in self.servers)


@without_values
def parse_url(url: str) -> Address:
    """Read a URL.

    Raises:
        InvalidArgumentError: it is none; the URL is not quoted, since it may hold a password.
    """
    try:
        scheme, _, rest = url.partition("://")
        user, _, hosts = rest.rpartition("@")
        username, colon, password = user.partition(":")
        if scheme not in ("etcd", "etcds") or (user and not (username and colon)):
            raise ValueError
        servers: list[Server] = []
        for part in hosts.rstrip("/").split(","):
            parts = urlsplit(f"etcd://{part}")
            if not parts.hostname or parts.path or parts.query or parts.fragment:
                raise ValueError
            servers.append((parts.hostname, parts.port or _PORT))
        if not user:
            return Address(tuple(servers), None, None, scheme == "etcds")
        return Address(tuple(servers), unquote(username), unquote(password), scheme == "etcds")
    except ValueError:
        raise InvalidArgumentError(
            "the url of an etcd component: give one such as etcd://user:password@host:2379; its options are settings"
        ) from None
