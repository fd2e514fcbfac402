"""Types of the database service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Column", "ColumnInfo", "ColumnKind", "ExecuteResult", "Isolation", "Row", "TableSchema"]

Isolation: TypeAlias = Literal["read-uncommitted", "read-committed", "repeatable-read", "serializable"]
"""The least isolation that a transaction must have (SQL:2016, 4.41.4)."""

ColumnKind: TypeAlias = Literal[
    "integer", "float", "decimal", "boolean", "text", "bytes", "date", "time", "datetime", "uuid", "json"
]


class Row(Mapping[str, Any]):
    """One row: a mapping column → value, in the order of the columns.

    A column is an attribute too (``row.total``), unless its name is one of a mapping's methods (``row["items"]``). Compares equal to a mapping of the same columns and values.
    """

    __slots__ = ("_index", "_values")

    _index: Mapping[str, int]
    _values: Sequence[Any]

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._index = {name: at for at, name in enumerate(values)}
        self._values = tuple(values.values())

    @classmethod
    def _made(cls, index: Mapping[str, int], values: Sequence[Any]) -> Row:
        row = cls.__new__(cls)
        row._index = index
        row._values = values
        return row

    def __getitem__(self, name: str) -> Any:
        return self._values[self._index[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in Row.__slots__:
            raise AttributeError(name)
        try:
            return self._values[self._index[name]]
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}; it has {', '.join(self._index)}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._index})

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self),)

    def __repr__(self) -> str:
        return f"Row({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    """What a statement did.

    Attributes:
        rows_affected: inserted, updated or deleted; 0 where the database counts none (DDL).
        last_insert_id: the key that the database gave to the one inserted row, where it tells; PostgreSQL does only for `insert` (in SQL: ``query("INSERT … RETURNING id")``).
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
