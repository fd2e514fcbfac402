"""The tokens of an SQL text, so that a sign in a literal, a quoted name or a comment is only a sign.

The scanner knows literals, quoted names, comments and PostgreSQL's dollar quotes (PostgreSQL, "Lexical Structure", 4.1.2). It does not know SQL beyond that. It makes one pass: what has an opening without an end is looked for once, and ends the scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..errors import InvalidArgumentError

__all__ = ["check_sql", "tokens"]

MAX_SQL: Final = 1_000_000

_TOKENS: Final = r"""
    (?P<space>\s++)
  | (?P<comment>--[^\n]*+|/\*.*?\*/{hash})
  | (?P<string>[eE]'(?:[^'\\]++|\\.|'')*+'|{single}|"(?:[^"]++|"")*+"|`(?:[^`]++|``)*+`)
  | (?P<open>['"`]|/\*)
  | (?P<quote>(?<![\w$])\$(?:[^\W\d]\w*+)?\$)
  | (?P<number>(?<![\w$])\$[0-9]{1,5}(?!\w))
  | (?P<mark>\?[0-9]{0,5})
  | (?P<escaped>\\:)
  | (?P<cast>::)
  | (?P<param>(?<![:\w]):[^\W\d]\w*+)
  | (?P<word>[^\W\d][\w$]*+)
  | (?P<end>;)
  | (?P<other>[^\w\s'"`/\\:;$?\#-]++|.)
"""
_QUOTES: Final = re.compile(r"(?=(\$(?:[^\W\d]\w*+)?\$))")


def _pattern(*, mysql: bool) -> re.Pattern[str]:
    single = r"'(?:[^'\\]++|\\.|'')*+'" if mysql else r"'(?:[^']++|'')*+'"
    text = _TOKENS.replace("{hash}", r"|\#[^\n]*+" if mysql else "").replace("{single}", single)
    return re.compile(text, re.VERBOSE | re.DOTALL)


_STANDARD: Final = _pattern(mysql=False)
_MYSQL: Final = _pattern(mysql=True)


def check_sql(sql: str) -> str:
    """Return an SQL text that may be scanned.

    Raises:
        InvalidArgumentError: it is not text, too long, or holds a NUL.
    """
    if not isinstance(sql, str):
        raise InvalidArgumentError(f"sql must be str, not {type(sql).__name__}")
    if len(sql) > MAX_SQL:
        raise InvalidArgumentError(f"sql has {len(sql)} characters; at most {MAX_SQL}: bind values as parameters")
    if "\0" in sql:
        raise InvalidArgumentError("sql holds a NUL character")
    return sql


def tokens(sql: str, *, mysql: bool = False) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, the text and the place of each token; together they are the whole text.

    Kinds are ``space``, ``comment``, ``string`` (quoted names too), ``number`` (``$1``), ``mark`` (``?``, ``?1``), ``escaped`` (``\\:``), ``cast`` (``::``), ``param`` (``:name``), ``word``, ``end`` (``;``), ``other``, and ``open``: a literal or comment without an end, which is the rest of the text.

    Args:
        sql: the text.
        mysql: whether a backslash escapes in ``'…'`` and ``#`` begins a comment, as in MySQL and MariaDB.
    """
    match = (_MYSQL if mysql else _STANDARD).match
    last: dict[str, int] | None = None
    at = 0
    while (found := match(sql, at)) is not None:
        kind, end = str(found.lastgroup), found.end()
        if kind == "open":
            end = len(sql)
        elif kind == "quote":
            if last is None:
                last = {each[1]: each.start() for each in _QUOTES.finditer(sql)}
            tag = found.group()
            # without an end it is no quote: MySQL's names may hold a dollar
            kind, end = ("string", sql.index(tag, end) + len(tag)) if last[tag] >= end else ("other", at + 1)
        yield kind, sql[at:end], at
        at = end
