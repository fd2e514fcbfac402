"""What an SQL text says of itself before any I/O: its parameters, that it is one statement, and whether it reads. The database judges the rest."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import InvalidArgumentError
from .sql_tokens import check_sql, tokens

__all__ = ["Sql", "scan"]

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
    check_sql(sql)
    return (_scan if len(sql) <= _KEPT else _scan.__wrapped__)(sql, mysql)


@lru_cache(maxsize=1024)
def _scan(sql: str, mysql: bool) -> Sql:
    names: set[str] = set()
    words: list[str] = []
    out: list[str] = []
    depth = 0
    ended = False
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
