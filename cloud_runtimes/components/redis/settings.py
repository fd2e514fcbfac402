"""Settings of the component, and what its URL says: where servers are and how they are spoken to, as redis-py has it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ..._core.tls import client_context
from ...config import duration, setting, without_values
from ...errors import InvalidArgumentError
from .._net.connections import Tls

SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

TLS: Final = Tls("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TRUE: Final = ("1", "true", "yes", "on")
_CHECKS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_LOGIN: Final = ("db", "password", "username")
_SENTINEL: Final = ("sentinel_password", "sentinel_username")
_KINDS: Final = ("sentinel", "cluster")
_PORT: Final = re.compile(r":\d+$")
_TLS: Final = (
    "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile", "ssl_password",
)  # fmt: skip


class Address(NamedTuple):
    """Address of a server, with login and TLS options.

    Attributes:
        host, port: of TCP; the path of a socket file and 0 otherwise.
        username, password: ``None``: none is sent.
        database: the one to select.
        tls: options of a TLS connection, ``ssl_ca_certs`` and so on; ``None``: without TLS.
    """

    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    tls: tuple[tuple[str, str], ...] | None

    def __repr__(self) -> str:
        return f"redis {self.where}"

    @property
    def where(self) -> str:
        """How messages name it, without user and password."""
        return f"{self.host}:{self.port}" if self.port else self.host

    def options(self) -> dict[str, Any]:
        """Return login and TLS as clients of redis-py take them."""
        arguments: dict[str, Any] = {"username": self.username, "password": self.password}
        if self.tls is not None:
            arguments |= {"ssl": True, **dict(self.tls)}
            if "ssl_check_hostname" in arguments:
                arguments["ssl_check_hostname"] = arguments["ssl_check_hostname"].lower() in _TRUE
        return arguments

    @without_values
    def context(self) -> ssl.SSLContext | None:
        """Return what a TLS connection is made with.

        Raises:
            InvalidArgumentError: a file of the URL cannot be used.
        """
        if self.tls is None:
            return None
        options = dict(self.tls)
        with TLS.reading(f"redis {self.where}"):
            context = client_context(options.get("ssl_ca_certs"), options.get("ssl_ca_path"))
            wanted = options.get("ssl_cert_reqs", "required")
            context.check_hostname = wanted == "required" and options.get("ssl_check_hostname", "true").lower() in _TRUE
            context.verify_mode = _CHECKS[wanted]
            if certificate := options.get("ssl_certfile"):
                # a password that is wanted and not given is not asked for at the terminal
                context.load_cert_chain(
                    certificate, options.get("ssl_keyfile"), lambda: options.get("ssl_password", "")
                )
        return context


class Target(NamedTuple):
    """Target that a URL names.

    Attributes:
        kind: ``"server"``, ``"sentinel"`` or ``"cluster"``.
        seeds: the server, the Sentinels, or some nodes of the cluster.
        server: login, database and TLS, the same for all servers that have data; host and port of the first
            seed.
        master: its name on the Sentinels.
    """

    kind: str
    seeds: tuple[Address, ...]
    server: Address
    master: str

    @property
    def where(self) -> str:
        """How messages name it, without user and password."""
        seeds = ",".join(seed.where for seed in self.seeds)
        return f"{self.master} of {seeds}" if self.master else seeds


@without_values
def parse_target(url: str) -> Target:
    """Read a URL, also of Sentinels (``redis+sentinel://user:password@host:26379,host:26379/master/0``) or a cluster (``redis+cluster://user:password@host:6379,host:6379``).

    Raises:
        InvalidArgumentError: it is none; the URL is not quoted, since it may hold a password.
    """
    scheme, _, kind = url.partition(":")[0].partition("+")
    if kind not in _KINDS:
        server = parse_url(url)
        return Target("server", (server,), server, "")
    own: dict[str, str] = {}
    master = ""
    try:
        _, netloc, path, query, _ = urlsplit(url)
        if kind == "sentinel":
            master, _, path = path.strip("/").partition("/")
            options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
            own = {name: value for name, value in options if name in _SENTINEL}
            query = urlencode([option for option in options if option[0] not in _SENTINEL])
            if not master:
                raise ValueError
    except ValueError:
        raise _is_none() from None
    user, at, hosts = netloc.rpartition("@")
    addresses = [parse_url(urlunsplit((scheme, user + at + host, path, query, ""))) for host in hosts.split(",")]
    if kind == "cluster":
        return Target(kind, tuple(addresses), addresses[0], "")
    username, password = own.get("sentinel_username"), own.get("sentinel_password")
    ports = [each.port if _PORT.search(host) else 26379 for each, host in zip(addresses, hosts.split(","), strict=True)]
    seeds = [
        each._replace(port=port, database=0, username=username, password=password)
        for each, port in zip(addresses, ports, strict=True)
    ]
    return Target(kind, tuple(seeds), addresses[0], unquote(master))


@without_values
def parse_url(url: str) -> Address:
    """Read the URL of one server.

    Raises:
        InvalidArgumentError: it is none; the URL is not quoted, since it may hold a password.
    """
    try:
        url.encode()  # refuses what could not be sent
        parts = urlsplit(url)
        given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        query = {name: values[-1] for name, values in given.items()}
        username = unquote(parts.username) if parts.username else query.get("username")
        password = unquote(parts.password) if parts.password else query.get("password")
        tls = None
        known: tuple[str, ...] = _LOGIN
        if parts.scheme == "rediss":
            tls = tuple(sorted((name, value) for name, value in query.items() if name in _TLS))
            known += _TLS
        if not set(query) <= set(known):
            raise InvalidArgumentError(
                f"the url of a redis component has an unknown parameter; known: {', '.join(known)}"
            )
        if query.get("ssl_cert_reqs", "required") not in _CHECKS:
            raise InvalidArgumentError(
                f"ssl_cert_reqs in the url of a redis component: give one of {', '.join(_CHECKS)}"
            )
        is_file = parts.scheme == "unix"
        database = int((not is_file and parts.path.strip("/")) or query.get("db", "0"))
        if database < 0 or (is_file and not parts.path):
            raise ValueError
        if is_file:
            return Address(unquote(parts.path), 0, username, password, database, None)
        return Address(parts.hostname or "localhost", parts.port or 6379, username, password, database, tls)
    except ValueError as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise _is_none() from None


def _is_none() -> InvalidArgumentError:
    return InvalidArgumentError(
        "the url of a redis component: give one such as redis://user:password@host:6379/0, rediss://…, "
        "unix:///path?db=0, redis+sentinel://host:26379,host:26379/master/0 or redis+cluster://host:6379,host:6379"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Settings of the component.

    Attributes:
        url: of the server, as redis-py has it: ``redis://user:password@host:6379/0``, ``rediss://…`` for TLS with ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_cert_reqs`` and ``ssl_check_hostname`` as parameters, or ``unix:///path?db=0``. Of Sentinels: ``redis+sentinel://user:password@host:26379,host:26379/master/0``, where ``sentinel_username`` and ``sentinel_password`` are parameters. Of a cluster: ``redis+cluster://user:password@host:6379,host:6379``; a cluster is also recognized by ``redis://…`` of one of its nodes. Both have a form with ``rediss+``.
        prefix: of all keys; applications with the same one share their data.
        max_connections: of one process for calls of the sync API. A waiter for a free one waits to its deadline.
        wait_replicas: how many replicas must have a write before it counts (``WAIT``). With fewer within ``wait_timeout`` it fails, and ``maybe_applied`` is true.
        wait_timeout: seconds for that.
        layout: of published events: ``"event"``: one CloudEvent a message, which everybody can read; ``"frame"``: many events a message, for throughput among our own clients. Consumers read both. ``"dapr"``: state and events are where Dapr's own components have them, for applications of both.
        key_prefix: with ``layout = "dapr"``, what stands before ``||`` in the keys of state: ``"appid"``, ``"name"`` (the store's), ``"none"``, or any other text.
        max_value_bytes: largest value of state or configuration, or event payload, encoded.
        retention: seconds that an event stays at least, settled or not.
        group_expiry: seconds after which a consumer group that nobody asked for holds nothing back.
        history: seconds that the record of a job's run stays.
        history_runs: how many records of one job stay at most.
    """

    url: str = setting(None, help="of the server")
    prefix: str = setting("cr", help="of all keys")
    max_connections: int = setting(32, help="of one process")
    wait_replicas: int = setting(0, help="how many replicas must have a write")
    wait_timeout: float = setting(1.0, parse=duration, help="how long a write waits for replicas")
    layout: Literal["event", "frame", "dapr"] = setting("event", help="of published events, and of state")
    key_prefix: str = setting("appid", help="of keys of state in Dapr's layout")
    max_value_bytes: int = setting(16 * 1024 * 1024, help="largest value or event")
    retention: float = setting(86400.0, parse=duration, help="how long events stay at least")
    group_expiry: float = setting(7 * 86400.0, parse=duration, help="when an unseen group holds nothing")
    history: float = setting(7 * 86400.0, parse=duration, help="how long records of runs stay")
    history_runs: int = setting(1000, help="records of runs of one job")

    def __post_init__(self) -> None:
        if not self.url or self.url.partition("://")[0] not in SCHEMES:
            raise ValueError(
                'give url = "redis://user:password@host:6379/0", or one with rediss://, unix://, redis+sentinel:// or redis+cluster://'
            )
        if not self.prefix.isprintable() or not 1 <= len(self.prefix) <= 64 or set("{}") & set(self.prefix):
            raise ValueError("prefix must be 1 to 64 printable characters without braces")
        if not 1 <= self.max_connections <= 1000:
            raise ValueError("max_connections must be 1 to 1,000")
        if not 1 <= self.max_value_bytes <= 256 * 1024 * 1024:
            raise ValueError("max_value_bytes must be 1 to 268,435,456")
        if "||" in self.key_prefix or not self.key_prefix or (self.key_prefix != "appid" and self.layout != "dapr"):
            raise ValueError('key_prefix is for layout = "dapr": "appid", "name", "none", or text without ||')
        if not 0 <= self.wait_replicas <= 100:
            raise ValueError("wait_replicas must be 0 to 100")
        if self.wait_timeout < 0.001:
            raise ValueError("wait_timeout must be at least 0.001 s")
        if self.history_runs < 1:
            raise ValueError("history_runs must be at least 1")
