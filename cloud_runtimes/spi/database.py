"""The SPI of the database service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ..errors import ResourceExhaustedError
from .change import Change
from .driver import Driver
from .executor import Blocking, in_thread
from .operation import Operation
from .sql import Sql

__all__ = [
    "CANCEL",
    "EXECUTE_MANY",
    "ISOLATION",
    "OUTBOX",
    "SCHEMA",
    "STREAM",
    "TRANSACTION",
    "Column",
    "ColumnInfo",
    "ColumnKind",
    "Confined",
    "CreateTable",
    "DatabaseCursor",
    "DatabaseDriver",
    "DatabaseSession",
    "DescribeTable",
    "DropTable",
    "EventRow",
    "Execute",
    "ExecuteMany",
    "ExecuteResult",
    "Insert",
    "Isolation",
    "ListTables",
    "Outcome",
    "Query",
    "RowSet",
    "RowsTooLargeError",
    "Statement",
    "TableSchema",
    "Update",
]


Isolation: TypeAlias = Literal["read-uncommitted", "read-committed", "repeatable-read", "serializable"]
"""The least isolation that a transaction must have (SQL:2016, 4.41.4)."""


ColumnKind: TypeAlias = Literal[
    "integer", "float", "decimal", "boolean", "text", "bytes", "date", "time", "datetime", "uuid", "json"
]


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    """Result of a statement.

    Attributes:
        rows_affected: inserted, updated or deleted; 0 where the database counts none (DDL).
        last_insert_id: the key that the database gave to the one inserted row, where it reports one. PostgreSQL does
            so only for `insert` (in SQL: ``query("INSERT … RETURNING id")``).
    """

    rows_affected: int
    last_insert_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column to create.

    Attributes:
        kind: what it holds. ``integer`` has 64 bits. SQLite has no ``boolean``, ``decimal``, ``date``, ``time``, ``datetime``, ``uuid`` and ``json``: it stores 0 and 1, and text; `type=` of a query gives them back.
        nullable: whether NULL may stand in it; never in a primary key.
        primary_key: whether it is (part of) the primary key; a single integer one is numbered by the database.
        unique: whether no two rows may have the same value.
    """

    kind: ColumnKind
    nullable: bool = True
    primary_key: bool = False
    unique: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInfo:
    """A column that there is.

    Attributes:
        name: as the database has it.
        type: in the database's own words, e.g. ``BIGINT``.
        nullable: whether NULL may stand in it.
        primary_key: whether it is (part of) the primary key.
        default: the database's default, as SQL, ``None``: none.
    """

    name: str
    type: str
    nullable: bool
    primary_key: bool
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """A table.

    Attributes:
        name: of the table.
        columns: in their order.
    """

    name: str
    columns: tuple[ColumnInfo, ...]


CANCEL: Final = "cancel"
"""What is given up, by its deadline or a cancelled task, ends in the database too, and is not applied."""
EXECUTE_MANY: Final = "execute_many"
"""`execute_many`: one statement for many rows, all or none."""
TRANSACTION: Final = "transaction"
"""`transaction`: several statements, all or nothing."""
ISOLATION: Final = "isolation"
"""``isolation=`` of a transaction."""
OUTBOX: Final = "outbox"
"""A transaction publishes events, by changes of a pub/sub driver of the same engine, or as rows of a table (`EventRow`)."""
STREAM: Final = "stream"
"""`stream`: rows as they come, in constant memory."""
SCHEMA: Final = "schema"
"""`tables`, `table_schema`, `create_table`, `drop_table`, `insert`, `update`."""


@dataclass(frozen=True, slots=True)
class Confined:
    """How far a statement of a stranger may go, such as one that a sidecar's caller gives.

    A driver that takes it ends the reading of rows with `RowsTooLargeError`. Where statements can reach files of the machine (SQLite), it refuses those that would with `PermissionDeniedError`.

    Attributes:
        rows: that it may give.
        bytes: of their text and bytes; any other value counts 16.
    """

    rows: int
    bytes: int


class RowsTooLargeError(ResourceExhaustedError):
    """The rows of a confined statement are more than they may be."""


@dataclass(frozen=True, slots=True)
class Query:
    """Give the rows of a statement."""

    sql: Sql
    params: Mapping[str, Any]
    confined: Confined | None = None


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a statement; rows that it gives are dropped."""

    sql: Sql
    params: Mapping[str, Any]
    confined: Confined | None = None


@dataclass(frozen=True, slots=True)
class ExecuteMany:
    """Run a statement once per row of parameters, at least one; all or none."""

    sql: Sql
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ListTables:
    """Give the names of the tables of the connection's own schema, sorted."""


@dataclass(frozen=True, slots=True)
class DescribeTable:
    """Give a `TableSchema`; `NotFoundError` where there is no such table or view."""

    table: str


