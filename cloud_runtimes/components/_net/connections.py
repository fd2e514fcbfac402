"""Connections to servers whose protocol an engine speaks itself: which server, TLS, sending and receiving, and what ended one."""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sized
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from ..._core.os_sockets import POLLIN, poll
from ..._core.threads import Mutex
from ..._core.tls import client_context
from ...errors import CloudRuntimesError, InvalidArgumentError
from ...spi.operation import Operation

Server: TypeAlias = tuple[str, int]
WANTS: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
FRESH: Final = 0.001
"""Seconds after its last answer for which a connection is used again without a look whether it ended: that would cost a thread its turn."""
_CLOSED: Final = "the connection was closed"
_AT_ONCE: Final = 16
"""How often is read at once of what came while nobody asked: a server that keeps sending must not keep a caller."""
_OTHER_NAME: Final = (62, 64)
"""OpenSSL's numbers of a certificate that is for another host, or another address."""


class ConnectionLost(Exception):
    """The connection could not be made, or ended.

    Attributes:
        lasts: whether the next try would fail in the same way.
    """

    lasts = False


_UNREAD: Final = 1 << 20
"""Bytes of answers to a server's own questions that it has not read at most."""


class ServerError(Exception):
    """The server refused something. Each engine has a class of its own, and a table of what its codes mean.

    Attributes:
        code: of the protocol.
        text: what the server says.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Tls(NamedTuple):
    """Names of an engine's TLS settings."""

    authorities: str
    certificate: str
    key: str

    @contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Say of a file that cannot be read which settings name it."""
        try:
            yield
        except OSError as error:
            raise InvalidArgumentError(
                f"{where}: a certificate or key cannot be read: {error.strerror or error}: "
                f"check {self.authorities}, {self.certificate} and {self.key}"
            ) from None

    def context(self, where: str, authorities: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
        """Return what a connection is made with, from paths of files.

        Raises:
            InvalidArgumentError: a file cannot be read.
        """
        with self.reading(where):
            context = client_context(authorities)
            if certificate is not None:
                context.load_cert_chain(certificate, key)
        return context

    def lost(self, error: Exception) -> ConnectionLost:
        """Return what the end of a connection is called, and what to check."""
        failure = ConnectionLost(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _OTHER_NAME:
                what, remedy = "is for another name", "name the server as it does"
            else:
                what, remedy = "is not trusted", f"give the file of its issuer as {self.authorities}"
            failure = ConnectionLost(f"the server's certificate {what}: {remedy} ({error.verify_message})")
            failure.lasts = True
        elif isinstance(error, ssl.SSLError):
            for reason, text in self._reasons().items():
                if reason in (error.reason or ""):
                    failure = ConnectionLost(text)
                    failure.lasts = True
        return failure

    def _reasons(self) -> dict[str, str]:
        """Return what OpenSSL's reasons mean, the general ones first."""
        return {
            "CERTIFICATE": f"the server does not accept the certificate in {self.certificate}",
            "CERTIFICATE_REQUIRED": f"the server wants a certificate of its client in {self.certificate}",
            "HANDSHAKE_FAILURE": f"the server and this client agree on no TLS, or it wants a certificate of its client ({self.certificate}, {self.key})",
            "UNKNOWN_CA": f"the server does not trust the certificate in {self.certificate}",
            "WRONG_VERSION_NUMBER": "the server does not speak TLS at this port: give its port for TLS, or a url without TLS",
        }


class Servers:
    """Where to connect, best first."""

    def __init__(self, given: tuple[Server, ...]) -> None:
        self._lock = Mutex()
        self._given = given
        self._known = list(given)

    def __iter__(self) -> Iterator[Server]:
        return iter(tuple(self._known))

    def avoid(self, server: Server) -> None:
        """Try one last, since it failed."""
        with self._lock:
            if server in self._known:
                self._known.remove(server)
                self._known.append(server)


