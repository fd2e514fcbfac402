"""The half of `DatabaseTransaction` that needs no SQL: tables, and rows as mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from .._core.arguments import CLIENT_TIMEOUT
from ..spi.database import Column, ColumnKind, ExecuteResult, ListTables, TableSchema
from ..spi.operation import Method
from . import _prepare as prepare
from ._session import Transaction

__all__ = ["TransactionTableMethods"]

_TABLES = Method("database", "tables", repeatable=False, writes=False)
_TABLE_SCHEMA = Method("database", "table_schema", repeatable=False, writes=False)
_CREATE_TABLE = Method("database", "create_table", repeatable=False)
_DROP_TABLE = Method("database", "drop_table", repeatable=False)
_INSERT = Method("database", "insert", repeatable=False)
_UPDATE = Method("database", "update", repeatable=False)


class TransactionTableMethods(Transaction):
    """The methods of `DatabaseTransaction` that need no SQL."""

    def tables(
        self,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return the names of the tables of the connection's own schema, sorted.

        Args:
            timeout, metadata: as in `query`.

        Raises:
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        return cast("list[str]", self._run(_TABLES, ListTables(), timeout, metadata))

    async def tables_async(
        self,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return the names of the tables of the connection's own schema, sorted.

        Args:
            timeout, metadata: as in `query`.

        Raises:
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        return cast("list[str]", await self._run_async(_TABLES, ListTables(), timeout, metadata))

    def table_schema(
        self,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> TableSchema:
        """Return a table's columns.

        Args:
            table: its name, or ``schema.table``; upper and lower case are different where the database tells them apart.
            timeout, metadata: as in `query`.

        Raises:
            NotFoundError: there is no such table.
        """
        return cast(
            "TableSchema",
            self._run(_TABLE_SCHEMA, self._prepared(_TABLE_SCHEMA, prepare.describe_table, table), timeout, metadata),
        )

    async def table_schema_async(
        self,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> TableSchema:
        """Return a table's columns.

        Args:
            table: its name, or ``schema.table``; upper and lower case are different where the database tells them apart.
            timeout, metadata: as in `query`.

        Raises:
            NotFoundError: there is no such table.
        """
        return cast(
            "TableSchema",
            await self._run_async(
                _TABLE_SCHEMA, self._prepared(_TABLE_SCHEMA, prepare.describe_table, table), timeout, metadata
            ),
        )

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
            table: its name, or ``schema.table``: letters, digits and ``_``, at most 63 bytes.
            columns: name → `Column`, one of its kinds (``"integer"``), or a Python type (``int``).
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        self._run(_CREATE_TABLE, self._prepared(_CREATE_TABLE, prepare.create_table, table, columns), timeout, metadata)

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
            table: its name, or ``schema.table``: letters, digits and ``_``, at most 63 bytes.
            columns: name → `Column`, one of its kinds (``"integer"``), or a Python type (``int``).
            timeout, metadata: as in `query`.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        await self._run_async(
            _CREATE_TABLE, self._prepared(_CREATE_TABLE, prepare.create_table, table, columns), timeout, metadata
        )

    def drop_table(
        self,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Drop a table with its rows; an absent one is fine.

        Args:
            table: its name, or ``schema.table``.
            timeout, metadata: as in `query`.

        Raises:
            ConflictError: others refer to it.
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        self._run(_DROP_TABLE, self._prepared(_DROP_TABLE, prepare.drop_table, table), timeout, metadata)

    async def drop_table_async(
        self,
        table: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Drop a table with its rows; an absent one is fine.

        Args:
            table: its name, or ``schema.table``.
            timeout, metadata: as in `query`.

        Raises:
            ConflictError: others refer to it.
            InvalidArgumentError, DeadlineExceededError, UnavailableError: as in `query`.
        """
        await self._run_async(_DROP_TABLE, self._prepared(_DROP_TABLE, prepare.drop_table, table), timeout, metadata)

    def insert(
        self,
        table: str,
        values: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Insert one row.

        Args:
            table: its name.
            values: column → value; the other columns get their defaults.
            timeout, metadata: as in `query`.

        Returns:
            One row, and the key that the database gave it.

        Raises:
            AlreadyExistsError: a row with such a unique value exists.
            ConflictError: another constraint does not hold.
            NotFoundError: there is no such table.
        """
        return cast(
            "ExecuteResult",
            self._run(_INSERT, self._prepared(_INSERT, prepare.insert, table, values), timeout, metadata),
        )

    async def insert_async(
        self,
        table: str,
        values: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Insert one row.

        Args:
            table: its name.
            values: column → value; the other columns get their defaults.
            timeout, metadata: as in `query`.

        Returns:
            One row, and the key that the database gave it.

        Raises:
            AlreadyExistsError: a row with such a unique value exists.
            ConflictError: another constraint does not hold.
            NotFoundError: there is no such table.
        """
        return cast(
            "ExecuteResult",
            await self._run_async(_INSERT, self._prepared(_INSERT, prepare.insert, table, values), timeout, metadata),
        )

    def update(
        self,
        table: str,
        values: Mapping[str, Any],
        where: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Update the rows whose columns equal ``where``.

        Args:
            table: its name.
            values: column → new value.
            where: column → value that it must have, all of them; ``None``: NULL. Empty is refused: it would update every row.
            timeout, metadata: as in `query`.

        Returns:
            How many rows were updated.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `insert`.
        """
        return cast(
            "ExecuteResult",
            self._run(_UPDATE, self._prepared(_UPDATE, prepare.update, table, values, where), timeout, metadata),
        )

    async def update_async(
        self,
        table: str,
        values: Mapping[str, Any],
        where: Mapping[str, Any],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> ExecuteResult:
        """Update the rows whose columns equal ``where``.

        Args:
            table: its name.
            values: column → new value.
            where: column → value that it must have, all of them; ``None``: NULL. Empty is refused: it would update every row.
            timeout, metadata: as in `query`.

        Returns:
            How many rows were updated.

        Raises:
            AlreadyExistsError, ConflictError, NotFoundError: as in `insert`.
        """
        return cast(
            "ExecuteResult",
            await self._run_async(
                _UPDATE, self._prepared(_UPDATE, prepare.update, table, values, where), timeout, metadata
            ),
        )
