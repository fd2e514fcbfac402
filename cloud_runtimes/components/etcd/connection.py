"""Where the servers are and who the client is, by the URL, and connections to one of them: for one caller, for all threads, and for all calls of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ..._core.os_sockets import POLLOUT
from ..._core.threads import Mutex
from ...config import without_values
from ...errors import InvalidArgumentError
from .._net import loops, threads
from .._net.connections import (
    ConnectionLost,
    Server,
    ServerConnection,
    Servers,
    SharedConnection,
    Tls,
    address_of,
)
from . import EtcdSettings
from .failures import ServerError
from .http2 import Session, Stream
from .messages import AUTHENTICATE, WATCH, pack, read_token

TLS: Final = Tls("tls_ca", "tls_certificate", "tls_key")
_PORT: Final = 2379


class Address(NamedTuple):
    """Servers of one cluster.

    Attributes:
        servers: host and port of each.
        username, password: ``None``: none is sent.
        tls: whether they speak TLS.
    """

    servers: tuple[Server, ...]
    username: str | None
    password: str | None
    tls: bool

    def __repr__(self) -> str:
        return f"etcd {self.where}"

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
        user, _, hosts = rest.rpartition("@")
        username, colon, password = user.partition(":")
        if scheme not in ("etcd", "etcds") or (user and not (username and colon)):
            raise ValueError
        servers: list[Server] = []
        for part in hosts.rstrip("/").split(","):
            parts = urlsplit(f"etcd://{part}")
            if not parts.hostname or parts.path or parts.query or parts.fragment:
                raise ValueError
            servers.append((parts.hostname, parts.port or _PORT))
        if not user:
            return Address(tuple(servers), None, None, scheme == "etcds")
        return Address(tuple(servers), unquote(username), unquote(password), scheme == "etcds")
    except ValueError:
        raise InvalidArgumentError(
            "the url of an etcd component: give one such as etcd://user:password@host:2379; its options are settings"
        ) from None


_SILENT: Final = 5.0
"""Seconds without a byte, while one is waited for, after which the server is asked whether it is there; after twice as many it is not."""


class Login:
    """Identity of the client.

    Attributes:
        wanted: whether the servers know it by a token.
        token: that a server gave; ``""``: none yet, or none is needed.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self.wanted = address.username is not None
        self.token = ""

    def message(self) -> bytes:
        """Return the request for a token."""
        return pack((1, self._address.username or ""), (2, self._address.password or ""))


class Connection(ServerConnection):
    """A connection of one caller at a time, or the one beneath a shared one.

    Attributes:
        session: its calls.
        guard: who changes the session has it, where threads share it.
    """

    tls = TLS
    protocol = "gRPC over HTTP/2"

    def __init__(self, address: Address, settings: EtcdSettings, servers: Servers, login: Login) -> None:
        super().__init__(servers, f"etcd {address.where}")
        self.session = Session()
        self.guard = Mutex()
        self._address = address
        self._settings = settings
        self._login = login
        self._token = ""
        self._heads: dict[str, bytes] = {}
        self._authority = ""

    # -- opening ----------------------------------------------------------

    def _begin(self) -> None:
        self.session = Session()

    def _log_in(self, server: Server, deadline: float | None) -> None:
        settings = self._settings
        self._connect(server, deadline)
        if self._address.tls:
            context = self.tls.context(self._where, settings.tls_ca, settings.tls_certificate, settings.tls_key)
            context.set_alpn_protocols(["h2"])
            self._wrap(context, server[0])
        while not self.session.greeted:
            self._send(self._take_out(), deadline)
            self._listen(deadline)
        self._authority = address_of(server)
        self._heads.clear()
        self._token = self._login.token
        if self._login.wanted and not self._token and (failure := self._authenticate(deadline)) is not None:
            raise failure

    def _authenticate(self, deadline: float | None) -> Exception | None:
        """Get a token. What fails is returned: the frames that it comes from hold the password."""
        assert self._socket is not None
        self._socket.setblocking(False)
        try:
            stream = self.call(AUTHENTICATE, self._login.message(), deadline)
        except (ConnectionLost, TimeoutError) as error:
            return type(error)(*error.args)
        if not stream.status:
            try:
                self._token = self._login.token = read_token(stream.messages[0])
            except (LookupError, ValueError):
                return self.foreign()
            self._heads.clear()
            return None
        failure = ServerError(stream.status, stream.text)
        return None if failure.without_users else failure

    def _feed(self, data: bytes) -> None:
        with self.guard:
            self.session.feed(data)

    # -- calls ------------------------------------------------------------

    @property
    def own_host(self) -> str:
        """This machine's address on the way to the server."""
        if self._socket is None:
            raise ConnectionLost("the connection was closed")
        return str(self._socket.getsockname()[0])

    def head(self, method: str) -> bytes:
        """Return the headers of calls of a method."""
        if self._login.token not in ("", self._token):  # while another connection gets a token, the old one has to do
            self._token = self._login.token
            self._heads.clear()
        encoded = self._heads.get(method)
        if encoded is None:
            headers = {"token": self._token} if self._token else {}
            if method == WATCH:
                headers["hasleader"] = "true"  # else a server that lost the others says nothing
            encoded = self._heads[method] = Session.head(self._address.tls, self._authority, method, **headers)
        return encoded

    def call(self, method: str, message: bytes, deadline: float | None) -> Stream:
        """Make a call and return it, answered.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time is over; the connection serves nobody else.
        """
        remaining = None if deadline is None else deadline - monotonic()
        stream = self.session.begin(self.head(method), message, timeout=remaining)
        asked = 0.0
        self.flush(deadline)
        began = monotonic()
        while stream.status is None:
            now = monotonic()
            quiet = now - max(self.heard, began)
            if quiet >= 2 * _SILENT:
                raise ConnectionLost("the server does not answer")
            if quiet >= _SILENT and not asked > self.heard:
                asked = now
                self.session.ping()
                self.flush(deadline)
            until = now + _SILENT
            if not self.wait(until if deadline is None else min(deadline, until)):
                if deadline is not None and monotonic() >= deadline:
                    raise TimeoutError
                continue
            self.receive()
            if stream.status is None:  # else what is to be sent leaves with the next call
                self.flush(deadline)
        return stream

    def flush(self, deadline: float | None) -> None:
        """Send what is to be sent."""
        while data := self._take_out():
            sent = self.send_now(data)
            while sent < len(data):
                if not self.wait(deadline, POLLOUT):
                    raise TimeoutError
                sent += self.send_now(memoryview(data)[sent:])

    def _take_out(self) -> bytes:
        return self.session.take_out()


