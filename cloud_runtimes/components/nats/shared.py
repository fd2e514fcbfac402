"""Connection shared by many callers: those of all threads, or those of one event loop.

Their requests share packets, and answers come in any order."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

from ..._core.logs import repeated
from ..._core.os_sockets import POLLIN, POLLOUT
from ..._core.threads import Mutex
from ...spi.operation import Operation
from .._net import loops
from .._net.connections import ConnectionLost
from .connection import Connection
from .requests import Batch, Call, Inbox

_ANSWER: Final = 0.25
"""Seconds that a server has to read the answer to a question of its own."""
_SILENT: Final = 2.0
"""Seconds without a byte after which a caller that gave up lets others try another connection."""


class _Shared:
    """Common base of the shared connections.

    Attributes:
        closed: why it serves nobody any more; ``None``: it is open.
        when_closed: called once it is closed.
    """

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        self.connection = connection
        self.closed: ConnectionLost | None = None
        self.when_closed: Callable[[], None] = _nothing
        self.inbox = inbox
        self._asked = 0.0  # when the first request was sent after the last byte came

    @property
    def max_payload(self) -> int:
        """Bytes that headers and payload of a message have at most."""
        return self.connection.max_payload

    def _heard(self) -> bytes:
        """Take in what has come, and return what is to be sent in answer."""
        session = self.connection.session
        self.connection.receive()
        if session.error is not None and session.error.lower().startswith("permissions violation"):
            if not self.inbox.denied(session.error):  # the answer to a call, perhaps
                repeated(f"nats {session.error}", "nats %s: %s", self.connection.address.where, session.error)
            session.error = None
        if session.info.get("ldm"):
            self._retire(ConnectionLost("the server is going away"))
        return self.connection.answer()

    def _retire(self, reason: ConnectionLost) -> None:
        """Serve no further call; those under way go on."""
        self.closed = self.closed or reason
        self.connection.avoid()
        self.when_closed()

    def _asks(self) -> bytes:
        """Note that a request follows, and return what goes before it: whether the server is there, if it has said nothing for a while."""
        now = monotonic()
        if self._asked <= self.connection.heard:
            self._asked = now
        return b"PING\r\n" if now - self._asked > _SILENT / 4 else b""

    def _give_up(self, call: Call) -> None:
        """Forget a call whose time is over; a server that said nothing meanwhile is not asked by others."""
        self.inbox.forget(call)
        if self.connection.heard < self._asked <= monotonic() - _SILENT:
            self._retire(ConnectionLost("the server did not answer"))


class ThreadConnection(_Shared):
    """For threads: one of the waiting callers reads for all. There is no thread of its own, so an idle connection costs nothing."""

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        super().__init__(connection, inbox)
        self._register = Mutex()
        self._sending = threading.Lock()
        self._reading = threading.Lock()
        self._waiting: dict[threading.Lock, Call] = {}
        self._ended = False

    def exchange(self, op: Operation, batch: Batch, until: float | None = None) -> Call:
        """Send requests and return their call, answered.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time of the call is over, or it is ``until``.
        """
        deadline = op.deadline if until is None else until
        ticket = threading.Lock()
        ticket.acquire()
        call = Call(batch, lambda call: _release(ticket))
        with self._register:
            if self.closed is not None:
                raise ConnectionLost(str(self.closed))
            self._waiting[ticket] = call
            data = self._asks() + self.inbox.begin(call, batch)
        try:
            self._send(data, deadline)
            self._wait(ticket, call, deadline)
            if call.remaining:
                raise ConnectionLost(str(self.closed))
            return call
        except TimeoutError:
            self._give_up(call)
            raise
        finally:
            self.inbox.forget(call)
            self._waiting.pop(ticket, None)
            if not self._reading.locked():
                self._pass_on()
            if self.closed is not None and not self._waiting:
                self.connection.close()

    def _send(self, data: bytes, deadline: float | None) -> None:
        if not self._sending.acquire(timeout=_seconds(deadline)):
            raise TimeoutError
        whole = False
        try:
            self._send_all(data, deadline)
            whole = True
        except ConnectionLost as error:
            self._end(error)
            raise
        finally:
            if not whole:  # cut, nothing can follow it
                self._end(ConnectionLost("the server did not read"))
            self._sending.release()

    def _send_all(self, data: bytes, deadline: float | None) -> None:
        """Send, and take in what comes meanwhile where nobody else does: a server gives up clients that only send."""
        rest = memoryview(data)[self.connection.send_now(data) :]
        while rest:
            reads = self._reading.acquire(blocking=False)
            try:
                if not self.connection.wait(deadline, POLLOUT | (POLLIN if reads else 0)):
                    raise TimeoutError
                if reads and (answer := self._heard()):
                    rest = memoryview(bytes(rest) + answer)
            finally:
                if reads:
                    self._reading.release()
            rest = rest[self.connection.send_now(rest) :]

    def _wait(self, ticket: threading.Lock, call: Call, deadline: float | None) -> None:
        """Wait for an answer: read if nobody does, else until the reader has it or leaves."""
        while call.remaining and not self._ended:
            if self._reading.acquire(blocking=False):
                try:
                    self._read(call, deadline)
                finally:
                    self._reading.release()
            elif not ticket.acquire(timeout=_seconds(deadline)):
                raise TimeoutError

    def _read(self, call: Call, deadline: float | None) -> None:
        try:
            while call.remaining and not self._ended:
                if not self.connection.wait(deadline):
                    raise TimeoutError
                self._reply()
        except ConnectionLost as error:
            self._end(error)
            raise

    def _reply(self) -> None:
        """Take in what has come, and answer questions of the server."""
        if answer := self._heard():
            try:
                self._send(answer, monotonic() + _ANSWER)
            except TimeoutError:  # another caller is sending: a server that asks needs no answer then
                if self._ended:
                    raise ConnectionLost(str(self.closed)) from None

    def _pass_on(self) -> None:
        """Wake one who waits, to read."""
        for ticket, call in self._waiting.copy().items():
            if call.remaining:
                _release(ticket)
                return

    def look(self) -> None:
        """Take in what came while nobody asked: questions of the server, or the end."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            for _ in self.connection.arrived():
                self._reply()
                if self.closed is not None:
                    break
        except ConnectionLost as error:
            self._end(error)
        finally:
            self._reading.release()
            self._pass_on()
            if self.closed is not None and not self._waiting:
                self.connection.close()

    def _end(self, reason: ConnectionLost) -> None:
        with self._register:
            self.closed = self.closed or reason
            self._ended = True
            waiting = list(self._waiting)
        self.connection.avoid()
        for ticket in waiting:
            _release(ticket)
        if not waiting:
            self.connection.close()

    def close(self) -> None:
        """End it; who waits gets `ConnectionLost`."""
        self._end(ConnectionLost("the client was closed"))
        self.connection.close()


