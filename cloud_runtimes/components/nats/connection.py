"""A connection to one of the servers: logging in, sending, and receiving into the callbacks of its session."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..._core.os_sockets import POLLIN, POLLOUT, poll
from ..._core.threads import Mutex
from ..._version import __version__
from ...errors import CloudRuntimesError, UnsupportedError
from ...spi.operation import Operation
from .address import Address, Server, Servers, tls_context
from .failures import Lost, Refused
from .protocol import Session

if TYPE_CHECKING:
    from .settings import NatsSettings

__all__ = ["LEAST", "Connection"]

LEAST: Final = (2, 12)
"""The oldest server: it has atomic batches."""
_RECEIVE: Final = 65536
_WANTS: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A connection; one thread may receive while another sends.

    Attributes:
        session: what it has been told.
        last: `time.monotonic` at which something came.
    """

    def __init__(self, address: Address, settings: NatsSettings, servers: Servers) -> None:
        self.address = address
        self._servers = servers
        self._server: Server | None = None
        self._info: dict[str, Any] | None = None
        self.session = Session()
        self.last = 0.0
        self._settings = settings
        self._socket: socket.socket | None = None
        self._io = Mutex()  # OpenSSL reads and writes in one thread at a time

    # -- opening ----------------------------------------------------------

    def open(self, op: Operation, greeting: bytes = b"") -> None:
        """Connect to the first server that can be reached, log in, and send a greeting.

        Raises:
            Lost, Refused: it cannot.
            DeadlineExceededError: no server answered in time.
            UnsupportedError: the server is too old, or has no JetStream.
        """
        servers = list(self._servers)
        for number, server in enumerate(servers, 1):
            left = op.remaining()
            # one that hangs leaves time for the others
            share = left if left is None or number == len(servers) else left / 2
            deadline = None if share is None else monotonic() + share
            try:
                self._open(server, deadline, greeting)
                return
            except BaseException as error:
                self.close()
                self.session = self._anew()
                if isinstance(error, (Lost, TimeoutError)):
                    self._servers.avoid(server)
                    if number < len(servers):
                        continue
                if isinstance(error, TimeoutError):
                    raise op.timed_out(f"nats {self.address.where}") from None
                raise

    def _anew(self) -> Session:
        session = Session()
        session.callbacks, session.bulk = self.session.callbacks, self.session.bulk
        return session

    def _open(self, server: Server, deadline: float | None, greeting: bytes) -> None:
        session, settings, host = self.session, self._settings, self._servers.name(server)
        try:
            made = socket.create_connection(server, _left(deadline))
            self._socket = made
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if settings.tls_first:
                self._wrap(host)
            self._handshake(deadline)
            if not session.info:
                raise Lost("what answers is no NATS server")
            if not settings.tls_first and (self.address.tls or session.info.get("tls_required")):
                if not (session.info.get("tls_required") or session.info.get("tls_available")):
                    raise Lost("the server has no TLS: give a url with nats://")
                self._wrap(host)
            self._check()
            assert self._socket is not None
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(b"CONNECT %b\r\n%bPING\r\n" % (self._login(), greeting))
            while not session.pongs:
                self._handshake(deadline)
                if session.error is not None:
                    raise Refused(0, session.error)
            self._socket.setblocking(False)
            self.last = monotonic()
            self._server = server
            self._learn()
        except (TimeoutError, CloudRuntimesError):
            raise
        except (OSError, ValueError) as error:
            raise Lost(_reason(error)) from error

    def _handshake(self, deadline: float | None) -> None:
        assert self._socket is not None
        self._socket.settimeout(_left(deadline))
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise Lost(self.session.error or "the server closed the connection")
        self.session.feed(data)

    def _wrap(self, host: str) -> None:
        assert self._socket is not None
        self._socket = tls_context(self._settings).wrap_socket(self._socket, server_hostname=host)

    def _check(self) -> None:
        """Refuse a server that cannot do it."""
        info, where = self.session.info, self.address.where
        text = str(info.get("version", "0"))
        numbers = [part for part in text.partition("-")[0].split(".")[:2] if part.isdigit()]
        if tuple(map(int, numbers)) < LEAST:
            raise UnsupportedError(f"nats {where}: the server has version {text}: NATS 2.12 or later is needed")
        if not info.get("jetstream") and self._settings.domain is None:
            raise UnsupportedError(f"nats {where}: JetStream is off: start the server with -js")

    def _login(self) -> bytes:
        address = self.address
        options: dict[str, Any] = {
            "verbose": False, "pedantic": False, "tls_required": address.tls, "name": "cloud-runtimes",
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

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return -1 if self._socket is None else self._socket.fileno()

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what the system takes at once, and return how many bytes that was.

        Raises:
            Lost: the connection ended.
        """
        try:
            with self._io:
                return 0 if self._socket is None else self._socket.send(data)
        except _WANTS:
            return 0
        except OSError as error:
            raise Lost(_reason(error)) from error

    def send(self, data: bytes, deadline: float | None) -> None:
        """Send all of it.

        Raises:
            Lost: the connection ended.
            TimeoutError: the server does not read; what was sent may be cut.
        """
        sent = self.send_now(data)
        while sent < len(data):
            if not self.wait(deadline, POLLOUT):
                raise TimeoutError
            sent += self.send_now(data[sent:])

    def wait(self, deadline: float | None, events: int = POLLIN) -> bool:
        """Wait until there is something to read, to a time of `time.monotonic`."""
        if events & POLLIN and self.has_decrypted():
            return True
        descriptor = self.fileno()
        if descriptor < 0:
            raise Lost("the connection was closed")
        waiting = poll()
        waiting.register(descriptor, events)
        return bool(waiting.poll(None if deadline is None else max(0, (deadline - monotonic()) * 1000)))

    def has_decrypted(self) -> bool:
        """Tell whether TLS has something that the system does not know of."""
        with self._io:
            return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def receive(self) -> None:
        """Take in what has come, without waiting. `answer` is what the server itself asks for.

        Raises:
            Lost: the connection ended.
        """
        session = self.session
        try:
            with self._io:
                if self._socket is None:
                    raise Lost("the connection was closed")
                data = self._socket.recv(_RECEIVE)
            if data:
                self.last = monotonic()
                session.feed(data)
                if session.info is not self._info:
                    self._learn()
        except _WANTS:
            return
        except (OSError, ValueError) as error:
            raise Lost(_reason(error)) from error
        if not data:
            raise Lost(session.error or "the server closed the connection")

    def _learn(self) -> None:
        self._info = self.session.info
        self._servers.learn(self._info.get("connect_urls") or ())

    def avoid(self) -> None:
        """Have later connections try other servers first."""
        if self._server is not None:
            self._servers.avoid(self._server)

    def answer(self) -> bytes:
        """Return what is to be sent for the server's own questions."""
        out, self.session.out = self.session.out, b""
        return out

    def close(self) -> None:
        """Close it without waiting."""
        made, self._socket = self._socket, None
        if made is not None:
            with suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            with suppress(OSError):
                made.close()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - monotonic(), 0.001)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}: check the host in the url, and tls_ca"
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        return f"the server does not accept this client's certificate ({error.reason}): check tls_certificate"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
