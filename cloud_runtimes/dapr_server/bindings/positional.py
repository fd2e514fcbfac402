"""SQL with numbered parameters, as bindings of Dapr take it, made into SQL with named ones, as our database service does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...spi.sql import check_sql, tokens

__all__ = ["named"]


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