class LoopConnection(_Shared, loops.LoopConnection):
    """For the calls of one event loop."""

    connection: Connection

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        loops.LoopConnection.__init__(self, connection)
        _Shared.__init__(self, connection, inbox)
        self._out: deque[bytes] = deque()

    async def exchange(self, op: Operation, batch: Batch, until: float | None = None) -> Call:
        """Send requests and return their call, answered.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time of the call is over, or it is ``until``.
        """
        if self.ended:
            raise ConnectionLost(str(self.closed))
        deadline = op.deadline if until is None else until
        future: asyncio.Future[None] = self._loop.create_future()
        call = Call(batch, lambda call: loops.resolve(future))
        self._waiting[future] = ends = inf if deadline is None else deadline
        if ends < self._look_at:
            self._watch(ends)
        self.send(self._asks() + self.inbox.begin(call, batch))
        if not call.remaining:
            loops.resolve(future)
        try:
            await future
            return call
        except TimeoutError:
            self._give_up(call)
            raise
        finally:
            if call.remaining:
                self.inbox.forget(call)
            self._waiting.pop(future, None)
            if self.closed is not None and not self._waiting:
                self._end(self.closed)

    @property
    def ended(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._descriptor < 0

    def send(self, data: bytes) -> None:
        """Send commands, together with all others of this turn of the loop."""
        self._out.append(data)
        self._send_soon()

    def _outgoing(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _read(self) -> None:
        if answer := self._heard():
            self._out.append(answer)
            self._answer(len(answer))

    def _end(self, reason: ConnectionLost) -> None:
        super()._end(reason)
        self.when_closed()


def _nothing() -> None:
    """Nobody wants to know."""


def _seconds(deadline: float | None) -> float:
    return -1 if deadline is None else max(0.0, deadline - monotonic())


def _release(ticket: threading.Lock) -> None:
    try:
        ticket.release()
    except RuntimeError:
        pass  # it was
