"""The sync HTTP client, and the flow of a call that it shares with the async one.

A request is one send, head and body together. A connection that its server has closed is found before it is used; one that breaks without an answer is replaced only when nothing was sent on it, or when the call changes nothing (RFC 9110, section 9.2.1).
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from .._core.os_sockets import POLLIN, Poll, poll
from ..errors import InternalError, PayloadError, ResourceExhaustedError, UnavailableError
from ..spi.operation import Operation, mark_interrupted
from ..spi.rpc import RpcCall, RpcReply
from .http1 import (
    Endpoint,
    ProtocolError,
    ResponseParser,
    StreamError,
    TooLargeError,
    chunk,
    hello,
    last_chunk,
    pieces,
    proved,
    request,
)
from .limits import IDLE_CLIENT
from .proof import LIFETIME, REFUSED, TOKEN_HEADER

_SAFE: Final = frozenset(["GET", "HEAD", "OPTIONS"])
_RECEIVE: Final = 65536
_context: Any = None


class NotReached(Exception):
    """Nothing of the call was sent to this endpoint; ``mistrust``: somebody answered and did not prove to be the service."""

    def __init__(self, why: str, *, mistrust: bool = False) -> None:
        super().__init__(why)
        self.mistrust = mistrust


class ConnectionLost(Exception):
    """The connection ended before an answer came; ``sent`` is whether anything had left."""

    def __init__(self, why: str, *, sent: bool = True) -> None:
        super().__init__(why)
        self.sent = sent


def tls_context() -> Any:
    """Return the context of all TLS connections: certificates and names are checked."""
    global _context
    if _context is None:
        from .._core.tls import client_context

        _context = client_context()
    return _context


class Connection(ABC):
    """A connection; its owner is whoever took it from the pool."""

    _poll: Poll

    def __init__(self) -> None:
        self.fresh = True
        self.idle_since = 0.0
        self.token: str | None = None
        self.renew_at = float("inf")

    def usable(self) -> bool:
        """Return whether its token is fresh, and the server has neither closed it nor sent what nobody asked for."""
        now = monotonic()
        return now - self.idle_since < IDLE_CLIENT and now < self.renew_at and not self._poll.poll(0)

    @abstractmethod
    def abort(self) -> None: ...

    @abstractmethod
    def peername(self) -> Any: ...

    @abstractmethod
    async def ask(self, data: bytes, body: Any, parser: ResponseParser, timeout: float | None) -> None:
        """Send bytes, and a stream behind them; return once the response is complete. After ``timeout`` seconds raise `TimeoutError`."""


C = TypeVar("C", bound=Connection)


class BasePool(ABC, Generic[C]):
    """Idle connections by endpoint, and what a call does with them, written once for both APIs.

    ``context`` of TLS: default `tls_context`.
    """

    def __init__(self, context: Any = None) -> None:
        self._context = context
        self._idle: dict[Endpoint, list[C]] = {}
        self.closed = False

    @abstractmethod
    async def _connect(self, endpoint: Endpoint, limit: float | None) -> C: ...

    async def call(
        self, op: Operation, endpoint: Endpoint, call: RpcCall, caller: str, limit: float | None
    ) -> RpcReply:
        """Make a call; ``limit`` is what connecting may take. Where nothing was sent, raise `NotReached`."""
        stream = None if isinstance(call.body, bytes) else call.body
        while True:
            connection = self._take(endpoint) or await self._connected(op, endpoint, limit)
            parser = ResponseParser(head_only=call.http_method == "HEAD")
            timeout = op.remaining()
            if timeout == 0.0:
                connection.abort()
                raise op.timed_out("a connection")
            try:
                await connection.ask(
                    request(endpoint, call, caller, timeout, connection.token), stream, parser, timeout
                )
            except ConnectionLost as error:
                connection.abort()
                again = not error.sent or (call.http_method in _SAFE and not parser.begun and stream is None)
                if again and not connection.fresh:
                    continue
                if not error.sent:
                    raise NotReached(f"{endpoint.url}: {error}") from error.__cause__
                raise UnavailableError(
                    f"the connection to {endpoint.url} broke before the answer came: {error}", maybe_applied=True
                ) from error.__cause__
            except TimeoutError as error:
                connection.abort()
                raise op.timed_out("an answer", maybe_applied=True) from error
            except StreamError as error:
                connection.abort()
                op.maybe_applied = True  # what a server makes of a part is its own
                raise error.error from None
            except TooLargeError as error:
                connection.abort()
                raise ResourceExhaustedError(f"{endpoint.url} answered with {error}", maybe_applied=True) from error
            except ProtocolError as error:
                connection.abort()
                raise InternalError(
                    f"{endpoint.url} did not answer with a response of HTTP/1.1: {error}", maybe_applied=True
                ) from error
            except BaseException as error:
                connection.abort()
                if not isinstance(error, Exception):
                    mark_interrupted(error, True)
                raise
            reply = parser.reply()
            refused = reply.status == 401 and reply.headers.get(TOKEN_HEADER) == REFUSED
            if refused and not connection.fresh and stream is None:
                connection.abort()  # the server's clock was set, or its secret: another connection, another token
                continue
            if parser.keep_alive and not self.closed:
                self._keep(endpoint, connection)
            else:
                connection.abort()
            return reply

    def _take(self, endpoint: Endpoint) -> C | None:
        idle = self._idle.get(endpoint)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.usable():
                return connection
            connection.abort()
        return None

    def _keep(self, endpoint: Endpoint, connection: C) -> None:
        """Put a connection back, and close what nobody has needed for long: the last used is taken first."""
        connection.fresh = False
        connection.idle_since = monotonic()
        idle = self._idle.setdefault(endpoint, [])
        idle.append(connection)
        while len(idle) > 1 and idle[0].idle_since < monotonic() - IDLE_CLIENT:
            try:
                idle.pop(0).abort()
            except IndexError:
                break
        if self.closed:
            self.close()

    async def _connected(self, op: Operation, endpoint: Endpoint, limit: float | None) -> C:
        remaining = op.remaining()
        if remaining == 0.0:
            raise op.timed_out("a connection")
        patience = limit if remaining is None else remaining if limit is None else min(remaining, limit)
        end = None if patience is None else monotonic() + patience
        connection: C | None = None
        try:
            connection = await self._connect(endpoint, patience)
            if endpoint.secret is not None:
                await self._prove(op, endpoint, connection, None if end is None else max(0.0, end - monotonic()))
            return connection
        except BaseException as error:
            if connection is not None:
                connection.abort()
            if isinstance(error, TimeoutError):
                if op.remaining() == 0.0:
                    raise op.timed_out(f"a connection to {endpoint.url}") from error
                raise NotReached(f"{endpoint.url}: no connection in time") from error
            if isinstance(error, OSError):
                raise NotReached(f"{endpoint.url}: {error.strerror or error}") from error
            if not isinstance(error, Exception):
                mark_interrupted(error, False)
            raise

    @staticmethod
    async def _prove(op: Operation, endpoint: Endpoint, connection: C, timeout: float | None) -> None:
        """Have the server show that it is the service, before it gets anything."""
        nonce = os.urandom(16).hex()
        parser = ResponseParser(head_only=False)
        try:
            await connection.ask(hello(endpoint, nonce), None, parser, timeout)
            connection.token = proved(endpoint, op.component, nonce, parser.reply(), connection.peername())
        except ConnectionLost as error:
            raise NotReached(f"{endpoint.url}: {error}") from error.__cause__
        except (ProtocolError, TooLargeError, PayloadError) as error:
            raise NotReached(f"{endpoint.url}: {error}", mistrust=True) from error
        if not parser.keep_alive or connection.token is None:
            raise NotReached(
                f"who listens at {endpoint.url} does not prove to be {op.component!r}; behind a proxy or a mapping of "
                f"ports its [capa] needs rpc_allowed_hosts = [{endpoint.authority!r}]",
                mistrust=True,
            )
        connection.renew_at = monotonic() + LIFETIME / 2

    def close(self) -> None:
        """Close what is idle; what is in use is closed by its owner."""
        self.closed = True
        self.forget()

    def forget(self) -> None:
        """Close what is idle. In a forked child these are copies of the parent's descriptors; that ends no connection."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.abort()


