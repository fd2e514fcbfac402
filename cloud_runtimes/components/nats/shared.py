"""Connection shared by many callers: those of all threads, or those of one event loop.

Their requests share packets, and answers come in any order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Final

from ..._core.logs import repeated
from ...spi.operation import Operation
from .._net import loops, threads
from .._net.connections import ConnectionLost, SharedConnection
from .connection import Connection
from .requests import Batch, Call, Inbox

_SILENT: Final = 2.0
"""Seconds without a byte after which a caller that gave up lets others try another connection."""


class _Shared(SharedConnection):
    """Common base of both.

    Attributes:
        when_closed: called once it is closed.
    """

    connection: Connection

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        super().__init__(connection)
        self.when_closed: Callable[[], None] = _nothing
        self.inbox = inbox
        self._out: deque[bytes] = deque()
        self._asked = 0.0  # when the first request was sent after the last byte came

    @property
    def max_payload(self) -> int:
        """Bytes that headers and payload of a message have at most."""
        return self.connection.max_payload

    def _begin(self, batch: Batch, done: Callable[[Call], None]) -> Call:
        """Wait for the answers of requests, and have them sent."""
        call = Call(batch, done)
        now = monotonic()
        if self._asked <= self.connection.heard:
            self._asked = now
        if now - self._asked > _SILENT / 4:  # it has said nothing for a while: is it there?
            self._out.append(b"PING\r\n")
        self._out.append(self.inbox.begin(call, batch))
        if not call.remaining:
            done(call)
        return call

    def _outgoing(self) -> bytes:
        out = self._out  # answers to the server's questions may come meanwhile
        return b"".join([out.popleft() for _ in range(len(out))])

    def _heard(self) -> int:
        """Take in what has come; return how many bytes of what is to be sent answer the server's own questions."""
        session = self.connection.session
        self.connection.receive()
        if session.error is not None and session.error.lower().startswith("permissions violation"):
            if not self.inbox.denied(session.error):  # the answer to a call, perhaps
                repeated(f"nats {session.error}", "nats %s: %s", self.connection.address.where, session.error)
            session.error = None
        if session.info.get("ldm"):
            self.retire(ConnectionLost("the server is going away"))
        if answer := self.connection.answer():
            self._out.append(answer)
        return len(answer)

    def retire(self, reason: ConnectionLost) -> None:
        super().retire(reason)
        self.when_closed()

    def _abandon(self, call: Call) -> None:
        """Forget a call that has no answer; a server that said nothing meanwhile is not asked by others."""
        self.inbox.forget(call)
        if self.connection.heard < self._asked <= monotonic() - _SILENT:
            self.retire(ConnectionLost("the server did not answer"))


class ThreadConnection(_Shared, threads.ThreadConnection[Call]):
    """For threads."""

    def exchange(self, op: Operation, batch: Batch, until: float | None = None) -> Call:
        """Send requests and return their call, answered.

        Raises:
            ConnectionLost: the connection ended.
            TimeoutError: the time of the call is over, or it is ``until``.
        """
        return self._exchange(partial(self._begin, batch), op.deadline if until is None else until)


class LoopConnection(_Shared, loops.LoopConnection):
    """For the calls of one event loop."""

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
        self._waiting[future] = ends = inf if deadline is None else deadline
        if ends < self._look_at:
            self._watch(ends)
        call = self._begin(batch, lambda call: loops.resolve(future))
        self._send_soon()
        try:
            await future
            return call
        finally:
            if call.remaining:
                self._abandon(call)
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

    def _read(self) -> None:
        if size := self._heard():
            self._answer(size)

    def _end(self, reason: ConnectionLost) -> None:
        super()._end(reason)
        self.when_closed()


def _nothing() -> None:
    """Nobody wants to know."""
