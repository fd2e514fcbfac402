"""Where the servers are and who the client is, from a URL."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ...config import without_values
from ...errors import InvalidArgumentError
from .._net.connections import Server, Tls

TLS: Final = Tls("cafile", "certfile", "keyfile")
SCHEMES: Final = {"amqp": 5672, "amqps": 5671}
_PARAMETERS: Final = {
    "heartbeat": "heartbeat", "connection_timeout": "timeout", "timeout": "timeout", "cafile": "cafile",
    "cacertfile": "cafile", "certfile": "certfile", "keyfile": "keyfile", "verify": "verify",
    "server_name_indication": "host",
}  # fmt: skip
"""Names in a URL, those of aio-pika and of RabbitMQ's own clients → ours."""


class Address(NamedTuple):
    """Servers of one cluster.

    Attributes:
        servers: host and port of each.
        login: user and password; ``None``: the certificate is the login.
        vhost: the virtual host.
        tls: whether the connection has TLS.
        heartbeat: seconds; 0: none.
        timeout: seconds for one server to be connected.
        cafile, certfile, keyfile: of TLS.
        verify: whether the server's certificate is checked.
        host: the name in it, where it is not that of the URL.
    """

    servers: tuple[Server, ...]
    login: tuple[str, str] | None
    vhost: str
    tls: bool
    heartbeat: int = 60
    timeout: float = 10.0
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    host: str | None = None

    def __repr__(self) -> str:
        return f"rabbitmq {self.where}"

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
        rest, _, query = rest.partition("?")
        authority, slash, vhost = rest.partition("/")
        who, _, hosts = authority.rpartition("@")
        servers: list[Server] = []
        for part in hosts.split(","):
            parts = urlsplit(f"amqp://{part}")
            if not parts.hostname or "/" in vhost:
                raise ValueError
            servers.append((parts.hostname, parts.port or SCHEMES[scheme]))
        user, _, password = who.partition(":")
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except (ValueError, KeyError):
        raise InvalidArgumentError(
            "the url of a rabbitmq component: give one such as amqp://user:password@host:5672/vhost, "
            "and write special characters as %XX"
        ) from None
    options = _options(given)
    if scheme == "amqp" and not options.keys().isdisjoint(TLS):
        raise InvalidArgumentError(
            "the url of a rabbitmq component: cafile, certfile and keyfile are for one with amqps://"
        )
    login = (unquote(user), unquote(password)) if who else ("guest", "guest")
    external = not who and "certfile" in options
    return Address(
        tuple(servers), None if external else login, unquote(vhost) if slash and vhost else "/", scheme == "amqps", **options
    )  # fmt: skip


def _options(given: list[tuple[str, str]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in given:
        if name not in _PARAMETERS:
            raise InvalidArgumentError(
                f"the url of a rabbitmq component has the parameter {name!r}, which is not known: "
                f"there are {', '.join(sorted(_PARAMETERS))}"
            )
        kind = _PARAMETERS[name]
        options[kind] = value
        try:
            if kind == "heartbeat":
                options[kind] = int(value)
            elif kind == "timeout":
                options[kind] = float(value)
            elif kind == "verify":
                options[kind] = {"verify_peer": True, "verify_none": False}[value]
            if kind in ("heartbeat", "timeout") and not (0 if kind == "heartbeat" else 0.001) <= options[kind] < 65536:
                raise ValueError
        except (ValueError, KeyError):
            what = "verify_peer or verify_none" if kind == "verify" else "a number of seconds"
            raise InvalidArgumentError(f"the url of a rabbitmq component: {name} must be {what}") from None
    return options
