"""Where the servers are and who the client is, from a URL."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ...config import without_values
from ...errors import InvalidArgumentError
from .._net import connections as _connections
from .._net.connections import Server, Tls

TLS: Final = Tls("tls_ca", "tls_certificate", "tls_key")
_PORT: Final = 4222
_TOLD: Final = 256
"""Servers that are learned of others at most."""


class Address(NamedTuple):
    """Servers of one cluster.

    Attributes:
        servers: host and port of each.
        username, password, token: ``None``: none is sent.
        tls: whether a server without TLS is refused.
    """

    servers: tuple[Server, ...]
    username: str | None
    password: str | None
    token: str | None
    tls: bool

    def __repr__(self) -> str:
        return f"nats {self.where}"

    @property
    def where(self) -> str:
        """How messages name them, without user and password."""
        return ",".join(f"{host}:{port}" for host, port in self.servers)


class Servers(_connections.Servers):
    """Where to connect, best first: the servers of the URL, and those that they tell of."""

    def learn(self, urls: Iterable[str]) -> None:
        """Take in which servers the cluster has now, ``host:port`` each."""
        addresses = [text.rpartition(":") for text in islice(urls, _TOLD)]
        servers = dict.fromkeys((host.strip("[]"), int(port)) for host, _, port in addresses if host and _is_port(port))
        with self._lock:
            kept = [each for each in self._known if each in self._given or each in servers]
            self._known = list(dict.fromkeys((*kept, *servers)))

    def name(self, server: Server) -> str:
        """Return the name in a server's certificate; those that others tell of are addresses without one."""
        return server[0] if server in self._given else self._given[0][0]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 1 << 16


@without_values
def parse_url(url: str) -> Address:
    """Read a URL.

    Raises:
        InvalidArgumentError: it is none; the URL is not quoted, since it may hold a password.
    """
    try:
        scheme, _, rest = url.partition("://")
        rest, _, query = rest.partition("?")
        if query or scheme not in ("nats", "tls"):
            raise ValueError
        servers: list[Server] = []
        username = password = token = None
        for part in rest.rstrip("/").split(","):
            parts = urlsplit(f"nats://{part.rpartition('://')[2]}")
            if not parts.hostname or parts.path:
                raise ValueError
            servers.append((parts.hostname, parts.port or _PORT))
            if parts.password is not None:
                username, password = unquote(parts.username or ""), unquote(parts.password)
            elif parts.username:
                token = unquote(parts.username)
        return Address(tuple(servers), username, password, token, scheme == "tls")
    except ValueError:
        raise InvalidArgumentError(
            "the url of a nats component: give one such as nats://user:password@host:4222; its options are settings"
        ) from None
