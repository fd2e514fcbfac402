"""A connection, for threads and for event loops: it sends commands and reads as many replies."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final, TypeVar

from ..._core.os_loops import running_loop
from ..._core.os_sockets import MSG_DONTWAIT, POLLIN, POLLOUT, bounds_waits, poll, unix_socket
from ...errors import CloudRuntimesError, DeadlineExceededError
from ...spi.operation import Operation
from .._net.connections import FRESH, WANTS, ConnectionLost, dial
from .failures import checked
from .resp import NOTHING, ReplyError, pack, reader
from .settings import TLS, Address

T = TypeVar("T")

_RECEIVE: Final = 65536
_TURN: Final = 1.0
"""Seconds that a thread waits for its socket at once: it looks at the time of its call then."""
_AT_ONCE: Final = 8
"""How often a loop reads before others have their turn: a server that keeps sending must not hold it."""


def _greeting(address: Address, name: str) -> tuple[bytes, int]:
    """Return what a connection says first, and how many replies that has."""
    commands: list[tuple[str | int, ...]] = []
    if address.password is not None:
        commands.append(("AUTH", address.username or "default", address.password))
    if address.database:
        commands.append(("SELECT", address.database))
    commands.append(("CLIENT", "SETNAME", name))
    return b"".join(map(pack, commands)), len(commands)


class Connection:
    """A connection of one thread at a time.

    Attributes:
        socket, reader: of it.
        topic: of events that come as frames (`ReplyReader.take`); ``None``: of none.
        sent: whether commands were sent whose replies have not all come: it serves nobody else then.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.sent = False
        self.reader = reader()
        self.topic: str | None = None
        self._heard = 0.0
        self._blocks = False
        self.socket: socket.socket = None  # type: ignore[assignment]

    def open(self, op: Operation, name: str) -> None:
        """Connect and log in.

        Raises:
            Lost, ReplyError: it cannot.
            DeadlineExceededError: the server did not answer in time.
        """
        address, what = self.address, ""
        try:
            if address.port:
                self.socket = dial((address.host, address.port), self._remaining(op))
            else:
                self.socket = unix_socket()
                self.socket.settimeout(self._remaining(op))
                self.socket.connect(address.host)
            context = address.context()
            if context is not None:
                what = " to answer in TLS; a port without TLS does not"
                self.socket = context.wrap_socket(self.socket, server_hostname=address.host)
        except TimeoutError:
            raise op.timed_out(f"redis {address.where}{what}") from None
        except OSError as error:
            raise TLS.lost(error) from error
        self._blocks = bounds_waits(self.socket, _TURN)
        self.socket.setblocking(self._blocks)
        if (failure := self._greet(op, name)) is not None:
            raise failure

    def _greet(self, op: Operation, name: str) -> Exception | None:
        """Log in. What fails is returned: the frames that it comes from hold the password."""
        try:
            *replies, named = self.exchange(*_greeting(self.address, name), op)
            if isinstance(named, ReplyError) and not str(named).startswith("NOPERM"):  # it may stay without a name
                replies.append(named)
            checked(replies)
        except (ConnectionLost, ReplyError) as error:
            failure: Exception = error
            if isinstance(error, ConnectionLost) and self.address.tls is not None and not error.lasts:
                # of a refusal the server's alert may have been lost
                failure = ConnectionLost(f"{error}; perhaps the server wants another certificate in ssl_certfile")
        except DeadlineExceededError:
            failure = op.timed_out(f"redis {self.address.where}")
        else:
            return None
        failure.__cause__ = failure.__context__ = None
        return failure.with_traceback(None)

    def _remaining(self, op: Operation) -> float | None:
        remaining = op.remaining()
        return None if remaining is None else max(remaining, 0.001)

    def exchange(self, data: bytes, count: int, op: Operation) -> list[Any]:
        """Send commands and return their replies, to the deadline of a call."""
        self.send(data, op)
        return self.receive(count, op)

    def send(self, data: bytes, op: Operation) -> None:
        """Send commands whose replies `receive` reads."""
        self.sent = True
        remaining = memoryview(data)
        try:
            while remaining:
                try:
                    sent = self.socket.send(remaining, MSG_DONTWAIT) if self._blocks else self.socket.send(remaining)
                    remaining = remaining[sent:]
                except WANTS as error:
                    self._wait(op, POLLIN if isinstance(error, ssl.SSLWantReadError) else POLLOUT)
        except TimeoutError:
            raise op.timed_out(f"redis {self.address.where}", maybe_applied=op.method.writes) from None
        except OSError as error:
            raise TLS.lost(error) from error

    def receive(self, count: int, op: Operation) -> list[Any]:
        """Read replies of commands that were sent."""
        replies: list[Any] = []
        try:
            while not self._take(replies, count):
                if (data := self._next(op)) == b"":
                    checked(replies)  # it may have said why
                    raise ConnectionLost("the server closed the connection")
                if data:
                    self.reader.feed(data)
            self.sent, self._heard = False, monotonic()
            return replies
        except TimeoutError:
            raise op.timed_out(f"redis {self.address.where}", maybe_applied=op.method.writes) from None
        except OSError as error:
            raise TLS.lost(error) from error

    def _take(self, replies: list[Any], count: int) -> bool:
        try:
            return self.reader.take(replies, count, self.topic)
        except ConnectionError as error:
            raise foreign(self.address) from error

    def next(self) -> Any:
        """Return a reply that has come, `NOTHING` where none is whole; never waits. For what comes unasked."""
        replies: list[Any] = []
        if not self._take(replies, 1):
            try:
                data = self._recv()
            except OSError as error:
                raise TLS.lost(error) from error
            if data is None:
                return NOTHING
            if not data:
                raise ConnectionLost("the server closed the connection")
            self.reader.feed(data)
            self._take(replies, 1)
        return replies[0] if replies else NOTHING

    def _next(self, op: Operation) -> bytes | None:
        """Wait for something and return it, ``b""`` at the end; ``None``: nothing yet. A thread gives up its turn once if it can: beside many others that costs more than the call."""
        if self._blocks and ((remaining := op.remaining()) is None or remaining > _TURN):
            try:
                return self.socket.recv(_RECEIVE)
            except WANTS:
                return None
        if not self.has_decrypted():
            self._wait(op, POLLIN)
        return self._recv()

    def _recv(self) -> bytes | None:
        """Return what has come, ``b""`` at the end; ``None``: nothing yet."""
        try:
            return self.socket.recv(_RECEIVE, MSG_DONTWAIT) if self._blocks else self.socket.recv(_RECEIVE)
        except WANTS:
            return None

    def _wait(self, op: Operation, events: int) -> None:
        """Wait until there is something to read, or room to write, to the deadline of a call."""
        remaining = op.remaining()
        waiting = poll()
        waiting.register(self.socket, events)
        # a server that keeps sending does not move the deadline
        if remaining == 0.0 or not waiting.poll(None if remaining is None else remaining * 1000):
            raise TimeoutError

    def has_decrypted(self) -> bool:
        """Return whether TLS has something that the system does not know of."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def is_readable(self) -> bool:
        """Return whether there is something to read, or the end."""
        if self.has_decrypted():
            return True
        waiting = poll()
        waiting.register(self.socket, POLLIN)
        return bool(waiting.poll(0))

    def is_alive(self) -> bool:
        """Return whether an idle connection still has its server, as far as is known without asking it."""
        return not self.sent and (monotonic() < self._heard + FRESH or not self.is_readable())

    def is_free(self) -> bool:
        """Return whether another caller may have it: all answers have come, and nothing that would be taken for the next one."""
        try:
            return not self.sent and self.reader.gets() is NOTHING
        except ConnectionError:
            return False

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close it without waiting."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.close()


class LoopConnection:
    """A connection that all calls of one event loop share: what they send in one turn of the loop leaves together.

    Attributes:
        address: of the server.
        closed: why it serves nobody any more; ``None``: it does.
        quiet: whether it serves no new calls.
        received: how often something came.
    """

    def __init__(self, connection: Connection) -> None:
        self.address = connection.address
        self.closed: Exception | None = None
        self.quiet = False
        self.received = 0
        self._connection = connection
        self._socket = connection.socket
        self._socket.setblocking(False)
        self._reader = connection.reader
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int]] = deque()
        self._replies: list[Any] = []
        self._out: list[bytes] = []
        self._remaining = memoryview(b"")
        self._loop = running_loop()
        self._loop.add_reader(self._socket, self._readable)

    def exchange(self, data: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send commands; the future gets their replies. Those of one that is cancelled or too late are dropped."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.closed is not None:
            future.set_exception(ConnectionLost(str(self.closed)))
            return future
        self._waiting.append((future, count))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        return future

    def expired(self, received: int) -> None:
        """Serve no new calls where one came to its deadline and nothing was received since it was sent, by ``received``: the server may be gone without a word. Calls with more time keep it."""
        self.quiet = self.quiet or self.received == received

    def end_unused(self) -> None:
        """Close it once no call waits."""
        if all(future.done() for future, _ in self._waiting):
            self._end("the server did not answer")

    def _flush(self) -> None:
        out, self._out = self._out, []
        waits = bool(self._remaining)
        self._remaining = memoryview(b"".join([self._remaining, *out]))
        if not waits and self._send():
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        if not self._send():
            self._loop.remove_writer(self._socket)

    def _send(self) -> bool:
        """Send what is left, as far as it goes; returns whether something still is."""
        if self.closed is not None:
            return False
        try:
            while self._remaining:
                self._remaining = self._remaining[self._socket.send(self._remaining) :]
        except WANTS:
            pass
        except OSError as error:
            self._end(str(TLS.lost(error)))
        return bool(self._remaining)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE)
            for _ in range(_AT_ONCE):
                if len(data) < _RECEIVE and not self._connection.has_decrypted():
                    break
                self._reader.feed(data)
                data = self._socket.recv(_RECEIVE)
        except WANTS:
            data = None
        except OSError as error:
            self._end(str(TLS.lost(error)))
            return
        if data:
            self._reader.feed(data)
        self.received += 1
        waiting, replies, gets = self._waiting, self._replies, self._reader.gets
        try:
            while (reply := gets()) is not NOTHING:
                if not waiting:
                    self._end("the server sent what nobody asked for")
                    break
                replies.append(reply)
                if len(replies) == waiting[0][1]:
                    future, _ = waiting.popleft()
                    if not future.done():
                        future.set_result(replies)
                    replies = self._replies = []
        except ConnectionError:
            self._end(str(foreign(self.address)))
        if data == b"":
            self._end("the server closed the connection")

    def _end(self, reason: str) -> None:
        if self.closed is not None:
            return
        self.closed = ConnectionLost(reason)
        self._remaining = memoryview(b"")
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(ConnectionLost(reason))
        self._waiting.clear()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._connection.close()

    def close(self) -> None:
        """Close it without waiting; in its loop, or once that is closed."""
        self._end("the client was closed")


def foreign(address: Address) -> ConnectionLost:
    """Return the end of a connection whose server sent what is not the protocol."""
    return ConnectionLost(f"the server at {address.where} does not speak RESP, Redis' protocol")


@contextmanager
def believing(address: Address) -> Iterator[None]:
    """Read what a server says; what cannot be read ends its connection."""
    try:
        yield
    except (ConnectionLost, ReplyError, CloudRuntimesError):
        raise
    except Exception as error:
        raise foreign(address) from error


async def answer(op: Operation, future: asyncio.Future[T], where: str) -> T:
    """Wait for an answer to the deadline of a call."""
    if op.deadline is None:
        return await future
    loop = future.get_loop()
    timer = loop.call_later(max(0.0, op.deadline - monotonic()), _expire, future)
    try:
        return await future
    except _Expired:
        raise op.timed_out(f"redis {where}", maybe_applied=op.method.writes) from None
    finally:
        timer.cancel()


class _Expired(Exception):
    """The time of a call is over."""


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(_Expired())
