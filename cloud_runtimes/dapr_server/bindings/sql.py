"""A binding to SQL, as ``bindings.postgresql`` (dapr/components-contrib)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from time import monotonic
from typing import Any, Final, cast

from ...client import ServiceFrame
from ...codec import json
from ...database.prepare import execute, query
from ...errors import (
    AlreadyExistsError,
    CloudRuntimesError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from ...spi.database import Confined, DatabaseDriver, Execute, ExecuteResult, Outcome, Query, RowSet, RowsTooLargeError
from ...spi.operation import Method, Operation
from ...spi.sql import check_sql, tokens
from ..limits import Budget

_QUERY: Final = Method("database", "query", repeatable=True, writes=False)
_QUERY_WRITES: Final = Method("database", "query", repeatable=False)
_EXECUTE: Final = Method("database", "execute", repeatable=False)
_LONG: Final = 8192
"""Characters from which a statement is not scanned on the sidecar's loop."""

_STATES: Final = (
    (AlreadyExistsError, "23505"),
    (ConflictError, "23000"),
    (NotFoundError, "42P01"),
    (InvalidArgumentError, "42601"),
    (PermissionDeniedError, "42501"),
    (UnsupportedError, "0A000"),
    (ResourceExhaustedError, "53000"),
    (UnavailableError, "08006"),
)
OPERATIONS: Final = ("exec", "query", "close")


async def invoke(
    database: ServiceFrame, store: str, operation: str, metadata: Mapping[str, str], budget: Budget
) -> tuple[bytes, dict[str, str]]:
    """Run a statement, confined to its database; return the reply's data and metadata.

    Raises:
        InvalidArgumentError: no statement, or parameters that are no array or do not fit it.
        PermissionDeniedError: the statement reaches outside of the database.
        DaprError: its rows are more than the budget.
    """
    driver: DatabaseDriver = database.driver(store)
    sql = metadata.get("sql", "")
    prepared = partial(_statement, operation, metadata, driver.mysql, Confined(*reversed(budget.allowance)))
    statement = await asyncio.to_thread(prepared) if len(sql) > _LONG else prepared()
    began = datetime.now(UTC)
    start = monotonic()
    reply = {"operation": operation, "sql": sql, "start-time": _time(began)}
    data = b""
    if operation == "exec":
        result = cast("ExecuteResult", await _run(database, _EXECUTE, store, driver, statement, budget))
        reply["rows-affected"] = str(result.rows_affected)
    else:
        method = _QUERY if statement.sql.reads else _QUERY_WRITES
        try:
            row_set = cast("RowSet", await _run(database, method, store, driver, statement, budget))
        except RowsTooLargeError as error:
            raise budget.refusal(error.message) from error
        data = await asyncio.to_thread(_encoded, row_set, budget)
        # Dapr's component does not tell them
        reply["columns"] = json.encode(list(row_set.columns) if row_set.rows else []).decode()
    elapsed = monotonic() - start
    reply["end-time"] = _time(began + timedelta(seconds=elapsed))
    reply["duration"] = f"{elapsed * 1000:.6f}ms"
    return data, reply


def state(error: CloudRuntimesError) -> str:
    """Return the SQLSTATE of a failure, which Dapr's component ends its messages with: the database's own, else one of the same meaning."""
    native: BaseException | None = error
    seen: list[BaseException] = []
    while native is not None and native not in seen:
        seen.append(native)
        orig = getattr(native, "orig", native)
        sqlstate = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
        if isinstance(sqlstate, str) and len(sqlstate) == 5:
            return sqlstate
        native = native.__cause__
    return next((code for kind, code in _STATES if isinstance(error, kind)), "XX000")


async def _run(
    database: ServiceFrame,
    method: Method,
    store: str,
    driver: DatabaseDriver,
    statement: Query | Execute,
    budget: Budget,
) -> Outcome:
    timeout = budget.remaining()
    if database.timeout is not None:
        timeout = min(timeout, database.timeout)
    op = Operation(method, store, timeout)
    outcome: Outcome = await database.call_async(op, driver.run_async, statement)
    return outcome


def _statement(operation: str, metadata: Mapping[str, str], mysql: bool, confined: Confined) -> Query | Execute:
    """Return the statement ``sql`` of the metadata with ``params``, a JSON array."""
    sql, params = metadata.get("sql", ""), metadata.get("params", "")
    if not sql:
        raise InvalidArgumentError("required metadata not set: sql")
    values: list[Any] = []
    try:
        if params:
            values = json.decode(params.encode(), type=list[Any])
        text, given = named(sql, values, mysql=mysql)
    except (PayloadError, ValueError) as error:
        raise InvalidArgumentError(f"invalid metadata property params: {error}") from error
    prepare = execute if operation == "exec" else query
    return replace(prepare(text, given, mysql), confined=confined)


def _encoded(row_set: RowSet, budget: Budget) -> bytes:
    rows: list[bytes] = []
    for row in row_set.rows:
        rows.append(json.encode([_value(value) for value in row]))
        budget.add(len(rows[-1]) + 1)
    return b"[" + b",".join(rows) + b"]"


def _value(value: Any) -> Any:
    """Return a column's value as JSON has it: bytes as base64, decimals as numbers where a double holds them."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() and Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return _time(value)
    return value


def _time(moment: datetime) -> str:
    """Return a time as RFC 3339 has it, UTC as ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def named(sql: str, values: Sequence[Any], *, mysql: bool = False) -> tuple[str, dict[str, Any]]:
    """Return a statement with parameters ``:p1``, ``:p2`` …, and their values.

    Parameters are ``$1`` (PostgreSQL) or, where there is no such one, ``?`` (MySQL) and ``?1`` (SQLite); without values a question mark is an operator. A colon is no parameter here.

    Args:
        sql: the statement.
        values: of its parameters, in their order.
        mysql: whether it is scanned by the rules of MySQL.

    Raises:
        InvalidArgumentError: the statement is too long.
        ValueError: a parameter has no value.
    """
    scanned = list(tokens(check_sql(sql), mysql=mysql))
    dollars = any(kind == "number" for kind, _, _ in scanned)
    marks = bool(values) and not dollars
    wanted: set[int] = set()
    last = 0
    out: list[str] = []
    for kind, text, _ in scanned:
        if kind == "number" or (kind == "mark" and marks):
            number = last = int(text[1:] or last + 1)
            wanted.add(number)
            text = f":p{number}"
        elif kind in ("param", "escaped"):
            text = text.replace("\\", "\\\\").replace(":", "\\:")
        out.append(text)
    given = {f"p{number}": value for number, value in enumerate(values, 1)}
    missing = sorted(number for number in wanted if f"p{number}" not in given)
    if missing:
        raise ValueError(f"the statement has a parameter {missing[0]}, but there are {len(given)} params")
    return "".join(out), given
