"""`DatabaseService`: what `client.database` is."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any, Unpack, cast, overload

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._service import error_context
from ..spi import database as spi
from ..spi.database import ExecuteResult, Isolation, RowSet
from ..spi.operation import Method
from . import prepare
from ._rows import EXECUTE, EXECUTE_MANY, QUERY_WRITES, STREAM, CallOptions, RowStream, rows
from ._tables import TableMethods
from .transaction import TRANSACTION, DatabaseTransaction
from .types import Params, T

_QUERY = Method("database", "query", repeatable=True, writes=False)


class DatabaseService(TableMethods):
    """SQL over whatever database a name stands for (alpha).

    The SQL is the database's own; parameters, results, errors and transactions are the same everywhere. A call outside of a transaction is one by itself. A `query` that looks like a read (SELECT, VALUES, TABLE, SHOW, EXPLAIN, WITH, and no word of writing) is repeated after a transient failure, nothing else is.
    """

    @overload
    def query(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        type: builtins.type[T] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[T]: ...
    @overload
    def query(
        self, store_name: str, sql: str, params: Params = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> list[Any]: ...
    @error_context(_QUERY)
    def query(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Args:
            store_name: the component.
            sql: one statement. Parameters are ``:name`` and bound, never formatted. A colon in a literal, a quoted name or a comment is only a colon. So is one in ``::``, or behind a letter, digit or ``_``. Elsewhere write ``\\:``.
            params: name → value, exactly those of the statement.
            type: what to make of each row, strictly; a `Row` by default. A dataclass, TypedDict, NamedTuple, pydantic model or mapping gets the columns by name. A tuple or list gets the values in their order. Anything else gets the only column.
            timeout: seconds, retries included; the client's by default, ``None``: no limit. Past it the database stops too.
            metadata: for the component.

        Raises:
            InvalidArgumentError: a missing or surplus parameter, several statements, before any I/O; two columns of one name; SQL or a value that the database refuses.
            NotFoundError: there is no such table.
            PayloadError: a row does not fit ``type``; names the row and the path.
            DeadlineExceededError: the time is up.
            UnavailableError: the database cannot be reached.
        """
        driver = self._frame.driver(store_name)
        statement = prepare.query(sql, params, driver.mysql)
        op = self._operation(_QUERY if statement.sql.reads else QUERY_WRITES, store_name, timeout, metadata)
        return rows(cast("RowSet", self._frame.call(op, driver.run, statement)), type, driver.lacks)

    @overload
    async def query_async(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        type: builtins.type[T] | None = None,
        **options: Unpack[CallOptions],
    ) -> list[T]: ...
    @overload
    async def query_async(
        self, store_name: str, sql: str, params: Params = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> list[Any]: ...
    @error_context(_QUERY)
    async def query_async(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Args:
            store_name: the component.
            sql: one statement. Parameters are ``:name`` and bound, never formatted. A colon in a literal, a quoted name or a comment is only a colon. So is one in ``::``, or behind a letter, digit or ``_``. Elsewhere write ``\\:``.
            params: name → value, exactly those of the statement.
            type: what to make of each row, strictly; a `Row` by default. A dataclass, TypedDict, NamedTuple, pydantic model or mapping gets the columns by name. A tuple or list gets the values in their order. Anything else gets the only column.
            timeout: seconds, retries included; the client's by default, ``None``: no limit. Past it the database stops too.
            metadata: for the component.

        Raises:
            InvalidArgumentError: a missing or surplus parameter, several statements, before any I/O; two columns of one name; SQL or a value that the database refuses.
            NotFoundError: there is no such table.
            PayloadError: a row does not fit ``type``; names the row and the path.
            DeadlineExceededError: the time is up.
            UnavailableError: the database cannot be reached.
        """
        driver = self._frame.driver(store_name)
        statement = prepare.query(sql, params, driver.mysql)
        op = self._operation(_QUERY if statement.sql.reads else QUERY_WRITES, store_name, timeout, metadata)
        return rows(cast("RowSet", await self._frame.call_async(op, driver.run_async, statement)), type, driver.lacks)

    @error_context(EXECUTE)
    def execute(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement in a transaction of its own; rows that it gives are dropped.

        Args:
            store_name, sql, params, timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: a unique value exists, or the table to create does.
            ConflictError: another constraint does not hold; a deadlock or a serialization failure, which are ``retryable``.
            InvalidArgumentError, NotFoundError: as in `query`.
        """
        driver = self._frame.driver(store_name)
        op = self._operation(EXECUTE, store_name, timeout, metadata)
        return cast("ExecuteResult", self._frame.call(op, driver.run, prepare.execute(sql, params, driver.mysql)))

    @error_context(EXECUTE)
    async def execute_async(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement in a transaction of its own; rows that it gives are dropped.

        Args:
            store_name, sql, params, timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: a unique value exists, or the table to create does.
            ConflictError: another constraint does not hold; a deadlock or a serialization failure, which are ``retryable``.
            InvalidArgumentError, NotFoundError: as in `query`.
        """
        driver = self._frame.driver(store_name)
        op = self._operation(EXECUTE, store_name, timeout, metadata)
        return cast(
            "ExecuteResult",
            await self._frame.call_async(op, driver.run_async, prepare.execute(sql, params, driver.mysql)),
        )

    @error_context(EXECUTE_MANY)
    def execute_many(
        self,
        store_name: str,
        sql: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement once for each row of parameters: all, or on any error none. Without rows nothing is done.

        Args:
            store_name, sql, timeout, metadata: as in `query`; the timeout is for all.
            rows: of each the same names → values; they are gathered and checked before the first is sent.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `execute`.
        """
        driver = self._frame.driver(store_name)
        self._frame.need(driver, spi.EXECUTE_MANY, "execute_many", store_name)
        statement = prepare.execute_many(sql, rows, driver.mysql)
        op = self._operation(EXECUTE_MANY, store_name, timeout, metadata)
        if not statement.rows:
            return ExecuteResult(0)
        return cast("ExecuteResult", self._frame.call(op, driver.run, statement))

    @error_context(EXECUTE_MANY)
    async def execute_many_async(
        self,
        store_name: str,
        sql: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement once for each row of parameters: all, or on any error none. Without rows nothing is done.

        Args:
            store_name, sql, timeout, metadata: as in `query`; the timeout is for all.
            rows: of each the same names → values; they are gathered and checked before the first is sent.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `execute`.
        """
        driver = self._frame.driver(store_name)
        self._frame.need(driver, spi.EXECUTE_MANY, "execute_many", store_name)
        statement = prepare.execute_many(sql, rows, driver.mysql)
        op = self._operation(EXECUTE_MANY, store_name, timeout, metadata)
        if not statement.rows:
            return ExecuteResult(0)
        return cast("ExecuteResult", await self._frame.call_async(op, driver.run_async, statement))

    @overload
    def stream(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        type: builtins.type[T] | None = None,
        **options: Unpack[CallOptions],
    ) -> RowStream[T]: ...
    @overload
    def stream(
        self, store_name: str, sql: str, params: Params = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> RowStream[Any]: ...
    @error_context(STREAM)
    def stream(
        self,
        store_name: str,
        sql: str,
        params: Params = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> RowStream[Any]:
        """Return a handle on the rows of a statement: ``for`` or ``async for`` gives them as they come, in constant memory.

        What the statement changes is committed once all rows were read. Otherwise it is rolled back.

        Args:
            store_name: the component.
            sql, params, type, metadata: as in `query`.
            timeout: seconds for the opening and for each step, not for all rows.

        Raises:
            InvalidArgumentError: as in `query`. The steps raise the other errors of `query`.
            UnsupportedError: the component cannot stream.

        >>> with client.database.stream("main", "SELECT id FROM orders", type=int) as ids:  # doctest: +SKIP
        ...     for id in ids: ...
        """
        driver = self._frame.driver(store_name)
        self._frame.need(driver, spi.STREAM, "stream", store_name)
        statement = prepare.query(sql, params, driver.mysql)
        check_timeout(timeout)
        check_metadata(metadata)
        return RowStream(self, store_name, driver, statement, type, timeout, metadata, None)

    @error_context(TRANSACTION)
    def transaction(
        self,
        store_name: str,
        isolation: Isolation | None = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> DatabaseTransaction:
        """Return a handle that begins a transaction when its block begins, commits when it ends, and rolls back when an exception leaves it.

        Args:
            store_name: the component.
            isolation: the least that it must have; ``None``: the database's default. SQLite's is always ``"serializable"``, one writing transaction at a time.
            timeout: seconds for the beginning, and for the end.
            metadata: for the component.

        Raises:
            UnsupportedError: the component has no transactions, or no choice of isolation.
            InvalidArgumentError: there is no such isolation.
            UnavailableError, DeadlineExceededError: on entering or leaving, as in `query`.

        >>> with client.database.transaction("main") as tx:  # doctest: +SKIP
        ...     tx.execute("UPDATE accounts SET balance = balance - :n WHERE id = :id", {"n": 5, "id": 1})
        ...     tx.execute("UPDATE accounts SET balance = balance + :n WHERE id = :id", {"n": 5, "id": 2})
        """
        driver = self._frame.driver(store_name)
        self._frame.need(driver, spi.TRANSACTION, "transaction", store_name)
        prepare.check_isolation(isolation)
        if isolation is not None:
            self._frame.need(driver, spi.ISOLATION, "isolation=", store_name)
        check_timeout(timeout)
        check_metadata(metadata)
        return DatabaseTransaction(self, store_name, driver, isolation, timeout, metadata)
