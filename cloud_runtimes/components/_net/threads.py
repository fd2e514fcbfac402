"""Connections that the calls of all threads share.

One of the waiting callers reads for all, and one that sends takes along what the others have to send. There is no thread of its own, so an idle connection costs nothing.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from ..._core.os_sockets import POLLIN, POLLOUT
from ..._core.threads import Mutex
from ...errors import ClosedError
from ...spi.operation import Operation
from .connections import FRESH, ConnectionLost, ServerConnection, SharedConnection

C = TypeVar("C")
S = TypeVar("S", bound="ThreadConnection[Any]")
_CLOSED: Final = "this client is closed: make another"
_INTERRUPTED: Final = ConnectionLost("a caller was interrupted")


class Ticket:
    """Ticket with which a caller waits.

    Attributes:
        answered: whether its call is.
    """

    __slots__ = ("_lock", "answered")

    def __init__(self) -> None:
        self.answered = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def resolve(self, call: object) -> None:
        """Let the caller go on: its call is answered."""
        self.answered = True
        self.wake()

    def wake(self) -> None:
        """Have the caller look."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it does

    def wait(self, deadline: float | None) -> bool:
        """Wait until it is woken; ``False``: it is that time of `time.monotonic`."""
        return self._lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))


class ThreadConnection(SharedConnection, Generic[C]):
    """See the module."""

    _waiting: dict[Ticket, C]

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__(connection)
        self._register = Mutex()
        self._sending = threading.Lock()
        self._reading = threading.Lock()
        self._waiting = {}
        self._ended = False

    # -- what is spoken ---------------------------------------------------

    @abstractmethod
    def _heard(self) -> int:
        """Take in what has come; return how many bytes of what is to be sent answer the server's own questions."""

    @abstractmethod
    def _abandon(self, call: C) -> None:
        """Forget a call that has no answer."""

    # -- calls ------------------------------------------------------------

    def _exchange(self, begin: Callable[[Callable[[C], None]], C], deadline: float | None) -> C:
        """Begin a call, and return it once it is answered.

        Args:
            begin: says what is to be sent, and returns the call. It is given what to call once that is answered.
            deadline: of `time.monotonic`.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time is over.
        """
        ticket = Ticket()
        call: C | None = None
        try:
            with self._register:
                if self.closed is not None:
                    raise ConnectionLost(str(self.closed))
                call = self._waiting[ticket] = begin(ticket.resolve)
            self._flush(deadline)
            self._wait(ticket, deadline)
            if not ticket.answered:
                raise ConnectionLost(str(self.closed))
            return call
        finally:
            with self._register:
                self._waiting.pop(ticket, None)
                if call is None:
                    if self.closed is None:
                        self._end(_INTERRUPTED)  # it may have begun
                elif not ticket.answered:
                    self._abandon(call)
            self._leave()

    def _leave(self) -> None:
        """Let others go on, as one who reads no more."""
        if not self._reading.locked():
            for ticket in self._waiting.copy():
                if not ticket.answered:
                    ticket.wake()  # it reads
                    break
        if self.closed is not None and not self._waiting:
            self.connection.close()

    def _wait(self, ticket: Ticket, deadline: float | None) -> None:
        """Wait for an answer: read if nobody does, else until the reader has it or leaves."""
        while not ticket.answered and not self._ended:
            if self._reading.acquire(blocking=False):
                try:
                    self._read(ticket, deadline)
                finally:
                    self._reading.release()
            elif not ticket.wait(deadline):
                raise TimeoutError

    def _read(self, ticket: Ticket, deadline: float | None) -> None:
        while not ticket.answered and not self._ended:
            until = self._check(monotonic())
            if self._ended:
                return
            if self._out:  # answers to the server's questions, too
                self._flush(deadline, reads=True)
            if deadline is not None and deadline < until:
                if not self.connection.wait(deadline):
                    raise TimeoutError
            elif not self.connection.wait(None if until == inf else until):
                continue
            self._take()

    def _take(self) -> None:
        """Take in what has come, as the one who reads."""
        try:
            if size := self._heard():
                self.connection.owe(size, self._sending.locked())
        except BaseException as error:
            self._end(error if isinstance(error, ConnectionLost) else _INTERRUPTED)
            raise

    def look(self) -> None:
        """Take in what came while nobody asked: questions of the server, or the end."""
        if monotonic() < self.connection.heard + FRESH or not self._reading.acquire(blocking=False):
            return
        try:
            for _ in self.connection.arrived():
                self._take()
                if self.closed is not None:
                    break
        except ConnectionLost as error:
            self._end(error)
        finally:
            self._reading.release()
            self._leave()

    # -- sending ----------------------------------------------------------

    def _flush(self, deadline: float | None, reads: bool = False) -> None:
        """Send what is to be sent, that of others too, unless another one is at it; ``reads``: this caller is the one who reads."""
        whole = False
        try:
            # who finds another one sending may leave: that one looks again after it was found
            while self._out and self._sending.acquire(blocking=False):
                try:
                    with self._register:
                        data = self._outgoing()
                    if (sent := self.connection.send_now(data)) < len(data):
                        self._send(memoryview(data)[sent:], deadline, reads)
                finally:
                    self._sending.release()
            whole = True
        except ConnectionLost as error:
            self._end(error)
            raise
        finally:
            if not whole:  # cut, nothing can follow it
                self._end(ConnectionLost("the server did not read"))

    def _send(self, rest: memoryview, deadline: float | None, reads: bool) -> None:
        """Send the rest of a packet, and take in what comes meanwhile where nobody else does: a server gives up clients that only send."""
        while rest:
            mine = reads or self._reading.acquire(blocking=False)
            try:
                if not self.connection.wait(deadline, POLLOUT | (POLLIN if mine else 0)):
                    raise TimeoutError
                if mine and (size := self._heard()):
                    self.connection.owe(size, True)
            finally:
                if mine and not reads:
                    self._reading.release()
            rest = rest[self.connection.send_now(rest) :]

    def _send_soon(self) -> None:
        """See the base; the one who reads does it."""

    # -- the end ----------------------------------------------------------

    def _end(self, reason: ConnectionLost) -> None:
        with self._register:
            self.closed = self.closed or reason
            self._ended = True
            waiting = list(self._waiting)
        self.connection.avoid()
        for ticket in waiting:
            ticket.wake()
        if not waiting:
            self.connection.close()

    def close(self) -> None:
        """End it and close it without waiting."""
        self._end(ConnectionLost("the client was closed"))
        self.connection.close()


class ThreadConnections(Generic[S]):
    """The connection of the client for all threads.

    Attributes:
        shared: the last one; ``None``: none was made.
    """

    def __init__(self, where: str) -> None:
        """``where`` is what messages call the servers."""
        self._where = where
        self._connecting = Mutex()
        self.shared: S | None = None
        self._closed = False

    def get(self, op: Operation, connect: Callable[[Operation], S]) -> S:
        """Return the connection. The first call that needs it makes it, and the others wait."""
        shared = self.shared
        if shared is not None:
            shared.look()
            if shared.closed is None:
                return shared
        remaining = op.remaining()
        if not self._connecting.acquire(timeout=-1 if remaining is None else remaining):
            raise op.timed_out(self._where)
        try:
            if self.shared is shared:
                self.shared = connect(op)
            assert self.shared is not None
            if self._closed:  # meanwhile
                self.shared.close()
                raise ClosedError(_CLOSED)
            return self.shared
        finally:
            self._connecting.release()

    def close(self) -> None:
        """Close it; no more are made."""
        self._closed = True
        if self.shared is not None:
            self.shared.close()
