"""Short statements of all threads that go to the server together, as `batches` has it for those of one event loop.

One of the callers leads, and runs a batch for all: there is no thread of its own. It is the one with the most time, so that its deadline ends no other's call.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

from ..._core.threads import Mutex
from ...errors import CloudRuntimesError
from ...spi.operation import Operation, mark_interrupted
from .._net.threads import Ticket
from .batches import Entry, exchange, taken
from .failures import ConnectionLost, SqlFailure
from .statement import Result, Statement

if TYPE_CHECKING:
    from .pool import Pool


_BATCHES: Final = 2
"""Batches of one kind at once, so that some that wait for locked rows keep no other."""


class _Caller(Entry):
    """A statement of a thread, and its ticket.

    Attributes:
        result: of the statement; ``None``: it is to run apart, or was lost.
        lost: how the connection ended on which it may have been applied.
        leads: whether it is to run a batch.
    """

    __slots__ = ("leads", "lost", "result", "ticket")

    def __init__(self, op: Operation, statement: Statement, parameters: list[bytes | None]) -> None:
        super().__init__(op, statement, parameters)
        self.ticket = Ticket()
        self.result: Result | None = None
        self.lost: ConnectionLost | None = None
        self.leads = False


class ThreadBatches:
    """The statements of all threads that share, of one kind.

    Args:
        pool: has the connections.
        writes: whether they change anything.

    Attributes:
        waiting: those that no batch has yet.
    """

    def __init__(self, pool: Pool, *, writes: bool) -> None:
        self._pool = pool
        self._writes = writes
        self._lock = Mutex()
        self.waiting: list[_Caller] = []
        self._batches = 0

    def run(self, op: Operation, statement: Statement, values: Sequence[Any]) -> Result:
        """Run a statement.

        Raises:
            CloudRuntimesError: it failed; ``maybe_applied`` says whether it may have been applied.
        """
        caller = _Caller(op, statement, statement.encode(values))
        try:
            with self._lock:
                if self._batches < _BATCHES:
                    self._batches += 1
                    caller.leads = True
                else:
                    self.waiting.append(caller)
            if not caller.leads and not caller.ticket.wait(op.deadline):
                raise TimeoutError
            if caller.leads:
                self._lead(caller)
        except BaseException as error:
            sent = self._forget(caller) and self._writes
            if isinstance(error, TimeoutError) and not isinstance(error, CloudRuntimesError):
                raise op.timed_out("PostgreSQL" if sent else self._pool.scarce(), maybe_applied=sent) from None
            if not isinstance(error, Exception):
                mark_interrupted(error, sent)
            raise
        if caller.result is not None:
            return caller.result
        if caller.lost is not None:
            raise caller.lost.map_error(self._pool.where, maybe_applied=self._writes) from caller.lost
        return self._pool.run(op, lambda connection: connection.execute(statement, *values))

    def _lead(self, caller: _Caller) -> None:
        """Run what waits, and the leader's own, once there is a connection."""
        pool, op = self._pool, caller.op
        callers = [caller]
        lost: ConnectionLost | None = None
        try:
            connection = pool.take(op)
            try:
                with self._lock:
                    callers += taken(self.waiting)
                results = connection.run(op, exchange(connection, callers, self._writes))
                for each, result in zip(callers, results, strict=True):
                    each.result = result
            except BaseException as error:
                if self._writes and connection.sent:
                    lost = ConnectionLost(str(error) or "the batch was interrupted")
                translated = pool.map_error(error, connection, op)
                if translated is error:
                    raise  # the leader's own: its time is over, or it was interrupted
                if not isinstance(error, (SqlFailure, ConnectionLost)):
                    raise translated from error
            finally:
                pool.release(connection)
        finally:
            caller.leads = False
            for each in callers:
                if each.result is None:
                    each.lost = lost
                each.ticket.wake()
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the next one lead, in the place of one that is through."""
        with self._lock:
            if not self.waiting:
                self._batches -= 1
                return
            leader = max(self.waiting, key=_end)
            self.waiting.remove(leader)
            leader.leads = True
            leader.ticket.wake()

    def _forget(self, caller: _Caller) -> bool:
        """Forget a caller that waits no longer; returns whether its statement may have been sent."""
        with self._lock:
            if caller in self.waiting:
                self.waiting.remove(caller)
                return False
            leads, caller.leads = caller.leads, False
        if leads:  # since a moment ago
            self._pass_on()
        return not leads


def _end(caller: _Caller) -> float:
    return inf if caller.op.deadline is None else caller.op.deadline