class _Shared(SharedConnection):
    """Common base of the shared connections."""

    connection: Connection

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._session = connection.session
        self._out = connection.session.out
        self._since = 0.0  # when it was first waited for an answer after the last byte
        self._pinged = False

    def _begin(self, method: str, message: bytes, deadline: float | None, done: Callable[[Stream], None]) -> Stream:
        """Begin a call, and have it sent."""
        now = monotonic()
        if not self._waiting:
            self._since = now
        remaining = None if deadline is None else deadline - now
        return self._session.begin(self.connection.head(method), message, done, timeout=remaining)

    def _outgoing(self) -> bytes:
        return self._session.take_out()

    def retire(self, reason: ConnectionLost) -> None:
        super().retire(reason)
        if not self._waiting:
            self._end(reason)

    def expired(self, began: float) -> None:
        """Serve no new calls where one came to its deadline and nothing was heard since it ``began``."""
        if self.connection.heard < began:
            self.retire(ConnectionLost("the server did not answer"))

    def _check(self, now: float) -> float:
        quiet = now - max(self.connection.heard, self._since)
        if not self._waiting:
            return inf
        if quiet >= 2 * _SILENT:
            self._end(ConnectionLost("the server does not answer"))
            return inf
        if quiet < _SILENT:
            self._pinged = False
        elif not self._pinged:
            self._pinged = True
            with self.connection.guard:
                self._session.ping()
            self._send_soon()
        return now + _SILENT


class ThreadConnection(_Shared, threads.ThreadConnection[Stream]):
    """A connection of all threads."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._register = connection.guard

    def call(self, method: str, message: bytes, deadline: float | None) -> Stream:
        """Make a call and return it, answered.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time is over.
        """
        return self._exchange(partial(self._begin, method, message, deadline), deadline)

    def _heard(self) -> int:
        self.connection.receive()
        if self._session.closing:
            self.retire(ConnectionLost("the server is going away"))
        return self._session.take_owed()

    def _abandon(self, call: Stream) -> None:
        self._session.cancel(call)


class LoopConnection(_Shared, loops.LoopConnection):
    """A connection of all calls of one event loop."""

    async def call(self, method: str, message: bytes, deadline: float | None) -> Stream:
        """Make a call and return it, answered.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time is over.
        """
        if self.closed is not None:
            raise ConnectionLost(str(self.closed))
        future: asyncio.Future[None] = self._loop.create_future()
        stream = self._begin(method, message, deadline, lambda stream: loops.resolve(future))
        self._waiting[future] = ends = inf if deadline is None else deadline
        look_at = min(ends, monotonic() + _SILENT)
        if look_at < self._look_at:
            self._watch(look_at)
        self._send_soon()
        try:
            await future
            return stream
        finally:
            self._waiting.pop(future, None)
            if stream.status is None and self._descriptor >= 0:
                self._session.cancel(stream)
                self._send_soon()
            if self._session.closing:
                self.retire(ConnectionLost("the server is going away"))

    def _read(self) -> None:
        self.connection.receive()
        if self._session.out:
            self._answer(self._session.take_owed())
        if self._session.closing:
            self.retire(ConnectionLost("the server is going away"))
