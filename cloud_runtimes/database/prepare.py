"""Checks of the database service before any I/O."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from ..errors import InvalidArgumentError
from ..spi.database import Column, ColumnKind, CreateTable, Execute, ExecuteMany, Insert, Isolation, Query, Update
from ..spi.sql import Sql, scan

# PostgreSQL cuts longer names off in silence (NAMEDATALEN - 1), so that two would become one
MAX_NAME_BYTES: Final = 63
_NAME: Final = re.compile(r"[^\W\d]\w*")
_VALUES: Final = (
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    bytearray,
    memoryview,
    datetime.date,  # and datetime
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    list,
    tuple,
    dict,
)
_KINDS: Final[Mapping[Any, ColumnKind]] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "text",
    bytes: "bytes",
    decimal.Decimal: "decimal",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    uuid.UUID: "uuid",
    dict: "json",
    list: "json",
}


def check_isolation(isolation: Any) -> None:
    """Refuse what is no `Isolation`."""
    if isolation is not None and isolation not in get_args(Isolation):
        raise InvalidArgumentError(
            f"isolation {isolation!r}: give {', '.join(map(repr, get_args(Isolation)))} or None for the database's own"
        )


def check_name(name: Any, what: str) -> str:
    """Return a name of a table or column: letters, digits and ``_``, no digit first, at most 63 bytes."""
    if not isinstance(name, str):
        raise InvalidArgumentError(f"the name of a {what} must be str, not {type(name).__name__}")
    if not _NAME.fullmatch(name) or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        shown = repr(name if len(name) <= 80 else name[:60] + "…")
        raise InvalidArgumentError(
            f"{shown} is no name of a {what}: letters, digits and '_', no digit first, at most {MAX_NAME_BYTES} bytes;"
            " for others write SQL"
        )
    return name


def check_table(name: Any) -> str:
    """Return a table's name, also ``schema.table``."""
    if isinstance(name, str) and name.count(".") == 1:
        for part in name.split("."):
            check_name(part, "table")
        return name
    return check_name(name, "table")


def _value(name: str, value: Any) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if not isinstance(value, _VALUES):
        raise InvalidArgumentError(
            f"parameter {name!r}: a value of type {type(value).__name__} cannot be bound; give None, bool, int, float, str,"
            " bytes, Decimal, UUID, a date or time, or a dict or list for JSON"
        )
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"parameter {name!r}: a lone surrogate at {error.start} is not UTF-8") from None
    elif isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    elif isinstance(value, float) and math.isnan(value):
        # SQLite would store NULL (sqlite.org/c3ref/bind_blob.html), others refuse it or not
        raise InvalidArgumentError(f"parameter {name!r}: NaN is no value that every database keeps; give None")
    return value


def bind(sql: Sql, params: Any, where: str = "") -> dict[str, Any]:
    """Return parameters, checked against those of the statement."""
    if params is None:
        params = {}
    if not isinstance(params, Mapping):
        raise InvalidArgumentError(f"params{where} must be a mapping name → value, not {type(params).__name__}")
    if missing := sorted(sql.names - params.keys()):
        raise InvalidArgumentError(
            f"params{where}: no value for {', '.join(f':{name}' for name in missing)}"
            " (a colon that begins no parameter is written '\\:')"
        )
    if surplus := sorted(str(name) for name in params if name not in sql.names):
        raise InvalidArgumentError(
            f"params{where}: the statement has no {', '.join(f':{name}' for name in surplus)};"
            f" it has {', '.join(f':{name}' for name in sorted(sql.names)) or 'no parameters'}"
        )
    return {name: _value(name, value) for name, value in params.items()}


def query(sql: str, params: Any, mysql: bool) -> Query:
    """Check a query."""
    scanned = scan(sql, mysql=mysql)
    return Query(scanned, bind(scanned, params))


def execute(sql: str, params: Any, mysql: bool) -> Execute:
    """Check a statement."""
    scanned = scan(sql, mysql=mysql)
    return Execute(scanned, bind(scanned, params))


def execute_many(sql: str, rows: Any, mysql: bool) -> ExecuteMany:
    """Check a statement and all its rows."""
    scanned = scan(sql, mysql=mysql)
    if isinstance(rows, (Mapping, str, bytes)) or not isinstance(rows, Iterable):
        raise InvalidArgumentError(f"rows must be an iterable of mappings name → value, not {type(rows).__name__}")
    return ExecuteMany(scanned, [bind(scanned, row, f" of row {at}") for at, row in enumerate(rows)])


def create_table(table: Any, columns: Any) -> CreateTable:
    """Check a table to make: name → `Column`, one of its kinds, or a Python type."""
    check_table(table)
    if not isinstance(columns, Mapping) or not columns:
        raise InvalidArgumentError("columns must be a mapping name → Column, kind or Python type, with at least one")
    checked: dict[str, Column] = {}
    for name, given in columns.items():
        check_name(name, "column")
        column = given if isinstance(given, Column) else Column(kind=_kind(name, given))
        if column.kind not in get_args(ColumnKind):
            _kind(name, column.kind)
        checked[name] = column
    lower = [name.lower() for name in checked]
    if twice := sorted({name for name in checked if lower.count(name.lower()) > 1}):
        raise InvalidArgumentError(f"columns {', '.join(twice)} differ by case only")
    return CreateTable(table, checked)


def _kind(name: str, given: Any) -> ColumnKind:
    kinds = get_args(ColumnKind)
    try:
        kind = given if given in kinds else _KINDS.get(given)
    except TypeError:
        kind = None
    if kind is None:
        raise InvalidArgumentError(
            f"column {name!r}: {given!r} is no kind of column; give a Column, one of {', '.join(kinds)}, or a type such as int"
        )
    column_kind: ColumnKind = kind
    return column_kind


def _values(what: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping) or not values:
        raise InvalidArgumentError(f"{what} must be a mapping column → value, with at least one")
    return {check_name(name, "column"): _value(name, value) for name, value in values.items()}


def insert(table: Any, values: Any) -> Insert:
    """Check a row to insert."""
    return Insert(check_table(table), _values("values", values))


def update(table: Any, values: Any, where: Any) -> Update:
    """Check an update; an empty ``where`` would change every row and is refused."""
    check_table(table)
    if isinstance(where, Mapping) and not where:
        raise InvalidArgumentError("where is empty, which would update every row: say so in SQL, with execute()")
    return Update(table, _values("values", values), _values("where", where))
