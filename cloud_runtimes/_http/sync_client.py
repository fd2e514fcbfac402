"""The sync HTTP client: kept-alive sockets, one pool for each address.

A request is one send, head and body together. A connection that its server has closed is found before it is used; one that breaks without an answer is replaced only when nothing was sent on it, or when the call changes nothing (RFC 9110, section 9.2.1).
"""

from __future__ import annotations

import os
import select
import socket
from time import monotonic
from typing import Any, Final

from ..errors import InternalError, InvalidArgumentError, PayloadError, ResourceExhaustedError, UnavailableError
from ..spi.operation import Operation, mark_interrupted
from ..spi.rpc import RpcCall, RpcReply
from .http1 import Endpoint, ProtocolError, ResponseParser, TooLargeError, hello, last_chunk, proved, request
from .limits import IDLE_CLIENT
from .proof import LIFETIME, REFUSED, TOKEN_HEADER

__all__ = ["SAFE", "NotReached", "Pool", "answered_badly", "broken", "mistrusted", "tls_context", "token_refused"]

SAFE: Final = frozenset(["GET", "HEAD", "OPTIONS"])
_RECEIVE: Final = 65536
_WAITING: Final = "an answer"
_context: Any = None


class NotReached(Exception):
    """Nothing of the call was sent to this endpoint.

    Attributes:
        mistrust: somebody answered and did not prove to be the service.
    """

    def __init__(self, why: str, *, mistrust: bool = False) -> None:
        super().__init__(why)
        self.mistrust = mistrust


def mistrusted(endpoint: Endpoint, service: str) -> NotReached:
    """Return the failure of a server that did not prove to be the service."""
    return NotReached(
        f"who listens at {endpoint.url} does not prove to be {service!r}; behind a proxy or a mapping of ports "
        f"its [capa] needs rpc_allowed_hosts = [{endpoint.authority!r}]",
        mistrust=True,
    )


def token_refused(reply: RpcReply) -> bool:
    """Tell whether a server refused a call for its token alone, before anything ran."""
    return reply.status == 401 and reply.headers.get(TOKEN_HEADER) == REFUSED


class _Broken(Exception):
    """A connection ended before an answer came; ``sent`` tells whether anything of the call had left."""

    def __init__(self, sent: bool, begun: bool, why: str) -> None:
        super().__init__(why)
        self.sent = sent
        self.begun = begun


def tls_context() -> Any:
    """Return the context of all TLS connections: certificates and names are checked."""
    global _context
    if _context is None:
        import ssl

        _context = ssl.create_default_context()
    return _context


def answered_badly(endpoint: Endpoint, error: Exception) -> Exception:
    """Return our error for a response that is none, or is too large."""
    if isinstance(error, TooLargeError):
        return ResourceExhaustedError(f"{endpoint.url} answered with {error}", maybe_applied=True)
    return InternalError(f"{endpoint.url} did not answer with a response of HTTP/1.1: {error}", maybe_applied=True)


def broken(endpoint: Endpoint, why: str, sent: bool) -> UnavailableError:
    """Return our error for a connection that broke."""
    return UnavailableError(f"the connection to {endpoint.url} broke before the answer came: {why}", maybe_applied=sent)


class _Refused(Exception):
    """A send failed in the middle: the server may have answered before it closed."""


