"""Values of SQL on their way through JSON."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Sequence
from typing import Any

from ...codec import json as codec
from ...errors import UnsupportedError
from ...spi.database import RowSet

__all__ = ["as_json", "as_text", "rows_of_json", "rows_of_texts", "unescaped"]


def unescaped(template: str) -> str:
    """Return a template with its colons as they are."""
    return template.replace("\\:", ":")


def as_text(name: str, value: Any) -> tuple[Any, str]:
    """Return a parameter as text, and the cast behind it, which gives PostgreSQL the type that the value has here; a text itself is of the type that the statement expects."""
    if value is None:
        return None, ""
    if isinstance(value, str):
        return value, ""
    if isinstance(value, bool):
        return str(value).lower(), "::text::boolean"
    if isinstance(value, int):
        return str(value), "::text::bigint" if -(2**63) <= value < 2**63 else "::text::numeric"
    if isinstance(value, float):
        return repr(value), "::text::double precision"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}", "::text::bytea"
    if isinstance(value, dict | list | tuple):
        return codec.encode(value).decode(), "::text::jsonb"
    for kind, cast in (
        (decimal.Decimal, "numeric"),
        (datetime.datetime, "timestamp" if getattr(value, "tzinfo", None) is None else "timestamptz"),
        (datetime.date, "date"),
        (datetime.time, "time"),
        (uuid.UUID, "uuid"),
    ):
        if isinstance(value, kind):
            text = value.isoformat() if hasattr(value, "isoformat") else str(value)
            return text, f"::text::{cast}"
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():.6f} seconds", "::text::interval"
    raise UnsupportedError(f"parameter {name!r}: a {type(value).__name__} does not go through a binding")


def as_json(name: str, value: Any) -> Any:
    """Return a parameter as JSON has it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict | list | tuple):
        return codec.encode(value).decode()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise UnsupportedError(f"parameter {name!r}: {type(value).__name__} does not go through a binding to this database")


def rows_of_texts(data: bytes) -> RowSet:
    """Read rows that are JSON texts, one object each, whose members are named and in the order of the columns."""
    made = [
        json.loads(text, object_pairs_hook=_Pairs, parse_float=_number) for (text,) in codec.decode(data or b"[]") or ()
    ]
    if not all(isinstance(row, _Pairs) for row in made):
        raise ValueError("a row is an object")
    columns = tuple(name for name, _ in made[0].pairs) if made else ()
    return RowSet(columns, [[_plain(value) for _, value in row.pairs] for row in made])


def rows_of_json(data: bytes, columns: str | None) -> RowSet:
    """Read rows that are arrays, beside the names of their columns."""
    rows: Sequence[Sequence[Any]] = codec.decode(data or b"[]") or ()
    names = tuple(map(str, codec.decode((columns or "[]").encode())))
    if rows and len(rows[0]) != len(names):
        raise ValueError("as many columns as names")
    return RowSet(names, rows)


class _Pairs:
    """An object as it stood, so that two columns of one name are seen."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(each) for name, each in value.pairs}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _number(text: str) -> float | decimal.Decimal:
    """Return a float where that is the number, else a decimal."""
    exact = decimal.Decimal(text)
    number = float(text)
    return number if decimal.Decimal(repr(number)) == exact else exact
