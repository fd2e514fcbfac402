"""The transaction handle of the database service."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Unpack, cast, overload

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from ..spi import database as spi
from ..spi.database import ExecuteResult, RowSet
from ..spi.operation import Method
from . import _prepare as prepare
from ._rows import STREAM, CallOptions, RowStream, rows
from ._session import TRANSACTION
from ._transaction_tables import TransactionTableMethods
from .types import Row

__all__ = ["TRANSACTION", "DatabaseTransaction"]

T = TypeVar("T")

_QUERY = Method("database", "query", repeatable=False)
_EXECUTE = Method("database", "execute", repeatable=False)
_EXECUTE_MANY = Method("database", "execute_many", repeatable=False)


class DatabaseTransaction(TransactionTableMethods):
    """A transaction; made by `DatabaseService.transaction`.

    The end of its block commits; an exception rolls back, and so do a cancelled task, an interrupt, and every statement that failed or was not done in time, at once, whatever the block does with the error. It holds one connection. Used without a block it begins with its first call and ends by `commit` or `rollback`.
    """

    @overload
    def query(
        self, sql: str, params: Mapping[str, Any] | None = None, *, type: None = None, **options: Unpack[CallOptions]
    ) -> list[Row]: ...
    @overload
    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        type: builtins.type[T],
        **options: Unpack[CallOptions],
    ) -> list[T]: ...
    @overload
    def query(
        self, sql: str, params: Mapping[str, Any] | None = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> list[Any]: ...
    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Args:
            sql: one statement. Parameters are ``:name`` and bound, never formatted. A colon in a literal, a quoted name or a comment is only a colon. So is one in ``::``, or behind a letter, digit or ``_``. Elsewhere write ``\\:``.
            params: name → value, exactly those of the statement.
            type: what to make of each row, strictly; a `Row` by default. A dataclass, TypedDict, NamedTuple, pydantic model or mapping gets the columns by name. A tuple or list gets the values in their order. Anything else gets the only column.
            timeout: seconds; the client's by default, ``None``: no limit. Past it the database stops too.
            metadata: for the component.

        Raises:
            InvalidArgumentError: a missing or surplus parameter, several statements, before any I/O; two columns of one name; SQL or a value that the database refuses.
            NotFoundError: there is no such table.
            PayloadError: a row does not fit ``type``; names the row and the path.
            DeadlineExceededError: the time is up; the transaction is rolled back.
            UnavailableError: the database cannot be reached.
        """
        statement = self._prepared(_QUERY, prepare.query, sql, params, self._mysql)
        return rows(cast("RowSet", self._run(_QUERY, statement, timeout, metadata)), type, self._lacks)

    @overload
    async def query_async(
        self, sql: str, params: Mapping[str, Any] | None = None, *, type: None = None, **options: Unpack[CallOptions]
    ) -> list[Row]: ...
    @overload
    async def query_async(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        type: builtins.type[T],
        **options: Unpack[CallOptions],
    ) -> list[T]: ...
    @overload
    async def query_async(
        self, sql: str, params: Mapping[str, Any] | None = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> list[Any]: ...
    async def query_async(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Args:
            sql: one statement. Parameters are ``:name`` and bound, never formatted. A colon in a literal, a quoted name or a comment is only a colon. So is one in ``::``, or behind a letter, digit or ``_``. Elsewhere write ``\\:``.
            params: name → value, exactly those of the statement.
            type: what to make of each row, strictly; a `Row` by default. A dataclass, TypedDict, NamedTuple, pydantic model or mapping gets the columns by name. A tuple or list gets the values in their order. Anything else gets the only column.
            timeout: seconds; the client's by default, ``None``: no limit. Past it the database stops too.
            metadata: for the component.

        Raises:
            InvalidArgumentError: a missing or surplus parameter, several statements, before any I/O; two columns of one name; SQL or a value that the database refuses.
            NotFoundError: there is no such table.
            PayloadError: a row does not fit ``type``; names the row and the path.
            DeadlineExceededError: the time is up; the transaction is rolled back.
            UnavailableError: the database cannot be reached.
        """
        statement = self._prepared(_QUERY, prepare.query, sql, params, self._mysql)
        return rows(cast("RowSet", await self._run_async(_QUERY, statement, timeout, metadata)), type, self._lacks)

    def execute(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement; rows that it gives are dropped.

        Args:
            sql: one statement; parameters as in `query`.
            params: name → value.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: a unique value exists, or the table to create does.
            ConflictError: another constraint does not hold; a deadlock or a serialization failure, which are ``retryable``.
            InvalidArgumentError, NotFoundError: as in `query`.
        """
        return cast(
            "ExecuteResult",
            self._run(_EXECUTE, self._prepared(_EXECUTE, prepare.execute, sql, params, self._mysql), timeout, metadata),
        )

    async def execute_async(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement; rows that it gives are dropped.

        Args:
            sql: one statement; parameters as in `query`.
            params: name → value.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: a unique value exists, or the table to create does.
            ConflictError: another constraint does not hold; a deadlock or a serialization failure, which are ``retryable``.
            InvalidArgumentError, NotFoundError: as in `query`.
        """
        return cast(
            "ExecuteResult",
            await self._run_async(
                _EXECUTE, self._prepared(_EXECUTE, prepare.execute, sql, params, self._mysql), timeout, metadata
            ),
        )

    def execute_many(
        self,
        sql: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement once for each row of parameters: all, or on any error none. Without rows nothing is done.

        Args:
            sql: one statement; parameters as in `query`.
            rows: of each the same names → values; they are gathered and checked before the first is sent.
            timeout, metadata: as in `query`; the timeout is for all.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `execute`.
        """
        statement = self._prepared(_EXECUTE_MANY, prepare.execute_many, sql, rows, self._mysql)
        if not statement.rows:
            self._check(_EXECUTE_MANY)
            return ExecuteResult(0)
        return cast("ExecuteResult", self._run(_EXECUTE_MANY, statement, timeout, metadata))

    async def execute_many_async(
        self,
        sql: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement once for each row of parameters: all, or on any error none. Without rows nothing is done.

        Args:
            sql: one statement; parameters as in `query`.
            rows: of each the same names → values; they are gathered and checked before the first is sent.
            timeout, metadata: as in `query`; the timeout is for all.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `execute`.
        """
        statement = self._prepared(_EXECUTE_MANY, prepare.execute_many, sql, rows, self._mysql)
        if not statement.rows:
            self._check(_EXECUTE_MANY)
            return ExecuteResult(0)
        return cast("ExecuteResult", await self._run_async(_EXECUTE_MANY, statement, timeout, metadata))

    @overload
    def stream(
        self, sql: str, params: Mapping[str, Any] | None = None, *, type: None = None, **options: Unpack[CallOptions]
    ) -> RowStream[Row]: ...
    @overload
    def stream(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        type: builtins.type[T],
        **options: Unpack[CallOptions],
    ) -> RowStream[T]: ...
    @overload
    def stream(
        self, sql: str, params: Mapping[str, Any] | None = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> RowStream[Any]: ...
    def stream(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> RowStream[Any]:
        """Return a handle on the rows of a statement: ``for`` or ``async for`` gives them as they come, in constant memory.

        It ends with the transaction.

        Args:
            sql, params, type, metadata: as in `query`.
            timeout: seconds for the opening and for each step, not for all rows.

        Raises:
            InvalidArgumentError: as in `query`. The steps raise the other errors of `query`.
            UnsupportedError: the component cannot stream.
        """
        statement = self._prepared(STREAM, prepare.query, sql, params, self._mysql)
        self._service._need(self._driver, spi.STREAM, "stream", self._store_name)
        check_timeout(timeout)
        check_metadata(metadata)
        return RowStream(self._service, self._store_name, self._driver, statement, type, timeout, metadata, self)
