"""Where the servers are and who the client is, by the URL, and a connection to one of them: logging in, sending, and receiving into the callbacks of its session."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ..._core.extras import importing
from ..._core.os_sockets import POLLOUT
from ..._version import __version__
from ...config import without_values
from ...errors import InvalidArgumentError, UnsupportedError
from .._net import connections as _connections
from .._net.connections import ConnectionLost, Server, ServerConnection, Tls
from . import NatsSettings
from .failures import ServerError
from .protocol import Session

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


LEAST: Final = (2, 12)
"""The oldest server: it has atomic batches."""


class Connection(ServerConnection):
    """A connection that sends a greeting once it is open.

    Attributes:
        session: what it has been told.
    """

    tls = TLS
    protocol = "NATS"
    _servers: Servers

    def __init__(self, address: Address, settings: NatsSettings, servers: Servers, greeting: bytes = b"") -> None:
        super().__init__(servers, f"nats {address.where}")
        self.address = address
        self.session = Session()
        self._info: dict[str, Any] | None = None
        self._settings = settings
        self._greeting = greeting

    # -- opening ----------------------------------------------------------

    def _begin(self) -> None:
        before, self.session = self.session, Session()
        self.session.callbacks, self.session.bulk = before.callbacks, before.bulk

    def _log_in(self, server: Server, deadline: float | None) -> None:
        """See the base; refuses servers that are too old or have no JetStream."""
        session, settings, host = self.session, self._settings, self._servers.name(server)
        self._connect(server, deadline)
        if settings.tls_first:
            self._secure(host)
        self._listen(deadline)
        if not session.info:
            raise self.foreign()
        if not settings.tls_first and (self._tls or session.info.get("tls_required")):
            if not (session.info.get("tls_required") or session.info.get("tls_available")):
                raise ConnectionLost("the server has no TLS: give a url with nats://, and no settings of TLS")
            self._secure(host)
        self._check()
        self._send(b"CONNECT %b\r\n%bPING\r\n" % (self._login(), self._greeting), deadline)
        while not session.pongs:
            self._listen(deadline)
            if session.error is not None:
                raise ServerError(0, session.error)

    @property
    def _tls(self) -> bool:
        """Whether a server without TLS is refused."""
        settings = self._settings
        files = settings.tls_ca, settings.tls_certificate, settings.tls_key
        return self.address.tls or settings.tls_first or any(file is not None for file in files)

    def _secure(self, host: str) -> None:
        settings = self._settings
        files = settings.tls_ca, settings.tls_certificate, settings.tls_key
        self._wrap(self.tls.context(self._where, *files), host)

    def _check(self) -> None:
        """Refuse a server that cannot do it."""
        info, where = self.session.info, self._where
        text = str(info.get("version", "0"))
        numbers = [part for part in text.partition("-")[0].split(".")[:2] if part.isdigit()]
        if tuple(map(int, numbers)) < LEAST:
            raise UnsupportedError(f"{where}: the server has version {text}: NATS 2.12 or later is needed")
        if not info.get("jetstream") and self._settings.domain is None:
            raise UnsupportedError(f"{where}: JetStream is off: start the server with -js")

    def _login(self) -> bytes:
        address = self.address
        options: dict[str, Any] = {
            "verbose": False, "pedantic": False, "tls_required": self._tls, "name": "cloud-runtimes",
            "lang": "python", "version": __version__, "protocol": 1, "headers": True, "no_responders": True,
        }  # fmt: skip
        if address.token is not None:
            options["auth_token"] = address.token
        if address.username is not None:
            options["user"], options["pass"] = address.username, address.password
        if self._settings.credentials is not None or self._settings.nkey is not None:

            options.update(login(self._settings, self.session.info.get("nonce")))
        return json.dumps(options).encode()

    # -- sending and receiving --------------------------------------------

    @property
    def max_payload(self) -> int:
        """Bytes that headers and payload of a message have at most."""
        return int(self.session.info.get("max_payload", 1 << 20))

    def send(self, data: bytes, deadline: float | None) -> None:
        """Send all of it.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the server does not read; what was sent may be cut.
        """
        sent = self.send_now(data)
        while sent < len(data):
            if not self.wait(deadline, POLLOUT):
                raise TimeoutError
            sent += self.send_now(data[sent:])

    def _feed(self, data: bytes) -> None:
        self.session.feed(data)
        if self.session.info is not self._info:
            self._info = self.session.info
            self._servers.learn(self._info.get("connect_urls") or ())

    def _ended(self) -> str:
        return self.session.error or super()._ended()

    def answer(self) -> bytes:
        """Return what is to be sent for the server's own questions."""
        out, self.session.out = self.session.out, bytearray()
        return bytes(out)


_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_PARTS: Final = re.compile(r"-{3,}BEGIN [^-\n]+-{3,}\s+(\S+)\s+-{3,}END ")


@without_values
def login(settings: NatsSettings, nonce: str | None) -> dict[str, str]:
    """Return what ``CONNECT`` says of a client with an NKey or a JWT: it signs the server's nonce by Ed25519.

    The files are read anew each time, since others may renew them. A seed and a public key are base32 of a prefix, 32 bytes and their CRC-16 (github.com/nats-io/nkeys).

    Raises:
        InvalidArgumentError: a file cannot be read, or is none of this kind.
        UnsupportedError: cryptography is not installed.
    """
    if settings.credentials is not None:
        parts = _PARTS.findall(_read("credentials", settings.credentials))
        if len(parts) != 2:
            raise _wrong("credentials", settings.credentials, "a .creds file, with a JWT and the seed of its user")
        _, signature = _signed("credentials", settings.credentials, parts[1], nonce)
        return {"jwt": parts[0], **signature}
    if settings.nkey is not None:
        public, signature = _signed("nkey", settings.nkey, _read("nkey", settings.nkey).strip(), nonce)
        return {"nkey": public, **signature}
    return {}


def _read(setting: str, path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        why = "it is no text"
    raise InvalidArgumentError(f"nats: {setting}: the file {path} cannot be read: {why}")


def _wrong(setting: str, path: str, wanted: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"nats: {setting}: the file {path} is not {wanted}")


def _signed(setting: str, path: str, seed: str, nonce: str | None) -> tuple[str, dict[str, str]]:
    """Return the public key, and the signature of the nonce; a server without one wants none."""
    with importing("logging in to NATS by an NKey or a JWT", "nats"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        raw = b""
    sound = len(raw) == 36 and binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")
    if not sound or raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise _wrong(setting, path, "one with the seed of a user's key: it begins with SU")
    key = Ed25519PrivateKey.from_private_bytes(raw[2:-2])
    public = bytes([_USER]) + key.public_key().public_bytes_raw()
    public += binascii.crc_hqx(public, 0).to_bytes(2, "little")
    signature = (
        {} if nonce is None else {"sig": base64.urlsafe_b64encode(key.sign(nonce.encode())).decode().rstrip("=")}
    )
    return base64.b32encode(public).decode().rstrip("="), signature
