"""A connection to one of the servers: logging in, sending, and receiving into its session."""

from __future__ import annotations

import ssl
from math import inf
from time import monotonic
from typing import Final

from ..._core.os_sockets import POLLOUT
from ...errors import UnsupportedError
from .._net.connections import ConnectionLost, Server, ServerConnection, Servers
from .session import Session
from .settings import TLS, Address
from .wire import GREETING, HEARTBEAT

LEAST: Final = (3, 10)
"""The oldest server: its quorum queues hand on what has expired, and lose nothing of it."""


class Connection(ServerConnection):
    """A connection of one thread.

    Attributes:
        session: what it has been told.
        unsent: what could not be sent yet.
    """

    tls = TLS
    protocol = "AMQP 0-9-1"
    _receives = 131072

    def __init__(self, address: Address, servers: Servers, name: str, heartbeat: float = inf) -> None:
        super().__init__(servers, f"rabbitmq {address.where}")
        self.address = address
        self._name = name
        self._heartbeat = int(min(address.heartbeat, max(1, heartbeat)))
        self._begin()

    def _begin(self) -> None:
        self.session = Session(self.address.login, self.address.vhost, self._heartbeat, self._name)
        self._sent = 0.0
        self.unsent: bytes | memoryview = b""

    # -- opening ----------------------------------------------------------

    def _log_in(self, server: Server, deadline: float | None) -> None:
        """See the base; refuses servers that are too old."""
        patience = self.address.timeout
        own = monotonic() + patience
        try:
            self._shake_hands(server, own if deadline is None else min(own, deadline))
        except TimeoutError:
            if deadline is not None and deadline <= own:
                raise
            raise ConnectionLost(f"the server did not answer within connection_timeout, {patience:g} s") from None

    def _shake_hands(self, server: Server, deadline: float) -> None:
        address, session = self.address, self.session
        self._connect(server, deadline)
        if address.tls:
            self._wrap(self._context(), address.host or server[0])
        self._send(GREETING, deadline)
        while not session.ready:
            self._listen(deadline)
            self._check()
            out, session.out = session.out, b""
            self._send(out, deadline)
        self._sent = monotonic()

    def _context(self) -> ssl.SSLContext:
        address = self.address
        context = self.tls.context(self._where, address.cafile, address.certfile, address.keyfile)
        if not address.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def _check(self) -> None:
        """Refuse a server that cannot do it."""
        server = self.session.server
        text = str(server.get("version", "0"))
        numbers = [part for part in text.split(".")[:2] if part.isdigit()]
        if server and (server.get("product") != "RabbitMQ" or tuple(map(int, numbers)) < LEAST):
            raise UnsupportedError(
                f"{self._where}: the server is {server.get('product', 'unknown')} {text}: "
                "RabbitMQ 3.10 or later is needed"
            )

    # -- sending and receiving --------------------------------------------

    def send(self, data: bytes = b"") -> bool:
        """Send what the system takes at once; returns whether all was.

        Raises:
            ConnectionLost: the connection ended.
        """
        session = self.session
        if session.out or self.unsent or data:
            self.owe(len(session.out), bool(self.unsent))
            # frames must not be cut by others
            self.unsent = memoryview(b"".join((self.unsent, session.out, data)))
            session.out = b""
            if sent := self.send_now(self.unsent):
                self.unsent = self.unsent[sent:]
                self._sent = monotonic()
        return not self.unsent

    def send_all(self, data: bytes, deadline: float) -> None:
        """Send all.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the server does not read.
        """
        whole = self.send(data)
        while not whole:
            if not self.wait(deadline, POLLOUT):
                raise TimeoutError
            whole = self.send()

    def _feed(self, data: bytes) -> None:
        self.session.feed(data)

    def _ended(self) -> str:
        return super()._ended() + ("" if self.session.ready else ": the port may want TLS, amqps://")

    def beat(self) -> float:
        """Send a heartbeat where one is due, and return when the next is.

        Raises:
            ConnectionLost: the server's have ended.
        """
        beat = self.session.heartbeat
        if not beat:
            return inf
        now = monotonic()
        if now - self.heard > 2 * beat:
            raise ConnectionLost("the server's heartbeats have ended")
        if now - self._sent >= beat / 2:
            self._sent = now
            self.send(HEARTBEAT)
        return min(self._sent + beat / 2, self.heard + 2 * beat + 0.01)
