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
from ...errors import InvalidArgumentError, PayloadError
from .positional import named

__all__ = ["OPERATIONS", "invoke"]

OPERATIONS: Final = ("exec", "query", "close")


async def invoke(
    database: DatabaseService, store: str, operation: str, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, str]]:
    """Run the statement ``sql`` of the metadata with ``params``, a JSON array; return the reply's data and metadata.

    Raises:
        InvalidArgumentError: no statement, or parameters that are no array or do not fit it.
    """
    sql = metadata.get("sql", "")
    if not sql:
        raise InvalidArgumentError("required metadata not set: sql")
    text, params = _statement(sql, metadata.get("params", ""))
    began = datetime.now(UTC)
    start = monotonic()
    reply = {"operation": operation, "sql": sql, "start-time": _time(began)}
    data = b""
    if operation == "exec":
        result = await database.execute_async(store, text, params)
        reply["rows-affected"] = str(result.rows_affected)
    else:
        rows = await database.query_async(store, text, params, type=tuple[Any, ...])
        data = json.encode([[_value(value) for value in row] for row in rows])
    elapsed = monotonic() - start
    reply["end-time"] = _time(began + timedelta(seconds=elapsed))
    reply["duration"] = f"{elapsed * 1000:.6f}ms"
    return data, reply


def _statement(sql: str, params: str) -> tuple[str, dict[str, Any]]:
    values: list[Any] = []
    try:
        if params:
            values = json.decode(params.encode(), type=list[Any])
        return named(sql, values)
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
