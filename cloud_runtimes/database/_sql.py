"""What an SQL text says of itself before any I/O: its parameters, that it is one statement, and whether it reads.

The scanner knows literals, quoted names, comments and PostgreSQL's dollar quotes (PostgreSQL, "Lexical Structure", 4.1.2), so that a colon or semicolon in one of them is only a character. It does not know SQL beyond that: the database judges the rest.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import InvalidArgumentError

__all__ = ["Sql", "scan"]

MAX_SQL: Final = 1_000_000

_TOKENS: Final = r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|/\*.*?\*/{hash})
  | (?P<string>[eE]'(?:[^'\\]|\\.|'')*'|{single}|"(?:[^"]|"")*"|`(?:[^`]|``)*`|(?<![\w$])\$(?P<tag>[^\W\d]?\w*)\$.*?\$(?P=tag)\$)
  | (?P<open>['"`]|/\*)
  | (?P<escaped>\\:)
  | (?P<cast>::)
  | (?P<param>(?<![:\w]):(?P<name>[^\W\d]\w*))
  | (?P<word>[^\W\d][\w$]*)
  | (?P<end>;)
  | (?P<other>.)
"""


def _pattern(*, mysql: bool) -> re.Pattern[str]:
    single = r"'(?:[^'\\]|\\.|'')*'" if mysql else r"'(?:[^']|'')*'"
    text = _TOKENS.replace("{hash}", r"|\#[^\n]*" if mysql else "").replace("{single}", single)
    return re.compile(text, re.VERBOSE | re.DOTALL)


_STANDARD: Final = _pattern(mysql=False)
_MYSQL: Final = _pattern(mysql=True)

_READS: Final = frozenset(["SELECT", "VALUES", "TABLE", "SHOW", "EXPLAIN", "WITH", "DESCRIBE", "DESC"])
_WRITES: Final = frozenset(
    ["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "INTO", "CALL", "NEXTVAL", "SETVAL", "ANALYZE"]
)
_CONTROL: Final = frozenset(
    ["BEGIN", "START", "COMMIT", "ROLLBACK", "ABORT", "END", "SAVEPOINT", "RELEASE", "PREPARE", "XA"]
)
_ROUTINES: Final = frozenset(["TRIGGER", "FUNCTION", "PROCEDURE", "EVENT"])
# what stays with a connection after the statement
_SOILS: Final = frozenset(
    [
        "SET",
        "PRAGMA",
        "ATTACH",
        "DETACH",
        "LISTEN",
        "DECLARE",
        "TEMP",
        "TEMPORARY",
        "SET_CONFIG",
        "LOAD",
        "USE",
        "RESET",
    ]
)
_TEMPORARY: Final = frozenset(["TEMP", "TEMPORARY"])
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
    """

    text: str
    names: frozenset[str]
    template: str
    reads: bool
    inserts: bool
    returns: bool
    soils: bool
    alone: bool


def scan(sql: str, *, mysql: bool = False) -> Sql:
    """Scan one statement.

    Args:
        sql: the text; parameters are ``:name``. A colon is only a character in literals, quoted names and comments, in ``::``, behind a letter, digit or ``_``, before what is no name, and as ``\\:``.
        mysql: whether a backslash escapes in ``'…'`` and ``#`` begins a comment, as in MySQL and MariaDB.

    Raises:
        InvalidArgumentError: not text, empty, more than one statement, an unfinished literal, a statement that begins or ends a transaction.
    """
    if not isinstance(sql, str):
        raise InvalidArgumentError(f"sql must be str, not {type(sql).__name__}")
    if len(sql) > MAX_SQL:
        raise InvalidArgumentError(f"sql has {len(sql)} characters; at most {MAX_SQL}: bind values as parameters")
    if "\0" in sql:
        raise InvalidArgumentError("sql holds a NUL character")
    return _scan(sql, mysql)


@lru_cache(maxsize=1024)
def _scan(sql: str, mysql: bool) -> Sql:
    names: set[str] = set()
    words: list[str] = []
    out: list[str] = []
    depth = 0
    ended = False
    for token in (_MYSQL if mysql else _STANDARD).finditer(sql):
        kind, text = token.lastgroup, token.group()
        # lastgroup is the inner group where there is one
        kind = {"tag": "string", "name": "param"}.get(kind or "", kind)
        if kind == "open":
            raise InvalidArgumentError(f"sql: the {text!r} at {token.start()} has no end")
        if ended and kind not in ("space", "comment", "end"):
            raise InvalidArgumentError(
                "sql holds more than one statement: give one per call, several in a transaction()"
            )
        if kind == "param":
            names.add(token["name"])
            out.append(text)
            continue
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
        sql, frozenset(names), "".join(out), reads, inserts, reads or "RETURNING" in seen, soils, first in _ALONE
    )


def _literal(text: str) -> str:
    return text.replace(":", "\\:") if ":" in text else text


def _nesting(words: list[str]) -> int:
    """Tell what a word does to the depth of ``BEGIN … END`` in a routine's body, where semicolons end nothing."""
    if words[0] != "CREATE" or _ROUTINES.isdisjoint(words[1:8]):
        return 0
    if words[-1] in ("BEGIN", "CASE"):
        return 1
    return -1 if words[-1] == "END" else 0
