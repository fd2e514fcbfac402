"""Connection on psycopg's libpq layer, written as flows.

A flow is a generator that yields what it waits for, so that threads and event loops drive the same code.

A connection stays in libpq's pipeline mode. The statements that one flow sends together are one transaction
(PostgreSQL manual, "Pipeline Mode").
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator, Sequence
from contextlib import suppress
from hashlib import blake2s
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import pq

from ..._core.os_loops import running_loop
from ..._core.os_sockets import POLLIN, POLLOUT, Poll, poll
from ...spi.flow import FlowEngine
from ...spi.operation import Operation
from .failures import ConnectionLost, SqlFailure
from .statement import Result, Statement

T = TypeVar("T")
READ: Final = POLLIN
WRITE: Final = POLLOUT
Flow: TypeAlias = Generator[Any, Any, T]
"""Yields what of the socket it waits for, gets what the socket is ready for."""
Call: TypeAlias = tuple[Statement, Sequence[Any]]
"""A statement with its values."""
Encoded: TypeAlias = tuple[Statement, list[bytes | None]]

_CANCEL: Final = 5.0
_POLLED: Final = (pq.PollingStatus.OK, pq.PollingStatus.FAILED)
_PIPELINE_SYNC: Final = pq.ExecStatus.PIPELINE_SYNC
_FATAL: Final = pq.ExecStatus.FATAL_ERROR
_ABORTED: Final = pq.ExecStatus.PIPELINE_ABORTED


class Connection(FlowEngine[int, int]):
    """See the module.

    Attributes:
        pg: libpq's connection.
        sent: whether the running flow has sent a statement whose end is not known.
        opened: when, by `time.monotonic`. While it lives the server has not crashed since.
        poll: waits for its socket.
    """

    __slots__ = ("_names", "_prepared", "_prepares", "_schema", "opened", "pg", "poll", "sent")

    def __init__(self, schema: str, *, prepares: bool) -> None:
        self._schema = schema
        self._prepares = prepares
        self._prepared: dict[Statement, bytes] = {}
        self._names: set[bytes] = set()
        self.sent = False
        self.poll: Poll = poll()

    # -- waiting ----------------------------------------------------------

    def exchange(self, op: Operation, wanted: int) -> int:
        """Wait until the socket is ready for something, and return what for.

        Raises:
            DeadlineExceededError: the server did not answer in time.
        """
        waiting = self.poll
        if wanted != READ:
            waiting = poll()
            waiting.register(self.socket, wanted)
        remaining = op.remaining()
        ready = waiting.poll(None if remaining is None else remaining * 1000 + 1)
        if not ready:
            raise op.timed_out("PostgreSQL", maybe_applied=self.sent and op.method.writes)
        # an error or a hang-up is found by reading
        return ready[0][1] & (READ | WRITE) or READ

    async def exchange_async(self, op: Operation, wanted: int) -> int:
        loop = running_loop()
        descriptor = self.socket
        future: asyncio.Future[int] = loop.create_future()
        if wanted & READ:
            loop.add_reader(descriptor, _resolve, future, READ)
        if wanted & WRITE:
            loop.add_writer(descriptor, _resolve, future, WRITE)
        try:
            if op.deadline is None:
                return await future
            async with asyncio.timeout(op.remaining()):
                return await future
        except TimeoutError:
            raise op.timed_out("PostgreSQL", maybe_applied=self.sent and op.method.writes) from None
        finally:
            if wanted & READ:
                loop.remove_reader(descriptor)
            if wanted & WRITE:
                loop.remove_writer(descriptor)

    # -- opening ----------------------------------------------------------

    def open(self, conninfo: str) -> Flow[None]:
        """Connect.

        Raises:
            SqlFailure, Lost: it cannot.
        """
        self.pg = pg = pq.PGconn.connect_start(conninfo.encode())
        del conninfo  # no frame of an error shows its password
        polled = pg.status
        while True:
            polled = pg.connect_poll()
            if polled == pq.PollingStatus.OK:
                break
            if polled == pq.PollingStatus.FAILED:
                raise ConnectionLost(pg.get_error_message())
            # the socket may be another with each address that is tried
            self.poll = poll()
            self.poll.register(pg.socket, READ)
            yield READ if polled == pq.PollingStatus.READING else WRITE
        self.opened = monotonic()
        pg.nonblocking = 1
        pg.enter_pipeline_mode()
        self.poll = poll()
        self.poll.register(pg.socket, READ)

    @property
    def socket(self) -> int:
        """The descriptor to wait for; it may change while connecting."""
        return int(self.pg.socket)

    def own_host(self) -> str | None:
        """Return the address of this machine that the connection has; ``None``: it is no network's, or of one link alone."""
        own = socket.socket(fileno=self.pg.socket)
        try:
            host = own.getsockname()[0] if own.family in (socket.AF_INET, socket.AF_INET6) else None
        finally:
            own.detach()  # it stays libpq's
        return None if host is None or "%" in host or host.startswith("fe80:") else str(host)

    def is_alive(self) -> bool:
        """Return whether an idle connection still has its server, as far as is known without asking it."""
        while self.poll.poll(0):  # the server's last words come before the end
            try:
                self.pg.consume_input()
            except psycopg.Error:
                return False
        return self.pg.status == pq.ConnStatus.OK

    def is_clean(self) -> bool:
        """Return whether it can serve another flow."""
        return (
            not self.sent
            and self.pg.status == pq.ConnStatus.OK
            and self.pg.transaction_status == pq.TransactionStatus.IDLE
        )

    def is_standby(self) -> bool:
        """Return whether the server said that it is a standby (from PostgreSQL 14 on)."""
        return self.pg.parameter_status(b"in_hot_standby") == b"on"

    def close(self) -> None:
        """Close it without waiting."""
        self.pg.finish()

    def cancel(self) -> None:
        """Ask the server to stop the running statement; takes a connection of its own, and `_CANCEL` seconds at most."""
        try:
            if pq.version() < 170000:
                # blocks all threads while the server hangs
                return self.pg.get_cancel().cancel()
            asking = self.pg.cancel_conn()
            asking.start()
            end = monotonic() + _CANCEL
            while (polled := asking.poll()) not in _POLLED and monotonic() < end:
                waiting = poll()
                waiting.register(asking.socket, READ if polled == pq.PollingStatus.READING else WRITE)
                waiting.poll(1000 * (end - monotonic()))
            asking.finish()
        except psycopg.Error:
            pass  # it has ended, or the server cannot be reached

    # -- statements -------------------------------------------------------

    def execute(self, statement: Statement, *values: Any) -> Flow[Result]:
        """Run one statement in a transaction of its own, or in the open one."""
        name = self._prepared.get(statement)
        if name is None:
            return (yield from self.pipeline([(statement, values)]))[0]
        pg = self.pg
        parameters = statement.encode(values)
        try:
            self.sent = True
            pg.send_query_prepared(name, parameters, statement.formats, 1)
            pg.pipeline_sync()
            while pg.flush():
                if (yield READ | WRITE) & READ:
                    pg.consume_input()
            yield READ
            pg.consume_input()
            result = yield from self._answer()
            failure = SqlFailure(result, 0) if result.status == _FATAL else None
            failure = yield from self._synced(failure)
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from error
        self.sent = False
        if failure is not None:
            raise failure
        return statement.decode(result)

    def pipeline(self, calls: Sequence[Call], after: Sequence[Call] = ()) -> Flow[list[Result]]:
        """Run statements in one round trip and, unless one is open, one transaction; returns their results.

        Args:
            calls: statements with their parameters.
            after: run behind that transaction, in one of their own.

        Raises:
            SqlFailure: the server refused one; nothing of them was applied. Says which.
            ConnectionLost: the connection ended.
        """
        if not calls:
            return []
        groups = [[(statement, statement.encode(values)) for statement, values in group] for group in (calls, after)]
        return (yield from self.transact([group for group in groups if group]))

    def transact(self, groups: Sequence[Sequence[Encoded]]) -> Flow[list[Result]]:
        """Run groups of encoded statements in one round trip, each group as a transaction; returns the results of the first one."""
        pg = self.pg
        try:
            self.sent = True
            sent = [self._send(group) for group in groups]
            while pg.flush():
                if (yield READ | WRITE) & READ:
                    pg.consume_input()
            results, failure = yield from self._receive(sent[0])
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from error
        with suppress(ConnectionLost, psycopg.Error):  # what came before it is committed, or has failed
            for group in sent[1:]:
                yield from self._receive(group)
        self.sent = False
        if failure is not None:
            raise failure
        return results

    def _send(self, calls: Sequence[Encoded]) -> list[tuple[Statement, bool]]:
        """Send statements that are one transaction; returns each result to come: of a statement, or of preparing it."""
        pg = self.pg
        expected: list[tuple[Statement, bool]] = []
        fresh: set[bytes] = set()
        for statement, parameters in calls:
            if not self._prepares:
                pg.send_query_params(self._sql(statement), parameters, statement.oids, statement.formats, 1)
            else:
                name = self._prepared.get(statement)
                if name is None:
                    name = self._name(statement)
                    if name in self._names:
                        self._prepared[statement] = name  # of another statement with the same text
                    elif name not in fresh:
                        pg.send_prepare(name, self._sql(statement), statement.oids)
                        expected.append((statement, True))
                        fresh.add(name)
                pg.send_query_prepared(name, parameters, statement.formats, 1)
            expected.append((statement, False))
        pg.pipeline_sync()
        return expected

    def _receive(self, expected: Sequence[tuple[Statement, bool]]) -> Flow[tuple[list[Result], SqlFailure | None]]:
        """Receive the results of statements that were sent together, or why they failed."""
        results: list[Result] = []
        failure: SqlFailure | None = None
        for statement, preparing in expected:
            result = yield from self._answer()
            if result.status == _FATAL:
                failure = failure or SqlFailure(result, len(results))
            elif result.status != _ABORTED:
                if preparing:
                    name = self._prepared[statement] = self._name(statement)
                    self._names.add(name)
                else:
                    results.append(statement.decode(result))
        return results, (yield from self._synced(failure))

    def _synced(self, failure: SqlFailure | None) -> Flow[SqlFailure | None]:
        """Receive the end of what was sent together, which is where a commit fails; returns why it was not applied."""
        while (ended := (yield from self._answer())).status != _PIPELINE_SYNC:
            failure = failure or SqlFailure(ended, 0)
        return failure

    def _sql(self, statement: Statement) -> bytes:
        return statement.sql.replace("{schema}", self._schema).encode()

    def _name(self, statement: Statement) -> bytes:
        """Return a name that no other statement has, so that in a session that a pooler gave to others before it means no other."""
        return b"cr_" + blake2s(self._sql(statement), digest_size=16).hexdigest().encode()

    def _answer(self) -> Flow[Any]:
        """Receive a result, which must come, and its end."""
        pg = self.pg
        answer: Any = None
        while True:
            while pg.is_busy():
                yield READ
                pg.consume_input()
            result = pg.get_result()
            if answer is not None:
                return answer
            if result is None:
                raise ConnectionLost(pg.get_error_message())
            if result.status == _PIPELINE_SYNC:
                return result  # it has no end of its own
            answer = result


def _resolve(future: asyncio.Future[int], ready: int) -> None:
    if not future.done():
        future.set_result(ready)