class _Connection(Connection):
    """A socket. Its `ask` never suspends."""

    def __init__(self, endpoint: Endpoint, limit: float | None, context: Any) -> None:
        super().__init__()
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=limit)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.tls:
                sock = (context or tls_context()).wrap_socket(sock, server_hostname=endpoint.host)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._poll = poll()
        self._poll.register(sock, POLLIN)

    def abort(self) -> None:
        self._sock.close()

    def peername(self) -> Any:
        return self._sock.getpeername()

    async def ask(self, data: bytes, body: Any, parser: ResponseParser, timeout: float | None) -> None:
        sock, end = self._sock, None if timeout is None else monotonic() + timeout
        sent = refused = False
        try:
            self._limit(end)
            done = sock.send(data)
            sent = True
            try:
                if done < len(data):
                    self._limit(end)
                    sock.sendall(memoryview(data)[done:])
                if body is not None:
                    for piece in pieces(body):
                        self._limit(end)
                        sock.sendall(chunk(piece))
                    sock.sendall(last_chunk)
            except TimeoutError:
                raise
            except OSError:
                refused = True  # the server may have answered before it closed
            while True:
                self._limit(end)
                received = sock.recv(_RECEIVE)
                if not received:
                    if parser.eof():
                        return
                    raise ConnectionLost("the server closed it")
                if parser.feed(received):
                    parser.keep_alive = parser.keep_alive and not refused
                    return
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLost(error.strerror or type(error).__name__, sent=sent) from error
        finally:
            data = b""  # tokens are in it, and frames of errors hold it

    def _limit(self, end: float | None) -> None:
        remaining = None if end is None else end - monotonic()
        if remaining is not None and remaining <= 0.0:
            raise TimeoutError
        self._sock.settimeout(remaining)


class Pool(BasePool[_Connection]):
    """The connections of one client. Its calls never suspend."""

    async def _connect(self, endpoint: Endpoint, limit: float | None) -> _Connection:
        return _Connection(endpoint, limit, self._context)
