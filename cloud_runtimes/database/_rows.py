"""Rows of a query: all at once, or as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Self, TypedDict, TypeVar, cast

from .._core.arguments import CLIENT_TIMEOUT, check_timeout
from .._service import Framed, ServiceHandle
from ..errors import ClosedError
from ..spi.database import DatabaseCursor, DatabaseDriver, Query, RowSet
from ..spi.operation import Method, Operation
from ._session import Transaction
from ._typed import maker

T = TypeVar("T")

QUERY_WRITES: Final = Method("database", "query", repeatable=False)
EXECUTE: Final = Method("database", "execute", repeatable=False)
EXECUTE_MANY: Final = Method("database", "execute_many", repeatable=False)
STREAM: Final = Method("database", "stream", repeatable=False, writes=False, handle=True)
_STREAM_WRITES: Final = Method("database", "stream", repeatable=False, handle=True)
_NONE: Final = object()
_CLOSING: Final = 5.0
"""Seconds for letting go of a stream that its owner left."""


class CallOptions(TypedDict, total=False):
    """Keyword arguments that every call takes."""

    timeout: float | None
    metadata: Mapping[str, str] | None


def rows(row_set: RowSet, type: Any, lacks: frozenset[type]) -> list[Any]:
    """Return rows as values of a type."""
    make = maker(row_set.columns, type, lacks)
    return [make(number, values) for number, values in enumerate(row_set.rows)]


class RowStream(ServiceHandle, Generic[T]):
    """Rows as they come; made by ``stream``.

    ``for row in stream`` and ``async for row in stream``, once. It holds a connection (in a transaction: that one) from its first step until it is exhausted, closed or left by ``with``. On SQLite an unfinished one keeps the log of writes from being cut back.
    """

    def __init__(
        self,
        service: Framed,
        store_name: str,
        driver: DatabaseDriver,
        statement: Query,
        type: Any,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
        transaction: Transaction | None,
    ) -> None:
        super().__init__(service)
        self._store_name = store_name
        self._driver = driver
        self._statement = statement
        self._method = STREAM if statement.sql.reads else _STREAM_WRITES
        self._type = type
        self._timeout = timeout
        self._metadata = metadata
        self._transaction = transaction
        self._cursor: DatabaseCursor | None = None
        self._make: Callable[[int, Sequence[Any]], Any] | None = None
        self._ready: Iterator[Any] = iter(())
        self._count = 0
        self._over = False
        self._closed = False

    # -- steps ------------------------------------------------------------

    def _operation(self) -> Operation:
        limit = check_timeout(self._timeout, self._frame.timeout)
        return Operation(self._method, self._store_name, limit, self._metadata)

    def _check(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError("this stream is closed: open another", service="database", component=self._store_name)

    def _opened(self, cursor: DatabaseCursor) -> None:
        self._cursor = cursor
        self._frame.context.handles.add(self, loose=True)
        self._make = maker(cursor.columns, self._type, self._driver.lacks)

    def _open(self) -> None:
        self._check()
        if self._cursor is None and not self._over:
            op, statement = self._operation(), self._statement
            try:
                if self._transaction is not None:
                    self._opened(self._transaction._stream(op, statement))
                else:
                    self._opened(self._frame.call(op, self._driver.stream, statement))
            except BaseException as error:
                self._failed(error)
                self.close()
                raise

    async def _open_async(self) -> None:
        self._check()
        if self._cursor is None and not self._over:
            op, statement = self._operation(), self._statement
            try:
                if self._transaction is not None:
                    self._opened(await self._transaction._stream_async(op, statement))
                else:
                    self._opened(await self._frame.call_async(op, self._driver.stream_async, statement))
            except BaseException as error:
                self._failed(error)
                await self.close_async()
                raise

    def _failed(self, error: BaseException) -> None:
        self._frame.add_context(error, self._method, self._store_name)

    def _received(self, batch: Sequence[Sequence[Any]]) -> None:
        make, first = self._make, self._count
        assert make is not None
        if not batch:
            self._over = True
            self._let_go()
            return
        self._count += len(batch)
        self._ready = (make(number, values) for number, values in enumerate(batch, first))

    def _let_go(self) -> None:
        self._frame.context.handles.discard(self)
        self._cursor = None

    def __iter__(self) -> Self:
        self._check()
        return self

    def __next__(self) -> T:
        self._check()
        try:
            while (row := next(self._ready, _NONE)) is _NONE:
                if self._over:
                    raise StopIteration
                self._open()
                assert self._cursor is not None
                self._received(self._frame.call(self._operation(), self._cursor.fetch))
        except StopIteration:
            raise
        except BaseException as error:
            self._failed(error)
            self.close()
            raise
        return cast(T, row)

    def __aiter__(self) -> Self:
        self._check()
        return self

    async def __anext__(self) -> T:
        self._check()
        try:
            while (row := next(self._ready, _NONE)) is _NONE:
                if self._over:
                    raise StopAsyncIteration
                await self._open_async()
                assert self._cursor is not None
                self._received(await self._frame.call_async(self._operation(), self._cursor.fetch_async))
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self._failed(error)
            await self.close_async()
            raise
        return cast(T, row)

    # -- the end ----------------------------------------------------------

    def _ending(self, timeout: float | None) -> tuple[Operation, DatabaseCursor | None]:
        limit = check_timeout(timeout, self._frame.timeout)
        cursor, self._closed = self._cursor, True
        self._ready = iter(())
        self._let_go()
        return Operation(STREAM, self._store_name, limit, self._metadata), cursor

    def close(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Let go of the connection; again does nothing.

        Args:
            timeout: seconds; the client's by default.

        Raises:
            DeadlineExceededError: it did not end within ``timeout``.
        """
        op, cursor = self._ending(timeout)
        if cursor is not None and self._leaving(RuntimeError()):
            cursor.close(op)

    async def close_async(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """Let go of the connection; again does nothing.

        Args:
            timeout: seconds; the client's by default.

        Raises:
            DeadlineExceededError: it did not end within ``timeout``.
        """
        op, cursor = self._ending(timeout)
        if cursor is not None and self._leaving(RuntimeError()):
            await cursor.close_async(op)

    def _exit(self, error: BaseException | None) -> None:
        self.close()

    async def _exit_async(self, error: BaseException | None) -> None:
        await self.close_async()

    def _close_by_client(self, end: float | None) -> None:
        self.close(timeout=_CLOSING)
