"""Confinement of untrusted statements on SQLite: they reach their own database and nothing else.

SQLite opens and writes any file that a statement names. It asks its authorizer for each action while it prepares
a statement (sqlite.org/c3ref/set_authorizer.html). So the authorizer refuses by what a statement does, however
it is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ...errors import PermissionDeniedError
from ...spi.database import Confined, RowsTooLargeError

_FUNCTIONS: Final = frozenset(["load_extension", "fts3_tokenizer"])
_DESCRIBING: Final = frozenset(
    [
        "collation_list",
        "compile_options",
        "data_version",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "pragma_list",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    ]
)
"""Pragmas that only tell; their argument is a name. And ``user_version``, which is a number of the database's users."""
_READING: Final = frozenset(
    [
        "application_id",
        "auto_vacuum",
        "cache_size",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "journal_mode",
        "max_page_count",
        "page_count",
        "page_size",
        "schema_version",
        "synchronous",
    ]
)
"""Pragmas that only tell where they have no argument."""


@contextmanager
def confined(connection: Any, limits: Confined) -> Iterator[None]:
    """Confine what a connection of the module `sqlite3` runs meanwhile."""
    refused: list[str] = []

    def judge(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
        reason = _refusal(action, first, second)
        if reason is None:
            return sqlite3.SQLITE_OK
        refused.append(reason)
        return sqlite3.SQLITE_DENY

    length = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.bytes)
    try:
        connection.set_authorizer(judge)  # what was prepared before is prepared anew
        yield
    except Exception as error:
        if refused:
            raise PermissionDeniedError(
                f"{refused[0]} is not permitted here, since it reaches outside of the database: "
                "do it in the process, by client.database"
            ) from error
        native = getattr(error, "orig", error)
        if getattr(native, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG:
            raise RowsTooLargeError(f"a value of more than {limits.bytes:,} bytes, the limit of one answer") from error
        raise
    finally:
        connection.set_authorizer(None)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, length)


def _refusal(action: int, first: str | None, second: str | None) -> str | None:
    """Return what is refused of an action; ``None``: nothing."""
    if action == sqlite3.SQLITE_ATTACH and first != "":  # VACUUM attaches a database without a name
        return "ATTACH or VACUUM INTO"
    if action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS:
        return f"{second}()"
    if action == sqlite3.SQLITE_PRAGMA:
        name = str(first).lower()
        if name not in _DESCRIBING and (name not in _READING or second is not None):
            return f"PRAGMA {name}"
    return None