def dial(server: Server, timeout: float | None) -> socket.socket:
    """Return a socket that is connected."""
    sock = socket.create_connection(server, timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


class ServerConnection(ABC):
    """A connection to one of several servers. One thread may receive while another sends; each may close it.

    Attributes:
        heard: `time.monotonic` at which something came.
    """

    tls: ClassVar[Tls]
    protocol: ClassVar[str]
    """Name of the protocol that servers speak."""
    _receives = 65536

    def __init__(self, servers: Servers, where: str) -> None:
        """``where`` is what messages call the servers."""
        self.heard = 0.0
        self._servers = servers
        self._where = where
        self._server: Server | None = None
        self._socket: socket.socket | None = None
        self._owed = 0
        self._io = Mutex()  # OpenSSL reads and writes in one thread at a time

    # -- what is spoken ---------------------------------------------------

    @abstractmethod
    def _begin(self) -> None:
        """Begin anew, with what another server says."""

    @abstractmethod
    def _log_in(self, server: Server, deadline: float | None) -> None:
        """Connect and log in, to a time of `time.monotonic`."""

    @abstractmethod
    def _feed(self, data: bytes) -> None:
        """Take in what has come; any exception but `ConnectionLost` and `ServerError` says that it is not the protocol."""

    def _ended(self) -> str:
        """Return what is said of a server that closed the connection."""
        return "the server closed the connection"

    # -- opening ----------------------------------------------------------

    def open(self, op: Operation) -> None:
        """Connect to the first server that can be reached, and log in.

        Raises:
            ConnectionLost: it cannot.
            DeadlineExceededError: no server answered in time.
        """
        servers = list(self._servers)
        for number, server in enumerate(servers, 1):
            remaining = op.remaining()
            # one that hangs leaves time for the others
            share = remaining if remaining is None or number == len(servers) else remaining / 2
            try:
                self._open(server, None if share is None else monotonic() + share)
                return
            except BaseException as error:
                self.close()
                self._begin()
                if isinstance(error, (ConnectionLost, TimeoutError)):
                    self._servers.avoid(server)
                    if number < len(servers):
                        continue
                if isinstance(error, TimeoutError):
                    raise op.timed_out(self._where) from None
                raise

    def _open(self, server: Server, deadline: float | None) -> None:
        try:
            self._log_in(server, deadline)
            assert self._socket is not None
            self._socket.setblocking(False)
        except (TimeoutError, CloudRuntimesError):
            raise
        except (OSError, ValueError) as error:
            raise self.tls.lost(error) from error

    def _connect(self, server: Server, deadline: float | None) -> None:
        self._server = server
        self._socket = dial(server, _remaining(deadline))

    def _wrap(self, context: ssl.SSLContext, host: str) -> None:
        assert self._socket is not None
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def _send(self, data: bytes, deadline: float | None) -> None:
        """Send all of it while logging in."""
        assert self._socket is not None
        self._socket.settimeout(_remaining(deadline))
        self._socket.sendall(data)

    def _listen(self, deadline: float | None) -> None:
        """Wait for something, and take it in, while logging in."""
        assert self._socket is not None
        self._socket.settimeout(_remaining(deadline))
        self._took(self._socket.recv(self._receives))

    # -- sending and receiving --------------------------------------------

    def fileno(self) -> int:
        """The descriptor to wait for."""
        sock = self._socket
        return -1 if sock is None else sock.fileno()

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what the system takes at once, and return how many bytes that was.

        Raises:
            ConnectionLost: the connection ended.
        """
        try:
            with self._io:
                if (sock := self._socket) is None:
                    raise ConnectionLost(_CLOSED)
                return sock.send(data)
        except WANTS:
            return 0
        except OSError as error:
            raise self.tls.lost(error) from error

    def owe(self, size: int, unread: bool) -> None:
        """Count bytes that answer the server's own questions; ``unread``: it has not read all before them.

        Raises:
            ConnectionLost: it asks on, and reads nothing.
        """
        self._owed = self._owed + size if unread else size
        if self._owed > _UNREAD:
            raise ConnectionLost("the server asks and does not read the answers")

    def wait(self, deadline: float | None, events: int = POLLIN) -> bool:
        """Wait until there is something to read; ``False``: it is that time of `time.monotonic`, whether there is or not.

        So a loop that reads ends in time also where the server keeps sending.
        """
        return (deadline is None or monotonic() < deadline) and self._ready(deadline, events)

    def arrived(self) -> Iterator[None]:
        """Iterate while there is something to `receive`, without waiting; a server that keeps sending does not make it endless."""
        for _ in range(_AT_ONCE):
            if not self.is_readable():
                return
            yield

    def is_readable(self) -> bool:
        """Return whether there is something to read, or the end."""
        return self._ready(0.0, POLLIN)

    def _ready(self, deadline: float | None, events: int) -> bool:
        sock = self._socket
        if events & POLLIN and sock.__class__ is not socket.socket and self.has_decrypted():
            return True
        if sock is None or (descriptor := sock.fileno()) < 0:
            raise ConnectionLost(_CLOSED)
        poller = poll()
        poller.register(descriptor, events)
        return bool(poller.poll(None if deadline is None else max(0, (deadline - monotonic()) * 1000)))

    def has_decrypted(self) -> bool:
        """Return whether TLS has something that the system does not know of."""
        with self._io:
            return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def receive(self) -> None:
        """Take in what has come, without waiting.

        Raises:
            ConnectionLost: the connection ended.
        """
        try:
            with self._io:
                if (sock := self._socket) is None:
                    raise ConnectionLost(_CLOSED)
                data = sock.recv(self._receives)
            self._took(data)
        except WANTS:
            pass
        except (OSError, ValueError) as error:
            raise self.tls.lost(error) from error

    def _took(self, data: bytes) -> None:
        if not data:
            raise ConnectionLost(self._ended())
        self.heard = monotonic()
        try:
            self._feed(data)
        except (ConnectionLost, ServerError):
            raise
        except Exception as error:
            raise self.foreign() from error

    def foreign(self) -> ConnectionLost:
        """Return the end of a connection whose server sent what is not the protocol."""
        assert self._server is not None
        return ConnectionLost(f"the server at {address_of(self._server)} does not speak {self.protocol}")

    # -- the end ----------------------------------------------------------

    def avoid(self) -> None:
        """Have later connections try other servers first."""
        if self._server is not None:
            self._servers.avoid(self._server)

    def close(self) -> None:
        """Close it without waiting."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            with suppress(OSError):
                sock.close()


class SharedConnection(ABC):
    """Common base of connections that many callers share: those of all threads, or of one event loop.

    Attributes:
        closed: why it serves no further calls; ``None``: it does.
    """

    connection: Any
    """The `ServerConnection`."""
    _out: Sized
    """The bytes, or packets, that are to be sent."""
    _waiting: Collection[object]
    """Callers without an answer."""

    def __init__(self, connection: ServerConnection) -> None:
        self.closed: ConnectionLost | None = None
        self.connection = connection

    @abstractmethod
    def _outgoing(self) -> bytes:
        """Return what is to be sent, and forget it. No call begins or is abandoned meanwhile."""

    @abstractmethod
    def _send_soon(self) -> None:
        """Have it sent."""

    def _check(self, now: float) -> float:
        """See whether the server is there; return when to do so again."""
        return inf

    def retire(self, reason: ConnectionLost) -> None:
        """Serve no further calls; those under way go on."""
        self.closed = self.closed or reason
        self.connection.avoid()

    @abstractmethod
    def _end(self, reason: ConnectionLost) -> None:
        """End it; who waits gets `ConnectionLost`."""


def address_of(server: Server) -> str:
    """Return how messages, and HTTP, name a server."""
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _remaining(deadline: float | None) -> float | None:
    """Return the seconds to a deadline, or raise `TimeoutError`: a server that keeps sending does not move it."""
    remaining = None if deadline is None else deadline - monotonic()
    if remaining is not None and remaining <= 0:
        raise TimeoutError
    return remaining