class _StreamError(Exception):
    """The caller's own stream failed, with ``error``."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Connection:
    """One connection; its owner is whoever took it from the pool."""

    __slots__ = ("_poll", "_renew_at", "_token", "endpoint", "fresh", "idle_since", "sock")

    def __init__(self, endpoint: Endpoint, op: Operation, limit: float | None) -> None:
        self.endpoint = endpoint
        self.fresh = True
        self.idle_since = 0.0
        self._token: str | None = None
        self._renew_at = float("inf")
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=limit)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.tls:
                sock = tls_context().wrap_socket(sock, server_hostname=endpoint.host)
            self._poll = select.poll()
            self._poll.register(sock, select.POLLIN)
            self.sock = sock
            if endpoint.secret is not None:
                self._prove(op, limit)
        except BaseException:
            sock.close()
            raise

    def _prove(self, op: Operation, limit: float | None) -> None:
        """Have the server show that it is the service, before it gets anything."""
        endpoint = self.endpoint
        nonce = os.urandom(16).hex()
        parser = ResponseParser(head_only=False)
        try:
            end = None if limit is None else monotonic() + limit
            self.sock.sendall(hello(endpoint, nonce))
            while not parser.feed(data := self.sock.recv(_RECEIVE)):
                if not data:
                    raise NotReached(f"{endpoint.url} closed the connection")
                if end is not None:
                    left = end - monotonic()
                    if left <= 0:
                        raise TimeoutError
                    self.sock.settimeout(left)
            self._token = proved(endpoint, op.component, nonce, parser.reply(), self.sock.getpeername())
        except (ProtocolError, TooLargeError, PayloadError) as error:
            raise NotReached(f"{endpoint.url}: {error}", mistrust=True) from error
        if not parser.keep_alive or self._token is None:
            raise mistrusted(endpoint, op.component)
        self._renew_at = monotonic() + LIFETIME / 2

    def usable(self) -> bool:
        """Tell whether its token is fresh, and the server has neither closed it nor sent what nobody asked for."""
        now = monotonic()
        return now - self.idle_since < IDLE_CLIENT and now < self._renew_at and not self._poll.poll(0)

    def exchange(self, op: Operation, call: RpcCall, caller: str) -> ResponseParser:
        """Send a call and receive its response."""
        sock = self.sock
        sent = False
        parser = ResponseParser(head_only=call.http_method == "HEAD")
        try:
            left = op.remaining()
            if left == 0.0:
                raise op.timed_out("a connection", maybe_applied=False)
            sock.settimeout(left)
            data = request(self.endpoint, call, caller, left, self._token)
            sent = True  # before it is, since an interrupt may come between
            try:
                done = sock.send(data)
            except OSError:
                sent = False
                raise
            refused = False
            try:
                if done < len(data):
                    self._send(op, memoryview(data)[done:])
                if not isinstance(call.body, bytes):
                    self._stream(op, call.body)
            except _Refused:
                refused = True
            if left is not None:
                sock.settimeout(self._patience(op))
            while True:
                received = sock.recv(_RECEIVE)
                if not received:
                    if parser.eof():
                        return parser
                    raise _Broken(sent, parser.begun, "the server closed it")
                if parser.feed(received):
                    if refused:
                        parser.keep_alive = False
                    return parser
                if op.deadline is not None:
                    sock.settimeout(self._patience(op))
        except TimeoutError as error:
            raise op.timed_out(_WAITING, maybe_applied=sent) from error
        except OSError as error:
            raise _Broken(sent, parser.begun, error.strerror or type(error).__name__) from error
        except BaseException as error:
            if not isinstance(error, Exception):
                mark_interrupted(error, sent)
            raise
        finally:
            data = b""  # tokens are in it, and frames of errors hold it

    def _patience(self, op: Operation) -> float | None:
        left = op.remaining()
        if left == 0.0:
            raise TimeoutError
        return left

    def _send(self, op: Operation, data: Any) -> None:
        try:
            self.sock.settimeout(self._patience(op))
            self.sock.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise _Refused from error

    def _stream(self, op: Operation, body: Any) -> None:
        if hasattr(body, "__anext__"):
            raise InvalidArgumentError("an async iterator is sent by the _async methods")
        pieces = iter(body)
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                raise _StreamError(error) from error
            if piece is None:
                self._send(op, last_chunk)
                return
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise InvalidArgumentError(f"a stream must give bytes, not {type(piece).__name__}", maybe_applied=True)
            if len(piece):
                self._send(op, b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))


class Pool:
    """The idle connections of one client, by endpoint."""

    def __init__(self) -> None:
        self._idle: dict[Endpoint, list[_Connection]] = {}
        self._closed = False

    def call(self, op: Operation, endpoint: Endpoint, call: RpcCall, caller: str, limit: float | None) -> RpcReply:
        """Make a call; ``limit`` is what connecting may take.

        Raises:
            NotReached: nothing was sent.
        """
        while True:
            connection = self._take(endpoint) or self._connect(op, endpoint, limit)
            try:
                parser = connection.exchange(op, call, caller)
            except _Broken as error:
                connection.sock.close()
                again = not error.sent or (call.http_method in SAFE and not error.begun)
                if not connection.fresh and again and isinstance(call.body, bytes):
                    continue
                if not error.sent:
                    raise NotReached(f"{endpoint.url}: {error}") from error.__cause__
                raise broken(endpoint, str(error), error.sent) from error.__cause__
            except _StreamError as error:
                connection.sock.close()
                op.maybe_applied = True  # what a server makes of a part is its own
                raise error.error from None
            except (ProtocolError, TooLargeError) as error:
                connection.sock.close()
                raise answered_badly(endpoint, error) from error
            except BaseException:
                connection.sock.close()
                raise
            reply = parser.reply()
            if token_refused(reply) and not connection.fresh and isinstance(call.body, bytes):
                connection.sock.close()  # the server's clock was set, or its secret: another connection, another token
                continue
            if parser.keep_alive and not self._closed:
                connection.fresh = False
                connection.idle_since = monotonic()
                idle = self._idle.setdefault(endpoint, [])
                idle.append(connection)
                self._prune(idle)
                if self._closed:
                    self.close()
            else:
                connection.sock.close()
            return reply

    def _take(self, endpoint: Endpoint) -> _Connection | None:
        idle = self._idle.get(endpoint)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if connection.usable():
                return connection
            connection.sock.close()
        return None

    @staticmethod
    def _prune(idle: list[_Connection]) -> None:
        """Close what nobody has needed for long: the last used is taken first."""
        while len(idle) > 1 and idle[0].idle_since < monotonic() - IDLE_CLIENT:
            try:
                idle.pop(0).sock.close()
            except IndexError:
                return

    def _connect(self, op: Operation, endpoint: Endpoint, limit: float | None) -> _Connection:
        left = op.remaining()
        if left == 0.0:
            raise op.timed_out("a connection")
        try:
            return _Connection(endpoint, op, limit if left is None else left if limit is None else min(left, limit))
        except TimeoutError as error:
            if op.remaining() == 0.0:
                raise op.timed_out(f"a connection to {endpoint.url}") from error
            raise NotReached(f"{endpoint.url}: no connection in time") from error
        except OSError as error:
            raise NotReached(f"{endpoint.url}: {error.strerror or error}") from error
        except BaseException as error:
            if not isinstance(error, Exception):
                mark_interrupted(error, False)
            raise

    def forget(self) -> None:
        """In a forked child: close the copies of the parent's descriptors; that ends no connection."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.sock.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed by its owner."""
        self._closed = True
        self.forget()
