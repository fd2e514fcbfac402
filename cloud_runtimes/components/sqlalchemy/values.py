"""Values on their way into a database, and the types of columns."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Mapping
from typing import Any

from ...codec import json
from ...errors import InvalidArgumentError
from ...spi.database import Column


def bound(params: Mapping[str, Any], dialect: str) -> dict[str, Any]:
    """Return parameters as the driver beneath takes them: dicts as JSON text, and for SQLite what it has no type for as text."""
    sqlite = dialect == "sqlite"
    return {name: value if type(value) in _PLAIN else _bound(name, value, sqlite) for name, value in params.items()}


_PLAIN = frozenset([type(None), bool, float, str, bytes])


def _bound(name: str, value: Any, sqlite: bool) -> Any:
    if isinstance(value, dict) or (sqlite and isinstance(value, (list, tuple))):
        return json.encode(value).decode()
    if isinstance(value, tuple):
        return list(value)
    if not sqlite:
        return value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidArgumentError(f"parameter {name!r}: an integer of SQLite has 64 bits")
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")  # the form of CURRENT_TIMESTAMP
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, datetime.timedelta):
        raise InvalidArgumentError(f"parameter {name!r}: SQLite has no form for a timedelta: give its total_seconds()")
    # a subclass, which SQLite's module would not take
    plain: Any = next((kind for kind in (int, float, str, bytes) if isinstance(value, kind)), None)
    return value if plain is None else plain(value)


def column(name: str, given: Column, alone: bool, dialect: str) -> Any:
    """Return a column for SQLAlchemy; ``alone``: whether it is the whole primary key, which the database numbers."""
    import sqlalchemy as sa

    numbered = alone and given.kind == "integer"

    kinds: dict[str, Any] = {
        "integer": sa.BigInteger().with_variant(sa.Integer(), "sqlite"),  # only INTEGER numbers itself there
        "float": sa.Double(),
        "decimal": sa.Numeric(),
        "boolean": sa.Boolean(),
        "text": sa.Text(),
        "bytes": sa.LargeBinary(),
        "date": sa.Date(),
        "time": sa.Time(),
        "datetime": sa.DateTime(timezone=True),
        "uuid": sa.Uuid(),
        "json": sa.JSON(),
    }
    if given.kind in ("decimal", "uuid", "json", "date", "time", "datetime"):
        # SQLite would make a float of a decimal (sqlite.org/datatype3.html, 3.1)
        kinds[given.kind] = kinds[given.kind].with_variant(sa.Text(), "sqlite")
    return sa.Column(
        quoted(name),
        kinds[given.kind],
        *([sa.Identity()] if numbered and dialect == "oracle" else ()),  # others number it unasked
        primary_key=given.primary_key,
        nullable=given.nullable and not given.primary_key,
        unique=given.unique or None,
        autoincrement=numbered,
    )


def quoted(name: str) -> Any:
    """Return a name that is always quoted: lists of reserved words are never whole."""
    from sqlalchemy import quoted_name

    return quoted_name(name, quote=True)
