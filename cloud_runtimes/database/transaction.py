"""The transaction handle of the database service."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any, Unpack, cast, overload

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._service import error_context
from ..spi import database as spi
from ..spi.database import Column, ColumnKind, DescribeTable, DropTable, ExecuteResult, ListTables, RowSet, TableSchema
from . import prepare
from ._rows import EXECUTE, EXECUTE_MANY, QUERY_WRITES, STREAM, CallOptions, RowStream, rows
from ._session import TRANSACTION, Transaction
from ._tables import CREATE_TABLE, DROP_TABLE, INSERT, TABLE_SCHEMA, TABLES, UPDATE
from .types import Params, T

__all__ = ["TRANSACTION", "DatabaseTransaction"]


class DatabaseTransaction(Transaction):
    """A transaction; made by `DatabaseService.transaction`.

    The end of its block commits; an exception rolls back, and so do a cancelled task, an interrupt, and every statement that failed or was not done in time, at once, whatever the block does with the error. It holds one connection. Used without a block it begins with its first call and ends by `commit` or `rollback`.

    Its methods are those of `DatabaseService`, without the name of the store. After a timeout the transaction is rolled back.
    """

    @overload
    def query(
        self, sql: str, params: Params = None, *, type: builtins.type[T] | None = None, **options: Unpack[CallOptions]
    ) -> list[T]: ...
    @overload
    def query(self, sql: str, params: Params = None, *, type: Any, **options: Unpack[CallOptions]) -> list[Any]: ...
    @error_context(QUERY_WRITES, named=False)
    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Args:
            sql, params, type, metadata: as in `DatabaseService.query`.
            timeout: seconds; the client's by default, ``None``: no limit. Past it the database stops too.

        Raises:
            InvalidArgumentError, NotFoundError, PayloadError, UnavailableError: as in `DatabaseService.query`.
            DeadlineExceededError: the time is up; the transaction is rolled back.
            ClosedError: it has ended, or was rolled back since a statement failed.
        """
        statement = prepare.query(sql, params, self._mysql)
        return rows(cast("RowSet", self._run(QUERY_WRITES, statement, timeout, metadata)), type, self._lacks)

    @overload
    async def query_async(
        self, sql: str, params: Params = None, *, type: builtins.type[T] | None = None, **options: Unpack[CallOptions]
    ) -> list[T]: ...
    @overload
    async def query_async(
        self, sql: str, params: Params = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> list[Any]: ...
    @error_context(QUERY_WRITES, named=False)
    async def query_async(
        self,
        sql: str,
        params: Params = None,
        *,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Args:
            sql, params, type, metadata: as in `DatabaseService.query`.
            timeout: seconds; the client's by default, ``None``: no limit. Past it the database stops too.

        Raises:
            InvalidArgumentError, NotFoundError, PayloadError, UnavailableError: as in `DatabaseService.query`.
            DeadlineExceededError: the time is up; the transaction is rolled back.
            ClosedError: it has ended, or was rolled back since a statement failed.
        """
        statement = prepare.query(sql, params, self._mysql)
        return rows(
            cast("RowSet", await self._run_async(QUERY_WRITES, statement, timeout, metadata)), type, self._lacks
        )

    @error_context(EXECUTE, named=False)
    def execute(
        self,
        sql: str,
        params: Params = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement; rows that it gives are dropped.

        Args:
            sql, params, timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `DatabaseService.execute`.
        """
        statement = prepare.execute(sql, params, self._mysql)
        return cast("ExecuteResult", self._run(EXECUTE, statement, timeout, metadata))

    @error_context(EXECUTE, named=False)
    async def execute_async(
        self,
        sql: str,
        params: Params = None,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Run one statement; rows that it gives are dropped.

        Args:
            sql, params, timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `DatabaseService.execute`.
        """
        statement = prepare.execute(sql, params, self._mysql)
        return cast("ExecuteResult", await self._run_async(EXECUTE, statement, timeout, metadata))

    @error_context(EXECUTE_MANY, named=False)
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
            sql, rows: as in `DatabaseService.execute_many`.
            timeout, metadata: as in `query`; the timeout is for all.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `DatabaseService.execute`.
        """
        statement = prepare.execute_many(sql, rows, self._mysql)
        if not statement.rows:
            self._check()
            return ExecuteResult(0)
        return cast("ExecuteResult", self._run(EXECUTE_MANY, statement, timeout, metadata))

    @error_context(EXECUTE_MANY, named=False)
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
            sql, rows: as in `DatabaseService.execute_many`.
            timeout, metadata: as in `query`; the timeout is for all.

        Raises:
            AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError: as in `DatabaseService.execute`.
        """
        statement = prepare.execute_many(sql, rows, self._mysql)
        if not statement.rows:
            self._check()
            return ExecuteResult(0)
        return cast("ExecuteResult", await self._run_async(EXECUTE_MANY, statement, timeout, metadata))

    @overload
    def stream(
        self, sql: str, params: Params = None, *, type: builtins.type[T] | None = None, **options: Unpack[CallOptions]
    ) -> RowStream[T]: ...
    @overload
    def stream(
        self, sql: str, params: Params = None, *, type: Any, **options: Unpack[CallOptions]
    ) -> RowStream[Any]: ...
    @error_context(STREAM, named=False)
    def stream(
        self,
        sql: str,
        params: Params = None,
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
        statement = prepare.query(sql, params, self._mysql)
        self._frame.need(self._driver, spi.STREAM, "stream", self._store_name)
        check_timeout(timeout)
        check_metadata(metadata)
        return RowStream(self, self._store_name, self._driver, statement, type, timeout, metadata, self)

    # -- without SQL ------------------------------------------------------

    @error_context(TABLES, named=False)
    def tables(self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None) -> list[str]:
        """Return the names of the tables of the connection's own schema, sorted.

        Args:
            timeout, metadata: as in `query`.

        Raises:
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        return cast("list[str]", self._run(TABLES, ListTables(), timeout, metadata))

    @error_context(TABLES, named=False)
    async def tables_async(
        self, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the names of the tables of the connection's own schema, sorted.

        Args:
            timeout, metadata: as in `query`.

        Raises:
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        return cast("list[str]", await self._run_async(TABLES, ListTables(), timeout, metadata))

    @error_context(TABLE_SCHEMA, named=False)
    def table_schema(
        self, table: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> TableSchema:
        """Return a table's columns.

        Args:
            table: as in `DatabaseService.table_schema`.
            timeout, metadata: as in `query`.

        Raises:
            NotFoundError: there is no such table.
        """
        return cast(
            "TableSchema", self._run(TABLE_SCHEMA, DescribeTable(prepare.check_table(table)), timeout, metadata)
        )

    @error_context(TABLE_SCHEMA, named=False)
    async def table_schema_async(
        self, table: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> TableSchema:
        """Return a table's columns.

        Args:
            table: as in `DatabaseService.table_schema`.
            timeout, metadata: as in `query`.

        Raises:
            NotFoundError: there is no such table.
        """
        statement = DescribeTable(prepare.check_table(table))
        return cast("TableSchema", await self._run_async(TABLE_SCHEMA, statement, timeout, metadata))

    @error_context(CREATE_TABLE, named=False)
    def create_table(
        self,
        table: str,
        columns: Mapping[str, Column | ColumnKind | type[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make a table.

        Args:
            table, columns: as in `DatabaseService.create_table`.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        self._run(CREATE_TABLE, prepare.create_table(table, columns), timeout, metadata)

    @error_context(CREATE_TABLE, named=False)
    async def create_table_async(
        self,
        table: str,
        columns: Mapping[str, Column | ColumnKind | type[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make a table.

        Args:
            table, columns: as in `DatabaseService.create_table`.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        await self._run_async(CREATE_TABLE, prepare.create_table(table, columns), timeout, metadata)

    @error_context(DROP_TABLE, named=False)
    def drop_table(
        self, table: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Drop a table with its rows; an absent one is fine.

        Args:
            table: its name, or ``schema.table``.
            timeout, metadata: as in `query`.

        Raises:
            ConflictError: others refer to it.
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        self._run(DROP_TABLE, DropTable(prepare.check_table(table)), timeout, metadata)

    @error_context(DROP_TABLE, named=False)
    async def drop_table_async(
        self, table: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Drop a table with its rows; an absent one is fine.

        Args:
            table: its name, or ``schema.table``.
            timeout, metadata: as in `query`.

        Raises:
            ConflictError: others refer to it.
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        await self._run_async(DROP_TABLE, DropTable(prepare.check_table(table)), timeout, metadata)

    @error_context(INSERT, named=False)
    def insert(
        self,
        table: str,
        values: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Insert one row; returns one row, and the key that the database gave it.

        Args:
            table, values: as in `DatabaseService.insert`.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `DatabaseService.insert`.
        """
        return cast("ExecuteResult", self._run(INSERT, prepare.insert(table, values), timeout, metadata))

    @error_context(INSERT, named=False)
    async def insert_async(
        self,
        table: str,
        values: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Insert one row; returns one row, and the key that the database gave it.

        Args:
            table, values: as in `DatabaseService.insert`.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `DatabaseService.insert`.
        """
        return cast("ExecuteResult", await self._run_async(INSERT, prepare.insert(table, values), timeout, metadata))

    @error_context(UPDATE, named=False)
    def update(
        self,
        table: str,
        values: Mapping[str, Any],
        where: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Update the rows whose columns equal ``where``; returns how many were.

        Args:
            table, values, where: as in `DatabaseService.update`.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `DatabaseService.insert`.
        """
        return cast("ExecuteResult", self._run(UPDATE, prepare.update(table, values, where), timeout, metadata))

    @error_context(UPDATE, named=False)
    async def update_async(
        self,
        table: str,
        values: Mapping[str, Any],
        where: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Update the rows whose columns equal ``where``; returns how many were.

        Args:
            table, values, where: as in `DatabaseService.update`.
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `DatabaseService.insert`.
        """
        statement = prepare.update(table, values, where)
        return cast("ExecuteResult", await self._run_async(UPDATE, statement, timeout, metadata))
