"""Settings of the component, and what its URL says: where the servers are and who the client is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ...config import duration, setting, without_values
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


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in value):
        raise ValueError("expected a list of names")
    return tuple(each.strip() for each in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitmqSettings:
    """Settings of the component.

    Attributes:
        url: of the server, as pika and aio-pika have it: ``amqp://user:password@host:5672/vhost``, with ``amqps://`` for TLS; several servers of a cluster: ``amqp://user:password@a,b:5673/vhost``. Parameters: ``heartbeat`` and ``connection_timeout`` in seconds, and for TLS ``cafile``, ``certfile``, ``keyfile``, ``verify=verify_none`` and ``server_name_indication``. With a ``certfile`` and no user, the certificate is the login (``EXTERNAL``).
        prefix: of the names of exchanges and queues; ``{name}`` is that of the pub/sub. With ``""`` a topic is the exchange of its name.
        groups: consumer groups that have a queue of every topic from its first event on. Another group has one from its first subscription on, and events before are not for it.
        kind: of topics: ``"queue"``: its groups have queues; ``"stream"``: it also has a stream, from which a group that begins later gets what was published before.
        retention: seconds that an event stays in the stream at least.
        unrouted: what becomes of an event of a topic without any group: ``"refuse"``: it is an error; ``"drop"``: it is taken, and gone.
        ensure: ``"create"``: exchanges and queues that are missing are made; ``"check"``: that is an error, and the application needs no right to make them.
        layout: of published events: ``"event"``: one CloudEvent a message, which everybody can read; ``"frame"``: many events a message, for throughput among our own clients. Consumers read both.
        content_mode: of an event in the layout ``"event"``: ``"structured"``: JSON with all attributes; ``"binary"``: the payload, with the attributes as headers ``cloudEvents:…``. Consumers read both.
        max_value_bytes: largest payload of an event, encoded. The server's ``max_message_size``, 128 MiB by default, is a limit too.
        management: URL of the management interface, such as ``http://host:15672``, with which topics and groups are listed. Its login is that of ``url``, and wants a user with the tag ``management``.
    """

    url: str = setting(None, help="of the server")
    prefix: str = setting("cr.{name}.", help="of exchanges and queues")
    groups: tuple = setting((), parse=_names, help="groups that have a queue from the first event on")  # type: ignore[type-arg]
    kind: Literal["queue", "stream"] = setting("queue", help="whether topics have a stream")
    retention: float = setting(7 * 86400.0, parse=duration, help="how long events stay in a stream at least")
    unrouted: Literal["refuse", "drop"] = setting("refuse", help="what becomes of an event for nobody")
    ensure: Literal["create", "check"] = setting("create", help="whether exchanges and queues are made")
    layout: Literal["event", "frame"] = setting("event", help="of published events")
    content_mode: Literal["structured", "binary"] = setting("structured", help="of an event a message")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest event")
    management: str | None = setting(None, help="URL of the management interface, which lists topics and groups")

    def __post_init__(self) -> None:
        if not self.url or self.url.partition("://")[0] not in SCHEMES:
            raise ValueError('give url = "amqp://user:password@host:5672/vhost", or one with amqps://')
        if self.url.startswith("amqps") and (self.management or "https://").startswith("http://"):
            raise ValueError("management has the password of url, which has TLS: give an address with https://")
        if not self.prefix.isprintable() or len(self.prefix.encode()) > 100:
            raise ValueError("prefix must be at most 100 bytes of printable characters")
        if self.retention < 1:
            raise ValueError("retention must be at least 1 s")
        if not 1 <= self.max_value_bytes <= 512 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 536,870,912")
