"""SQL with numbered parameters, as bindings of Dapr take it, made into SQL with named ones, as our database service does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["named"]

# literals, quoted names, comments, dollar quotes (PostgreSQL, "Lexical Structure", 4.1.2); in them a sign is only a sign
_TOKENS: Final = re.compile(
    r"""
    --[^\n]* | /\*.*?\*/
  | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*`
  | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
  | (?<![\w$])\$(?P<dollar>[0-9]{1,5})(?!\w)
  | \?(?P<mark>[0-9]{0,5})
  | :: | (?<![:\w]):(?P<colon>(?=[^\W\d]))
    """,
    re.VERBOSE | re.DOTALL,
)


def named(sql: str, values: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return a statement with parameters ``:p1``, ``:p2`` …, and their values.

    Parameters are ``$1`` (PostgreSQL) or, where there is no such one, ``?`` (MySQL) and ``?1`` (SQLite); without values a question mark is an operator. A colon is no parameter here.
    """
    dollars = any(match["dollar"] is not None for match in _TOKENS.finditer(sql))
    marks = bool(values) and not dollars
    wanted: set[int] = set()
    last = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal last
        if match["colon"] is not None:
            return "\\:"
        if match["dollar"] is not None:
            number = int(match["dollar"])
        elif match["mark"] is not None and marks:
            number = last = int(match["mark"] or last + 1)
        else:
            return match.group()
        wanted.add(number)
        return f":p{number}"

    text = _TOKENS.sub(replaced, sql)
    given = {f"p{number}": value for number, value in enumerate(values, 1)}
    missing = sorted(number for number in wanted if f"p{number}" not in given)
    if missing:
        raise ValueError(f"the statement has a parameter {missing[0]}, but there are {len(given)} params")
    return text, given
