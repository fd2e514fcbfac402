"""Connection and the operations on it; blocking code, which threads of the pool run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from ...errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ...spi import database as spi
from ...spi.change import Change
from ...spi.database import ColumnInfo, ExecuteResult, Isolation, Outcome, RowSet, Statement, TableSchema
from ...spi.sql import Sql
from .calls import Call
from .failures import is_busy
from .values import bound, column, quoted

if TYPE_CHECKING:
    from .pool import ConnectionPool

R = TypeVar("R")

_LEVELS: Final[Mapping[Isolation, str]] = {
    "read-uncommitted": "READ UNCOMMITTED",
    "read-committed": "READ COMMITTED",
    "repeatable-read": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}
CHUNK: Final = 1000
"""Rows of a stream fetched at once."""
_KEPT: Final = 8192
"""Characters of the longest text that is kept compiled."""


class Connection:
    """A connection of a pool, in the hands of one call or transaction."""

    def __init__(self, pool: ConnectionPool, connection: sa.Connection) -> None:
        self._pool = pool
        self._connection = connection
        self._dialect = connection.dialect.name
        self._results: list[sa.CursorResult[Any]] = []
        self._soiled = False

    def step(self, call: Call[Any], work: Callable[..., R], *arguments: Any) -> R:
        """Do something for a call, which can be interrupted meanwhile. After an interrupt nobody else may have the connection."""
        target = asyncio.current_task() if self._pool.is_async else self._connection.connection.driver_connection
        try:
            with call.interruptible(target):
                return work(*arguments)
        except BaseException as error:
            self._soiled |= not isinstance(error, Exception) or getattr(error, "connection_invalidated", False)
            raise
        finally:
            self._soiled |= call.is_stopped

    def soil(self) -> None:
        """Have it closed, and given to nobody else."""
        self._soiled = True

    # -- transactions -----------------------------------------------------

    def begin(self, call: Call[Any], isolation: Isolation | None, *, writing: bool) -> None:
        """Begin; on SQLite the write lock is taken at once, since one taken later could only fail."""
        if self._dialect == "sqlite":
            self.step(call, self._begin_sqlite, call, "BEGIN IMMEDIATE" if writing else "BEGIN")
        elif isolation is not None:
            self.step(call, self._isolate, isolation)

    def _begin_sqlite(self, call: Call[Any], sql: str) -> None:
        while True:
            try:
                self._connection.exec_driver_sql(sql)
                return
            except sa.exc.OperationalError as error:
                # somebody who does not take turns, such as a shell
                if not is_busy(error):
                    raise
                call.check()

    def _isolate(self, isolation: Isolation) -> None:
        raw: Any = self._connection.connection.dbapi_connection
        known = self._connection.dialect.get_isolation_level_values(raw)
        strong = list(_LEVELS.values())[list(_LEVELS).index(isolation) :]
        level = next((each for each in strong if each in known), None)
        if level is None:
            raise UnsupportedError(f"isolation {isolation!r} is not supported by {self._dialect}")
        self._connection.execution_options(isolation_level=level)

    def autocommit(self, call: Call[Any]) -> None:
        """For statements that no transaction may hold."""
        if self._dialect != "sqlite":  # there nothing begins by itself
            self.step(call, lambda: self._connection.execution_options(isolation_level="AUTOCOMMIT"))

    def commit(self, call: Call[Any]) -> None:
        """Commit."""
        call.commit()
        self.step(call, self._commit)

    def _commit(self) -> None:
        self._close_results()
        self._connection.commit()

    def apply(self, call: Call[Any], changes: Sequence[Change]) -> None:
        """Write changes of other components."""
        self.step(call, self._apply, changes)

    def _apply(self, changes: Sequence[Change]) -> None:
        self._close_results()
        self._connection.exec_driver_sql("SELECT 1").close()  # begins, where no statement has
        for change in changes:
            change.apply(self._connection.connection.driver_connection)

    def _close_results(self) -> None:
        while self._results:
            self._results.pop().close()

    def close(self) -> None:
        """Roll back what was not committed, and give the connection back; close it where it is not as it was."""
        keep = self._pool.memory or not (self._soiled or self._pool.closed)
        for step in (
            self._close_results,
            self._connection.rollback if keep else self._connection.invalidate,
            self._connection.close,
        ):
            with suppress(Exception):  # it is gone; the pool makes another
                step()

    # -- statements -------------------------------------------------------

    def run(self, call: Call[Any], statement: Statement) -> Outcome:
        """Run one."""
        return self.step(call, self._run, statement)

    def _run(self, statement: Statement) -> Outcome:
        run: Callable[[Any], Outcome] = getattr(self, f"_{type(statement).__name__.lower()}")
        if not isinstance(statement, (spi.Query, spi.Execute)):
            return run(statement)
        limits = statement.confined
        if limits is None or self._dialect != "sqlite":
            return run(statement)
        from .confined import confined

        self._soiled = self._soiled or len(statement.sql.text) > _KEPT  # a connection keeps statements too
        with confined(self._connection.connection.driver_connection, limits):
            return run(statement)

    def _text(self, sql: Sql, rows: Any, **options: Any) -> sa.CursorResult[Any]:
        if sql.soils:
            self._soiled = True
        if len(sql.text) > _KEPT:
            options["compiled_cache"] = None
        return self._connection.execute(sa.text(sql.template), rows, execution_options=options)

    def _query(self, statement: spi.Query) -> RowSet:
        limits = statement.confined
        parameters = bound(statement.params, self._dialect)
        if limits is None:
            result = self._text(statement.sql, parameters)
            return RowSet(_columns(result), [tuple(row) for row in result])
        as_they_come = self._dialect == "sqlite" or statement.sql.reads
        result = self._text(statement.sql, parameters, stream_results=as_they_come, max_row_buffer=CHUNK)
        return RowSet(_columns(result), _limited(result, limits))

    def _execute(self, statement: spi.Execute) -> ExecuteResult:
        result = self._text(statement.sql, bound(statement.params, self._dialect))
        cursor, count = result.context.cursor, result.rowcount
        if result.returns_rows:  # SQLite counts what RETURNING gives only once it was read, others only before
            read = sum(1 for _ in result)
            count = read if count < 0 or self._dialect == "sqlite" else count
        return _done(count, cursor if statement.sql.inserts else None)

    def _executemany(self, statement: spi.ExecuteMany) -> ExecuteResult:
        rows = [bound(row, self._dialect) for row in statement.rows]
        if self._connection.dialect.supports_sane_multi_rowcount:
            return ExecuteResult(max(self._text(statement.sql, rows).rowcount, 0))
        return ExecuteResult(sum(max(self._text(statement.sql, row).rowcount, 0) for row in rows))

    def _listtables(self, statement: spi.ListTables) -> list[str]:
        return sorted(sa.inspect(self._connection).get_table_names())

    def _describetable(self, statement: spi.DescribeTable) -> TableSchema:
        schema, name = _split(statement.table)
        inspector = sa.inspect(self._connection)
        try:
            details = inspector.get_columns(name, schema)
            key = set(inspector.get_pk_constraint(name, schema)["constrained_columns"])
        except sa.exc.NoSuchTableError as error:
            raise NotFoundError(f"database {self._pool.name!r}: there is no table {statement.table!r}") from error
        return TableSchema(
            name=statement.table,
            columns=tuple(
                ColumnInfo(
                    name=each["name"],
                    type=each["type"].compile(self._connection.dialect),
                    nullable=bool(each["nullable"]) and each["name"] not in key,
                    primary_key=each["name"] in key,
                    default=each.get("default"),
                )
                for each in details
            ),
        )

    def _createtable(self, statement: spi.CreateTable) -> None:
        schema, name = _split(statement.table)
        key = [each for each, spec in statement.columns.items() if spec.primary_key]
        columns = [column(each, spec, key == [each], self._dialect) for each, spec in statement.columns.items()]
        sa.Table(name, sa.MetaData(), *columns, schema=schema).create(self._connection, checkfirst=False)
        self._pool.keys.clear()

    def _droptable(self, statement: spi.DropTable) -> None:
        schema, name = _split(statement.table)
        self._connection.execute(sa.schema.DropTable(sa.Table(name, sa.MetaData(), schema=schema), if_exists=True))
        self._pool.keys.clear()

    def _insert(self, statement: spi.Insert) -> ExecuteResult:
        table = self._table(statement.table, statement.values)
        insert = sa.insert(table).values(bound(statement.values, self._dialect)).inline()
        key = None if self._dialect in ("sqlite", "mysql", "mariadb") else self._key(statement.table)
        if key is not None and self._connection.dialect.insert_returning:
            result: Any = self._connection.execute(insert.returning(sa.column(quoted(key))))
            number = result.scalar()
            return ExecuteResult(1, number if isinstance(number, int) else None)
        result = self._connection.execute(insert)
        return _done(1, result.context.cursor)

    def _update(self, statement: spi.Update) -> ExecuteResult:
        table = self._table(statement.table, {**statement.values, **statement.where})
        wanted = bound(statement.where, self._dialect)
        changed = sa.update(table).values(bound(statement.values, self._dialect))
        for name, value in wanted.items():
            is_null = value is None
            changed = changed.where(table.c[name].is_(None) if is_null else table.c[name] == sa.literal(value, _ANY))
        return _done(self._connection.execute(changed).rowcount, None)

    @staticmethod
    def _table(name: str, columns: Mapping[str, Any]) -> Any:
        schema, plain = _split(name)
        return sa.table(plain, *[sa.column(quoted(each)) for each in columns], schema=schema)

    def _key(self, table: str) -> str | None:
        """Return the single column of a table's primary key; looked up once."""
        if table not in self._pool.keys:
            schema, name = _split(table)
            try:
                key = sa.inspect(self._connection).get_pk_constraint(name, schema)["constrained_columns"]
            except sa.exc.NoSuchTableError as error:
                raise NotFoundError(f"database {self._pool.name!r}: there is no table {table!r}") from error
            self._pool.keys[table] = key[0] if len(key) == 1 else None
        return self._pool.keys[table]

    # -- streams ----------------------------------------------------------

    def open_cursor(self, call: Call[Any], statement: spi.Query) -> tuple[sa.CursorResult[Any], tuple[str, ...]]:
        """Begin to read rows."""

        def work() -> tuple[sa.CursorResult[Any], tuple[str, ...]]:
            sql = statement.sql
            self._soiled = self._soiled or sql.soils
            text = sa.text(sql.template).execution_options(stream_results=sql.reads, max_row_buffer=CHUNK)
            result = self._connection.execute(text, bound(statement.params, self._dialect))
            self._results.append(result)
            return result, _columns(result)

        return self.step(call, work)

    def fetch(self, call: Call[Any], result: sa.CursorResult[Any]) -> list[tuple[Any, ...]]:
        """Return the next rows."""
        return self.step(call, lambda: [tuple(row) for row in result.fetchmany(CHUNK)])