@dataclass(frozen=True, slots=True)
class CreateTable:
    """Make a table; `AlreadyExistsError` where there is one."""

    table: str
    columns: Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class DropTable:
    """Drop a table; an absent one is fine."""

    table: str


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert one row."""

    table: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Update the rows whose columns equal ``where``, which is not empty; ``None`` there means IS NULL."""

    table: str
    values: Mapping[str, Any]
    where: Mapping[str, Any]


Statement: TypeAlias = (
    Query | Execute | ExecuteMany | ListTables | DescribeTable | CreateTable | DropTable | Insert | Update
)


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows.

    Attributes:
        columns: their names, each once.
        rows: of as many values each.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


Outcome: TypeAlias = RowSet | ExecuteResult | TableSchema | list[str] | None
"""`RowSet` for a `Query`, `ExecuteResult` for what writes rows, names for `ListTables`, `TableSchema` for `DescribeTable`, else ``None``."""


class EventRow(NamedTuple):
    """Row of an event that waits in a table for a broker; see `spi.relay`.

    Attributes:
        insert: the row.
        before: statements that make the table, where it is not known to be there. An apart one runs outside of the transaction, since it would commit that.
    """

    insert: Insert
    before: Sequence[tuple[bool, Statement]] = ()


class DatabaseCursor(Blocking, ABC):
    """Rows as they come.

    Obligations: it holds a constant number of rows. One call at a time comes to it, from any thread. Once it is exhausted, closed or has failed it holds nothing; one that nobody refers to lets go by itself.
    """

    columns: tuple[str, ...]
    """Names of the columns, each once."""

    @abstractmethod
    def fetch(self, op: Operation, /) -> Sequence[Sequence[Any]]:
        """Return the next rows; none: that was all."""

    fetch_async = in_thread(fetch)

    @abstractmethod
    def close(self, op: Operation, /) -> None:
        """Let go; again does nothing."""

    close_async = in_thread(close)


class DatabaseSession(Blocking, ABC):
    """An open transaction.

    Obligations:

    * Any error, timeout, cancellation and interrupt of a call rolls back at once, so that all databases behave as the strictest; every later call then raises `ClosedError`, `commit` too.
    * Calls that come at once run one after the other.
    * Nothing commits but `commit`. One that nobody refers to rolls back by itself.
    * The connection serves others only when it is as it was; else it is closed.
    """

    @abstractmethod
    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        """Run one statement."""

    run_async = in_thread(run)

    @abstractmethod
    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        """Begin to read rows; the cursor ends with the transaction at the latest."""

    stream_async = in_thread(stream)

    def apply(self, op: Operation, changes: Sequence[Change], /) -> None:
        """Write changes of other drivers of the engine (`OUTBOX`)."""
        raise NotImplementedError

    apply_async = in_thread(apply)

    @abstractmethod
    def commit(self, op: Operation, /) -> None:
        """End it: all."""

    commit_async = in_thread(commit)

    @abstractmethod
    def rollback(self, op: Operation, /) -> None:
        """End it: nothing. Does nothing once it has ended."""

    rollback_async = in_thread(rollback)


class DatabaseDriver(Driver, ABC):
    """Driver of a database.

    Obligations:

    * Values are bound, never formatted into a text. Names of tables and columns, which the service has checked, are
      quoted by the rules of the database.
    * A statement outside of a transaction stands alone. It is committed when its call has returned. It is not
      applied (``maybe_applied``) if the call failed before the commit.
    * A deadline or a cancelled task ends the work in the database too, not only the waiting (`CANCEL`).
    * No message holds a value of a parameter or a password.
    * Unique and primary key violations are `AlreadyExistsError`, other constraints, deadlocks and serialization
      failures `ConflictError` (the last two ``retryable``), an absent table `NotFoundError`, an error in the SQL or
      a value `InvalidArgumentError`, an unreachable database `UnavailableError`.

    Attributes:
        mysql: whether texts are scanned by the rules of MySQL, where a backslash escapes.
        lacks: types that the database does not have and returns as others: ``bool`` as int, ``Decimal`` as int,
            float or text, ``dict`` (JSON) as text, ``UUID`` as a class of the driver's own, ``bytes`` as text that
            begins with ``\\x``.
        namespace: the name of the database; ``None``: it has none.
    """

    mysql: bool = False
    lacks: frozenset[type] = frozenset()
    namespace: str | None = None

    @property
    def apart(self) -> DatabaseDriver:
        """A driver of the same database whose calls never wait for a connection that a transaction of the application has; by default this one."""
        return self

    @abstractmethod
    def run(self, op: Operation, statement: Statement, /) -> Outcome:
        """Run one statement in a transaction of its own."""

    run_async = in_thread(run)

    @abstractmethod
    def begin(self, op: Operation, isolation: Isolation | None, /) -> DatabaseSession:
        """Begin a transaction (`TRANSACTION`); an isolation that the database does not have is `UnsupportedError`."""

    begin_async = in_thread(begin)

    @abstractmethod
    def stream(self, op: Operation, query: Query, /) -> DatabaseCursor:
        """Begin to read rows (`STREAM`)."""

    stream_async = in_thread(stream)
