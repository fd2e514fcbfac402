"""A connection to one of the servers: logging in, sending, and receiving into the callbacks of its session."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ..._core.os_sockets import POLLOUT
from ..._version import __version__
from ...errors import UnsupportedError
from .._net.connections import ConnectionLost, Server, ServerConnection
from .address import TLS, Address, Servers
from .failures import ServerError
from .protocol import Session

if TYPE_CHECKING:
    from .settings import NatsSettings

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
            from .credentials import login

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
