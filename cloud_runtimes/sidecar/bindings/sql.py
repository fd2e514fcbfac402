"""A binding to SQL, as ``bindings.postgresql`` (dapr/components-contrib)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any, Final

from ...codec import json
from ...database.service import DatabaseService
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
from .positional import named

__all__ = ["OPERATIONS", "invoke", "state", "statement"]

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
    database: DatabaseService, store: str, operation: str, sql: str, text: str, params: dict[str, Any]
) -> tuple[bytes, dict[str, str]]:
    """Run a statement, which is ``text`` to our service; return the reply's data and metadata."""
    began = datetime.now(UTC)
    start = monotonic()
    reply = {"operation": operation, "sql": sql, "start-time": _time(began)}
    data = b""
    if operation == "exec":
        result = await database.execute_async(store, text, params)
        reply["rows-affected"] = str(result.rows_affected)
    else:
        rows = await database.query_async(store, text, params)
        data = json.encode([[_value(value) for value in row.values()] for row in rows])
        # Dapr's component does not tell them
        reply["columns"] = json.encode(list(rows[0]) if rows else []).decode()
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
        found = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None)
        if isinstance(found, str) and len(found) == 5:
            return found
        native = native.__cause__
    return next((code for kind, code in _STATES if isinstance(error, kind)), "XX000")


def statement(metadata: Mapping[str, str], *, mysql: bool) -> tuple[str, dict[str, Any]]:
    """Return the statement ``sql`` of the metadata with ``params``, a JSON array, in our words; ``mysql`` as of `named`.

    Raises:
        InvalidArgumentError: no statement, or parameters that are no array or do not fit it.
    """
    sql, params = metadata.get("sql", ""), metadata.get("params", "")
    if not sql:
        raise InvalidArgumentError("required metadata not set: sql")
    values: list[Any] = []
    try:
        if params:
            values = json.decode(params.encode(), type=list[Any])
        return named(sql, values, mysql=mysql)
    except (PayloadError, ValueError) as error:
        raise InvalidArgumentError(f"invalid metadata property params: {error}") from error


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
