"""Static analysis of an SQL text before any I/O: its parameters, whether it is one statement, and whether it reads.

The database judges the rest. The scanner knows literals, quoted names, comments and PostgreSQL's dollar quotes
(PostgreSQL, "Lexical Structure", 4.1.2), so a sign in one of them is only a sign. It makes one pass. It looks once
for the end of an unclosed literal or comment, which ends the scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import InvalidArgumentError

__all__ = ["Sql", "check_sql", "scan", "tokens"]

_KEPT: Final = 8192
"""Characters of the longest text whose scan is kept: callers of a sidecar may send many that are long."""

_READS: Final = frozenset(["SELECT", "VALUES", "TABLE", "SHOW", "EXPLAIN", "WITH", "DESCRIBE", "DESC"])
_WRITES: Final = frozenset(
    ["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "INTO", "CALL", "NEXTVAL", "SETVAL", "ANALYZE"]
)
_CONTROL: Final = frozenset(
    ["BEGIN", "START", "COMMIT", "ROLLBACK", "ABORT", "END", "SAVEPOINT", "RELEASE", "PREPARE", "XA"]
)
_ROUTINES: Final = frozenset(["TRIGGER", "FUNCTION", "PROCEDURE", "EVENT"])
_TEMPORARY: Final = frozenset(["TEMP", "TEMPORARY"])
# what stays with a connection after the statement
_SOILS: Final = _TEMPORARY | frozenset(
    ["SET", "PRAGMA", "ATTACH", "DETACH", "LISTEN", "DECLARE", "SET_CONFIG", "LOAD", "USE", "RESET"]
)
# a table's name follows, perhaps behind others of these
_TABLE_IS_NEXT: Final = frozenset(["FROM", "INTO", "TABLE"])
_DOTS: Final = 3
"""In the name of a table: server, database, schema."""
_BEFORE_TABLE: Final = frozenset(["IF", "NOT", "EXISTS", "ONLY", "LATERAL", "TABLE"])
_LOCKS: Final = "PG_ADVISORY_LOCK"
_ALONE: Final = frozenset(["VACUUM", "PRAGMA", "ATTACH", "DETACH"])


class Sql(NamedTuple):
    """A scanned statement.

    Attributes:
        text: as given.
        names: of its parameters.
        template: with each literal colon as ``\\:``, so that only parameters have a bare one.
        reads: whether it looks like one that changes nothing; such a one may be repeated.
        inserts: whether it is an INSERT, so that a row may have got a number.
        returns: whether it gives rows.
        soils: whether it changes its connection, which then serves nobody else.
        alone: whether databases run it outside of a transaction only.
        summary: its kind and the first table that it names, such as ``SELECT orders``, without any value.
    """

    text: str
    names: frozenset[str]
    template: str
    reads: bool
    inserts: bool
    returns: bool
    soils: bool
    alone: bool
    summary: str


def scan(sql: str, *, mysql: bool = False) -> Sql:
    """Scan one statement.

    Args:
        sql: the text; parameters are ``:name``. A colon is only a character in literals, quoted names and comments, in ``::``, behind a letter, digit or ``_``, before what is no name, and as ``\\:``.
        mysql: whether a backslash escapes in ``'…'`` and ``#`` begins a comment, as in MySQL and MariaDB.

    Raises:
        InvalidArgumentError: not text, empty, more than one statement, an unfinished literal, a statement that begins or ends a transaction.
    """
    check_sql(sql)
    return (_scan if len(sql) <= _KEPT else _scan.__wrapped__)(sql, mysql)


@lru_cache(maxsize=1024)
def _scan(sql: str, mysql: bool) -> Sql:
    names: set[str] = set()
    words: list[str] = []
    out: list[str] = []
    depth = 0
    ended = False
    table = _Table()
    for kind, text, at in tokens(sql, mysql=mysql):
        if kind == "open":
            opening = "/*" if text.startswith("/*") else text[0]
            raise InvalidArgumentError(f"sql: the {opening!r} at {at} has no end")
        if ended and kind not in ("space", "comment", "end"):
            raise InvalidArgumentError(
                "sql holds more than one statement: give one per call, several in a transaction()"
            )
        if kind == "param":
            names.add(text[1:])
            out.append(text)
            continue
        if kind not in ("space", "comment"):
            table.feed(kind, text, words)
        if kind == "word":
            words.append(text.upper())
            depth += _nesting(words)
        elif kind == "end" and depth <= 0:
            ended = True
            continue
        out.append("\\:" if kind == "escaped" else _literal(text))
    if not words and not names:
        raise InvalidArgumentError("sql is empty")
    first = words[0] if words else ""
    if first in _CONTROL:
        raise InvalidArgumentError(f"sql: {first} is not run: transaction() begins, commits and rolls back")
    seen = frozenset(words)
    soils = first in _SOILS or (first == "CREATE" and not _TEMPORARY.isdisjoint(words[1:4]))
    soils = soils or "SET_CONFIG" in seen or any(word.startswith(_LOCKS) for word in seen)
    reads = (first in _READS and _WRITES.isdisjoint(seen) and not soils) or (first == "PRAGMA" and "=" not in sql)
    inserts = first in ("INSERT", "REPLACE") or (first == "WITH" and "INSERT" in seen)
    return Sql(
        sql,
        frozenset(names),
        "".join(out),
        reads,
        inserts,
        reads or "RETURNING" in seen,
        soils,
        first in _ALONE,
        f"{first} {table.name}".rstrip(),
    )


class _Table:
    """Finds the first table of a statement, outside of parentheses, where functions have ``FROM`` too.

    Attributes:
        name: of the table, ``""``: it is quoted, or there is none.
    """

    def __init__(self) -> None:
        self.name = ""
        self._depth = 0
        self._is_next = False
        self._is_open = False

    def feed(self, kind: str, text: str, before: list[str]) -> None:
        """Take a token behind words."""
        if kind == "word":
            word = text.upper()
            if self._is_open and self.name.endswith("."):
                self.name += text
            elif self._is_next:
                if word not in _BEFORE_TABLE:
                    self.name, self._is_next, self._is_open = text, False, True
            elif not self.name and self._depth <= 0:
                self._is_next = word in _TABLE_IS_NEXT and before[-1:] != ["DISTINCT"]
                self._is_next = self._is_next or (not before and word == "UPDATE")
        elif self._is_open and text == "." and self.name.count(".") < _DOTS and not self.name.endswith("."):
            self.name += text
        else:
            self._is_next = self._is_open = False
            self.name = self.name.removesuffix(".")
            if kind == "other":
                self._depth += text.count("(") - text.count(")")


def _literal(text: str) -> str:
    return text.replace(":", "\\:") if ":" in text else text


def _nesting(words: list[str]) -> int:
    """Tell what a word does to the depth of ``BEGIN … END`` in a routine's body, where semicolons end nothing."""
    if words[0] != "CREATE" or _ROUTINES.isdisjoint(words[1:8]):
        return 0
    if words[-1] in ("BEGIN", "CASE"):
        return 1
    return -1 if words[-1] == "END" else 0


# -- tokens -------------------------------------------------------------------

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
    """Return an SQL text that may be scanned: text, not too long, without NUL."""
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
    while (token := match(sql, at)) is not None:
        kind, end = str(token.lastgroup), token.end()
        if kind == "open":
            end = len(sql)
        elif kind == "quote":
            if last is None:
                last = {each[1]: each.start() for each in _QUOTES.finditer(sql)}
            tag = token.group()
            # without an end it is no quote: MySQL's names may hold a dollar
            kind, end = ("string", sql.index(tag, end) + len(tag)) if last[tag] >= end else ("other", at + 1)
        yield kind, sql[at:end], at
        at = end