_ANY: Final = sa.types.NullType()


def _split(table: str) -> tuple[Any, Any]:
    schema, _, name = table.rpartition(".")
    return quoted(schema) if schema else None, quoted(name)


def _columns(result: sa.CursorResult[Any]) -> tuple[str, ...]:
    if not result.returns_rows:
        raise InvalidArgumentError("the statement gives no rows: use execute()")
    names = tuple(result.keys())
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidArgumentError(f"several columns are named {', '.join(twice)}: give each a name with AS")
    return names


def _limited(result: sa.CursorResult[Any], limits: spi.Confined) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    size = 0
    try:
        for row in result:
            size += sum(len(value) if isinstance(value, (str, bytes)) else 16 for value in row)
            if size > limits.bytes:
                raise spi.RowsTooLargeError(f"more than {limits.bytes:,} bytes, the limit of one answer")
            if len(rows) == limits.rows:
                raise spi.RowsTooLargeError(f"more than {limits.rows:,} rows, the limit of one answer")
            rows.append(tuple(row))
    finally:
        result.close()
    return rows


def _done(count: int, cursor: Any) -> ExecuteResult:
    """Make a result; ``cursor``: of an INSERT, whose row may have got a number."""
    number = getattr(cursor, "lastrowid", None)
    known = isinstance(number, int) and number > 0 and count == 1  # drivers of databases that have none give 0
    return ExecuteResult(max(count, 0), number if known else None)
