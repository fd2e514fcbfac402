"""The life of a transaction handle: begin, run, end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._service import Outbox, Service, error_context
from ..errors import AlreadyExistsError, ClosedError
from ..spi import database as spi
from ..spi.change import Change
from ..spi.database import (
    DatabaseCursor,
    DatabaseDriver,
    DatabaseSession,
    EventRow,
    Isolation,
    Outcome,
    Query,
    Statement,
)
from ..spi.operation import Method, Operation

TRANSACTION: Final = Method("database", "transaction", repeatable=False, handle=True)
_BEGIN: Final = Method("database", "transaction", repeatable=True, writes=False, handle=True)
_PUBLISH: Final = Method("database", "publish", repeatable=False)
_COMMIT: Final = Method("database", "commit", repeatable=False)
_ROLLBACK: Final = Method("database", "rollback", repeatable=False, writes=False)
_CLOSING: Final = 5.0


class Transaction(Outbox):
    """Base of `DatabaseTransaction`: all but the statements."""

    _method = TRANSACTION

    def __init__(
        self,
        service: Service,
        store_name: str,
        driver: DatabaseDriver,
        isolation: Isolation | None,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        super().__init__(service, store_name)
        self._driver = driver
        self._isolation = isolation
        self._timeout = timeout
        self._metadata = metadata
        self._mysql = driver.mysql
        self._lacks = driver.lacks
        self._session: DatabaseSession | None = None
        self._ended = False
        self._rows: list[EventRow] = []

    # -- begin ------------------------------------------------------------

    def _operation(self, method: Method, timeout: float | None, metadata: Mapping[str, str] | None) -> Operation:
        check_metadata(metadata)
        return Operation(method, self._store_name, check_timeout(timeout, self._frame.timeout), metadata)

    def _add_context(self, error: BaseException, method: Method, component: Any) -> None:
        """Complete an error as the service does, for `error_context`."""
        self._frame.add_context(error, method, self._store_name)

    def _check(self) -> None:
        self._check_process()
        if self._ended:
            raise ClosedError("this transaction has ended: open another")

    def _publishing(self) -> DatabaseDriver:
        self._check()
        self._frame.need(self._driver, spi.OUTBOX, "publish in a transaction", self._store_name)
        return self._driver

    def _add_events(self, writes: Sequence[EventRow | Change]) -> None:
        for each in writes:
            if isinstance(each, Change):
                self._changes.append(each)
            else:
                self._rows.append(each)

    def _event_statements(self) -> Iterator[tuple[bool, Statement]]:
        """Yield the statements of events that wait in a table, each with whether it is to run apart."""
        yield from self._rows[0].before if self._rows else ()
        yield from ((False, row.insert) for row in self._rows)

    def _begun(self, session: DatabaseSession) -> DatabaseSession:
        self._session = session
        self._frame.context.handles.add(self, loose=True)
        return session

    def _open(self) -> None:
        self._begin()

    async def _open_async(self) -> None:
        await self._begin_async()

    @error_context(_BEGIN, named=False)
    def _begin(self) -> DatabaseSession:
        self._check()
        if self._session is not None:
            return self._session
        op = self._operation(_BEGIN, self._timeout, self._metadata)
        return self._begun(self._frame.call(op, self._driver.begin, self._isolation))

    @error_context(_BEGIN, named=False)
    async def _begin_async(self) -> DatabaseSession:
        self._check()
        if self._session is not None:
            return self._session
        op = self._operation(_BEGIN, self._timeout, self._metadata)
        return self._begun(await self._frame.call_async(op, self._driver.begin_async, self._isolation))

    # -- run --------------------------------------------------------------

    def _run(
        self, method: Method, statement: Statement, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> Outcome:
        op = self._step(method, statement, timeout, metadata)
        session = self._begin()
        return self._frame.call(op, session.run, statement)

    async def _run_async(
        self, method: Method, statement: Statement, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> Outcome:
        op = self._step(method, statement, timeout, metadata)
        session = await self._begin_async()
        return await self._frame.call_async(op, session.run_async, statement)

    def _step(
        self, method: Method, statement: Statement, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> Operation:
        self._check()
        if isinstance(statement, spi.ExecuteMany):
            self._frame.need(self._driver, spi.EXECUTE_MANY, method.name, self._store_name)
        elif not isinstance(statement, (spi.Query, spi.Execute)):
            self._frame.need(self._driver, spi.SCHEMA, method.name, self._store_name)
        op = self._operation(method, timeout, metadata)
        op.repeatable = False  # what failed is rolled back
        return op

    def _stream(self, op: Operation, query: Query) -> DatabaseCursor:
        session = self._begin()
        return self._frame.call(op, session.stream, query)

    async def _stream_async(self, op: Operation, query: Query) -> DatabaseCursor:
        session = await self._begin_async()
        return await self._frame.call_async(op, session.stream_async, query)

    # -- end --------------------------------------------------------------

    def _ending(self) -> DatabaseSession | None:
        session, self._session, self._ended = self._session, None, True
        self._frame.context.handles.discard(self)
        return session

    @error_context(_COMMIT, named=False)
    def commit(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> None:
        """Commit, and end the transaction before its block does.

        Args:
            timeout: seconds; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            ClosedError: it has ended, or was rolled back since a statement failed; nothing was committed.
            ConflictError: the database refused it (``retryable``); nothing was committed.
            UnavailableError, DeadlineExceededError: ``maybe_applied``: the answer did not come.
        """
        self._check()
        op = self._operation(_COMMIT, timeout, metadata)
        self._gather()
        publish = self._operation(_PUBLISH, timeout, None) if self._changes or self._rows else op
        if self._changes:
            self._frame.call(publish, self._begin().apply, self._changes)
        for apart, statement in self._event_statements():
            if apart:
                with suppress(AlreadyExistsError):
                    self._frame.call(publish, self._driver.apart.run, statement)
            else:
                self._frame.call(publish, self._begin().run, statement)
        session = self._ending()
        if session is not None:
            self._frame.call(op, session.commit)
        self._tell_committed()

    @error_context(_COMMIT, named=False)
    async def commit_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Commit, and end the transaction before its block does.

        Args:
            timeout: seconds; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            ClosedError: it has ended, or was rolled back since a statement failed; nothing was committed.
            ConflictError: the database refused it (``retryable``); nothing was committed.
            UnavailableError, DeadlineExceededError: ``maybe_applied``: the answer did not come.
        """
        self._check()
        op = self._operation(_COMMIT, timeout, metadata)
        self._gather()
        publish = self._operation(_PUBLISH, timeout, None) if self._changes or self._rows else op
        if self._changes:
            session = await self._begin_async()
            await self._frame.call_async(publish, session.apply_async, self._changes)
        for apart, statement in self._event_statements():
            if apart:
                with suppress(AlreadyExistsError):
                    await self._frame.call_async(publish, self._driver.apart.run_async, statement)
            else:
                session = await self._begin_async()
                await self._frame.call_async(publish, session.run_async, statement)
        ending = self._ending()
        if ending is not None:
            await self._frame.call_async(op, ending.commit_async)
        self._tell_committed()

    @error_context(_ROLLBACK, named=False)
    def rollback(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> None:
        """Roll back, and end the transaction before its block does; again does nothing.

        Args:
            timeout: seconds; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            UnavailableError, DeadlineExceededError: the answer did not come; nothing is committed.
        """
        self._check_process()
        op = self._operation(_ROLLBACK, timeout, metadata)
        session = self._ending()
        if session is not None:
            self._frame.call(op, session.rollback)

    @error_context(_ROLLBACK, named=False)
    async def rollback_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Roll back, and end the transaction before its block does; again does nothing.

        Args:
            timeout: seconds; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            UnavailableError, DeadlineExceededError: the answer did not come; nothing is committed.
        """
        self._check_process()
        op = self._operation(_ROLLBACK, timeout, metadata)
        session = self._ending()
        if session is not None:
            await self._frame.call_async(op, session.rollback_async)

    def _exit(self, error: BaseException | None) -> None:
        if self._ended:
            return
        if error is None:
            self.commit(timeout=self._timeout, metadata=self._metadata)
        else:
            self.rollback(timeout=self._timeout, metadata=self._metadata)

    async def _exit_async(self, error: BaseException | None) -> None:
        if self._ended:
            return
        if error is None:
            await self.commit_async(timeout=self._timeout, metadata=self._metadata)
        else:
            await self.rollback_async(timeout=self._timeout, metadata=self._metadata)

    def _close_by_client(self, end: float | None) -> None:
        self.rollback(timeout=_CLOSING)
