"""A connection to one of the servers: logging in, sending, and receiving into its session."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Final

from ..._core.os_sockets import POLLIN, POLLOUT, poll
from ..._core.threads import Mutex
from ...errors import CloudRuntimesError, UnsupportedError
from ...spi.operation import Operation
from .address import Address, Server, Servers, tls_context
from .failures import Lost
from .session import Session
from .wire import GREETING, HEARTBEAT

__all__ = ["LEAST", "Connection"]

LEAST: Final = (3, 10)
"""The oldest server: its quorum queues hand on what has expired, and lose nothing of it."""
_RECEIVE: Final = 131072
_WANTS: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A connection of one thread; others may close it.

    Attributes:
        session: what it has been told.
        heard: `time.monotonic` at which something came.
        left: what could not be sent yet.
    """

    def __init__(self, address: Address, servers: Servers, name: str, heartbeat: float = inf) -> None:
        self.address = address
        self._servers = servers
        self._server: Server | None = None
        self._name = name
        self._heartbeat = int(min(address.heartbeat, max(1, heartbeat)))
        self._begin()
        self._socket: socket.socket | None = None
        self._io = Mutex()  # OpenSSL reads and writes in one thread at a time

    def _begin(self) -> None:
        self.session = Session(self.address.login, self.address.vhost, self._heartbeat, self._name)
        self.heard = self._said = 0.0
        self.left: bytes | memoryview = b""

    # -- opening ----------------------------------------------------------

    def open(self, op: Operation) -> None:
        """Connect to the first server that can be reached, and log in.

        Raises:
            Lost, Refused: it cannot.
            DeadlineExceededError: no server answered in time.
            UnsupportedError: the server is too old.
        """
        servers = list(self._servers)
        for number, server in enumerate(servers, 1):
            left = op.remaining()
            # one that hangs leaves time for the others
            share = inf if left is None else left if number == len(servers) else left / 2
            share = min(share, self.address.timeout)
            try:
                self._open(server, monotonic() + share)
                return
            except BaseException as error:
                self.close()
                self._begin()
                if isinstance(error, (Lost, TimeoutError)):
                    self._servers.avoid(server)
                    if number < len(servers):
                        continue
                if isinstance(error, TimeoutError):
                    if share == self.address.timeout:
                        raise Lost(f"the server did not answer within connection_timeout, {share:g} s") from None
                    raise op.timed_out(f"rabbitmq {self.address.where}") from None
                raise

    def _open(self, server: Server, deadline: float) -> None:
        session = self.session
        with _told():
            made = socket.create_connection(server, _left(deadline))
            self._socket = made
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self.address.tls:
                host = self.address.host or server[0]
                self._socket = tls_context(self.address).wrap_socket(made, server_hostname=host)
            self._socket.sendall(GREETING)
            while not session.ready:
                self._socket.settimeout(_left(deadline))
                data = self._socket.recv(_RECEIVE)
                if not data:
                    raise Lost("the server closed the connection: the port may want TLS, amqps://")
                session.feed(data)
                self._check()
                self._answer()
            self._socket.setblocking(False)
            self.heard = self._said = monotonic()
            self._server = server

    def _check(self) -> None:
        """Refuse a server that cannot do it."""
        server = self.session.server
        text = str(server.get("version", "0"))
        numbers = [part for part in text.split(".")[:2] if part.isdigit()]
        if server and (server.get("product") != "RabbitMQ" or tuple(map(int, numbers)) < LEAST):
            raise UnsupportedError(
                f"rabbitmq {self.address.where}: the server is {server.get('product', 'unknown')} {text}: "
                "RabbitMQ 3.10 or later is needed"
            )

    def _answer(self) -> None:
        assert self._socket is not None
        out, self.session.out = self.session.out, b""
        if out:
            self._socket.sendall(out)

    # -- sending and receiving --------------------------------------------

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return -1 if self._socket is None else self._socket.fileno()

    def send(self, data: bytes = b"") -> bool:
        """Send what the system takes at once; tells whether all was.

        Raises:
            Lost: the connection ended.
        """
        session = self.session
        if session.out or self.left or data:
            # frames must not be cut by others
            self.left = memoryview(b"".join((self.left, session.out, data)))
            session.out = b""
            with _told(), self._io:
                if self._socket is None:
                    raise Lost("the connection was closed")
                try:
                    self.left = self.left[self._socket.send(self.left) :]
                    self._said = monotonic()
                except _WANTS:
                    pass
        return not self.left

    def send_all(self, data: bytes, deadline: float) -> None:
        """Send all.

        Raises:
            Lost: the connection ended.
            TimeoutError: the server does not read.
        """
        whole = self.send(data)
        while not whole:
            if not self.wait(deadline, POLLOUT):
                raise TimeoutError
            whole = self.send()

    def wait(self, deadline: float, events: int = POLLIN) -> bool:
        """Wait until there is something to read, to a time of `time.monotonic`."""
        if events & POLLIN and self.has_decrypted():
            return True
        descriptor = self.fileno()
        if descriptor < 0:
            raise Lost("the connection was closed")
        poller = poll()
        poller.register(descriptor, events)
        return bool(poller.poll(max(0, (deadline - monotonic()) * 1000)))

    def has_decrypted(self) -> bool:
        """Tell whether TLS has something that the system does not know of."""
        with self._io:
            return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def receive(self) -> None:
        """Take in what has come, without waiting.

        Raises:
            Lost: the connection ended.
            Refused: the server closed it.
        """
        with _told():
            try:
                with self._io:
                    if self._socket is None:
                        raise Lost("the connection was closed")
                    data = self._socket.recv(_RECEIVE)
            except _WANTS:
                return
            if not data:
                raise Lost("the server closed the connection")
            self.heard = monotonic()
            self.session.feed(data)

    def beat(self) -> float:
        """Send a heartbeat where one is due, and return when the next is.

        Raises:
            Lost: the server's have ended.
        """
        beat = self.session.heartbeat
        if not beat:
            return inf
        now = monotonic()
        if now - self.heard > 2 * beat:
            raise Lost("the server's heartbeats have ended")
        if now - self._said >= beat / 2:
            self._said = now
            self.send(HEARTBEAT)
        return min(self._said + beat / 2, self.heard + 2 * beat + 0.01)

    def avoid(self) -> None:
        """Have later connections try other servers first."""
        if self._server is not None:
            self._servers.avoid(self._server)

    def close(self) -> None:
        """Close it without waiting."""
        made, self._socket = self._socket, None
        if made is not None:
            with suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            with suppress(OSError):
                made.close()


@contextmanager
def _told() -> Iterator[None]:
    """Say of an error of the network what ended."""
    try:
        yield
    except (TimeoutError, CloudRuntimesError):
        raise
    except (OSError, ValueError) as error:
        raise Lost(_reason(error)) from error


def _left(deadline: float) -> float:
    return max(deadline - monotonic(), 0.001)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}: check the host in the url, and cafile"
    if isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        return f"the server does not accept this client's certificate ({error.reason}): check certfile"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}): check that the port is the server's listeners.ssl"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
