"""The half of `DatabaseService` that needs no SQL: tables, and rows as mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from .._core.arguments import CLIENT_TIMEOUT, check_metadata, check_timeout
from .._service import Service, error_context
from ..spi import database as spi
from ..spi.database import (
    Column,
    ColumnKind,
    DatabaseDriver,
    DescribeTable,
    DropTable,
    ExecuteResult,
    ListTables,
    TableSchema,
)
from ..spi.operation import Method, Operation
from . import prepare

TABLES = Method("database", "tables", repeatable=True, writes=False)
TABLE_SCHEMA = Method("database", "table_schema", repeatable=True, writes=False)
CREATE_TABLE = Method("database", "create_table", repeatable=False)
DROP_TABLE = Method("database", "drop_table", repeatable=True)
INSERT = Method("database", "insert", repeatable=False)
UPDATE = Method("database", "update", repeatable=False)


class TableMethods(Service):
    """The methods of `DatabaseService` that need no SQL."""

    name = "database"

    def _operation(
        self, method: Method, store_name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> Operation:
        check_metadata(metadata)
        return Operation(method, store_name, check_timeout(timeout, self._frame.timeout), metadata)

    def _with_schema(
        self, method: Method, store_name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> tuple[DatabaseDriver, Operation]:
        driver: DatabaseDriver = self._frame.driver(store_name)
        self._frame.need(driver, spi.SCHEMA, method.name, store_name)
        return driver, self._operation(method, store_name, timeout, metadata)

    @error_context(TABLES)
    def tables(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the names of the tables of the connection's own schema, sorted.

        Args:
            store_name, timeout, metadata: as in `query`.

        Raises:
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        driver, op = self._with_schema(TABLES, store_name, timeout, metadata)
        return cast("list[str]", self._frame.call(op, driver.run, ListTables()))

    @error_context(TABLES)
    async def tables_async(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the names of the tables of the connection's own schema, sorted.

        Args:
            store_name, timeout, metadata: as in `query`.

        Raises:
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        driver, op = self._with_schema(TABLES, store_name, timeout, metadata)
        return cast("list[str]", await self._frame.call_async(op, driver.run_async, ListTables()))

    @error_context(TABLE_SCHEMA)
    def table_schema(
        self,
        store_name: str,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> TableSchema:
        """Return a table's columns.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name, or ``schema.table``; upper and lower case are different where the database tells them apart.

        Raises:
            NotFoundError: there is no such table.
        """
        driver, op = self._with_schema(TABLE_SCHEMA, store_name, timeout, metadata)
        return cast("TableSchema", self._frame.call(op, driver.run, DescribeTable(prepare.check_table(table))))

    @error_context(TABLE_SCHEMA)
    async def table_schema_async(
        self,
        store_name: str,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> TableSchema:
        """Return a table's columns.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name, or ``schema.table``; upper and lower case are different where the database tells them apart.

        Raises:
            NotFoundError: there is no such table.
        """
        driver, op = self._with_schema(TABLE_SCHEMA, store_name, timeout, metadata)
        return cast(
            "TableSchema", await self._frame.call_async(op, driver.run_async, DescribeTable(prepare.check_table(table)))
        )

    @error_context(CREATE_TABLE)
    def create_table(
        self,
        store_name: str,
        table: str,
        columns: Mapping[str, Column | ColumnKind | type[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make a table.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name, or ``schema.table``: letters, digits and ``_``, at most 63 bytes.
            columns: name → `Column`, one of its kinds (``"integer"``), or a Python type (``int``).

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        driver, op = self._with_schema(CREATE_TABLE, store_name, timeout, metadata)
        self._frame.call(op, driver.run, prepare.create_table(table, columns))

    @error_context(CREATE_TABLE)
    async def create_table_async(
        self,
        store_name: str,
        table: str,
        columns: Mapping[str, Column | ColumnKind | type[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make a table.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name, or ``schema.table``: letters, digits and ``_``, at most 63 bytes.
            columns: name → `Column`, one of its kinds (``"integer"``), or a Python type (``int``).

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        driver, op = self._with_schema(CREATE_TABLE, store_name, timeout, metadata)
        await self._frame.call_async(op, driver.run_async, prepare.create_table(table, columns))

    @error_context(DROP_TABLE)
    def drop_table(
        self,
        store_name: str,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Drop a table with its rows; an absent one is fine.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name, or ``schema.table``.

        Raises:
            ConflictError: others refer to it.
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        driver, op = self._with_schema(DROP_TABLE, store_name, timeout, metadata)
        self._frame.call(op, driver.run, DropTable(prepare.check_table(table)))

    @error_context(DROP_TABLE)
    async def drop_table_async(
        self,
        store_name: str,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Drop a table with its rows; an absent one is fine.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name, or ``schema.table``.

        Raises:
            ConflictError: others refer to it.
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        driver, op = self._with_schema(DROP_TABLE, store_name, timeout, metadata)
        await self._frame.call_async(op, driver.run_async, DropTable(prepare.check_table(table)))

    @error_context(INSERT)
    def insert(
        self,
        store_name: str,
        table: str,
        values: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Insert one row; returns one row, and the key that the database gave it.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name.
            values: column → value; the other columns get their defaults.

        Raises:
            AlreadyExistsError: a row with such a unique value exists.
            ConflictError: another constraint does not hold.
            NotFoundError: there is no such table.
        """
        driver, op = self._with_schema(INSERT, store_name, timeout, metadata)
        return cast("ExecuteResult", self._frame.call(op, driver.run, prepare.insert(table, values)))

    @error_context(INSERT)
    async def insert_async(
        self,
        store_name: str,
        table: str,
        values: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Insert one row; returns one row, and the key that the database gave it.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name.
            values: column → value; the other columns get their defaults.

        Raises:
            AlreadyExistsError: a row with such a unique value exists.
            ConflictError: another constraint does not hold.
            NotFoundError: there is no such table.
        """
        driver, op = self._with_schema(INSERT, store_name, timeout, metadata)
        return cast("ExecuteResult", await self._frame.call_async(op, driver.run_async, prepare.insert(table, values)))

    @error_context(UPDATE)
    def update(
        self,
        store_name: str,
        table: str,
        values: Mapping[str, Any],
        where: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Update the rows whose columns equal ``where``; returns how many were.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name.
            values: column → new value.
            where: column → value that it must have, all of them; ``None``: NULL. Empty is refused: it would update every row.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `insert`.
        """
        driver, op = self._with_schema(UPDATE, store_name, timeout, metadata)
        return cast("ExecuteResult", self._frame.call(op, driver.run, prepare.update(table, values, where)))

    @error_context(UPDATE)
    async def update_async(
        self,
        store_name: str,
        table: str,
        values: Mapping[str, Any],
        where: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Update the rows whose columns equal ``where``; returns how many were.

        Args:
            store_name, timeout, metadata: as in `query`.
            table: its name.
            values: column → new value.
            where: column → value that it must have, all of them; ``None``: NULL. Empty is refused: it would update every row.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `insert`.
        """
        driver, op = self._with_schema(UPDATE, store_name, timeout, metadata)
        return cast(
            "ExecuteResult", await self._frame.call_async(op, driver.run_async, prepare.update(table, values, where))
        )
