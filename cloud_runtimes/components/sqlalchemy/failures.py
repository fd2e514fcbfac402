"""Error table of this component: maps errors of SQLAlchemy and of the drivers beneath to ours.

SQLSTATE: PostgreSQL, appendix A; result codes of SQLite: sqlite.org/rescode.html. A driver's message may hold
values ("Key (email)=(…) already exists"). So only its primary message is passed on, and none about data.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Final

from sqlalchemy import exc

from ..._core.extras import missing
from ..._core.sqlite_failures import explain as explain_sqlite
from ...errors import (
    AlreadyExistsError,
    CloudRuntimesError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from ...spi.sql_states import SILENT, STATES, by_state

_BY_CLASS: Final[tuple[tuple[Any, type[CloudRuntimesError], str], ...]] = (
    (exc.IntegrityError, ConflictError, "a constraint does not hold ({})"),
    ((exc.ProgrammingError, exc.DataError), InvalidArgumentError, "the SQL is wrong or a value does not fit ({})"),
    (exc.NotSupportedError, UnsupportedError, "the database cannot do that ({})"),
    (
        (exc.OperationalError, exc.InterfaceError),
        UnavailableError,
        "it cannot be reached or could not go on ({}): is it running at its url?",
    ),
)
_CONSTRAINT: Final = re.compile(r"^(?:UNIQUE|NOT NULL|CHECK|FOREIGN KEY|PRIMARY KEY) constraint failed")


def is_busy(error: BaseException) -> bool:
    """Return whether SQLite said that somebody else has a lock."""
    native = getattr(error, "orig", error)
    return (getattr(native, "sqlite_errorcode", 0) or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def has_stale_plan(error: BaseException) -> bool:
    """Return whether PostgreSQL did not run a prepared statement, since somebody has changed the types of its columns."""
    text = str(getattr(error, "orig", error))
    return "cached plan must not change result type" in text or "cached statement plan is invalid" in text


def _state(native: Any) -> Any:
    return getattr(native, "sqlstate", None) or getattr(native, "pgcode", None)


def forget_password(error: BaseException, password: Any) -> None:
    """Take the password out of what a driver's error carries: psycopg's has all that was given to connect, for whoever shows its attributes."""
    secret = "" if password is None else str(password)
    native = getattr(error, "orig", None) or error
    for name, value in list(getattr(native, "__dict__", {}).items()):
        shown = repr(value)
        if secret and (secret in shown or repr(secret)[1:-1] in shown):
            setattr(native, name, None)


def explain(error: Exception, name: str, path: str | None, *, maybe_applied: bool) -> CloudRuntimesError:
    """Return our error for one of SQLAlchemy's or a driver's; the caller raises it ``from`` that."""
    if has_stale_plan(error):
        what = "somebody changed the columns of a table since the statement was prepared: run the transaction again"
        failure: CloudRuntimesError = ConflictError(f"database {name!r}: {what}", retryable=True)
    elif isinstance(error, exc.DBAPIError):
        failure = _native(error.orig, name, path) or _by_class(error, name)
    elif isinstance(error, exc.NoSuchTableError):
        failure = NotFoundError(f"database {name!r}: there is no table {str(error)!r}")
    elif isinstance(error, exc.NoSuchModuleError):
        # SQLAlchemy's words quote the url
        failure = InvalidArgumentError(f"database {name!r}: the url names a database or driver that is not known")
    elif isinstance(error, ModuleNotFoundError):
        # psycopg2 is what SQLAlchemy takes where a url names no driver
        if str(error.name).partition(".")[0] in ("psycopg", "psycopg2"):
            return missing(f"database {name!r}: its driver", "postgres")
        failure = UnsupportedError(
            f"database {name!r}: its driver needs the package {error.name!r}: pip install {error.name}"
        )
    elif isinstance(error, exc.ArgumentError):
        failure = InvalidArgumentError(f"database {name!r}: the url or a value cannot be used")
    elif isinstance(error, exc.TimeoutError):
        failure = ResourceExhaustedError(f"database {name!r}: no connection is free: raise pool_size", retryable=True)
    elif isinstance(error, exc.ResourceClosedError):
        failure = InvalidArgumentError(f"database {name!r}: the statement gives no rows: use execute()")
    else:
        failure = _native(error, name, path) or InternalError(f"database {name!r} failed: {type(error).__name__}")
    if maybe_applied and not isinstance(failure, (ConflictError, AlreadyExistsError)):
        failure.maybe_applied = True
    return failure


def _native(native: Any, name: str, path: str | None) -> CloudRuntimesError | None:
    if isinstance(native, sqlite3.Error):
        return _sqlite(native, name, path or "the database")
    state = _state(native)
    if not state:
        # a connection that could not be made has no state, but psycopg's text says why
        text = str(native)
        if "password authentication failed" in text or "no pg_hba.conf entry" in text:
            return UnauthenticatedError(f"database {name!r}: {STATES['28'][1]}")
        return None
    return by_state(name, state, _detail(native, state))


def _detail(native: Any, state: str) -> str:
    diagnosis = getattr(native, "diag", None)
    if state.startswith("23") and diagnosis is not None:
        parts = [
            f"{kind} {value!r}"
            for kind, value in (
                ("constraint", diagnosis.constraint_name),
                ("table", diagnosis.table_name),
                ("column", diagnosis.column_name),
            )
            if value
        ]
        return f" ({', '.join(parts)})" if parts else ""
    if state.startswith(SILENT):
        return f" (SQLSTATE {state})"
    primary = getattr(diagnosis, "message_primary", None)
    return f": {primary}" if primary else f" (SQLSTATE {state})"


def _sqlite(native: sqlite3.Error, name: str, path: str) -> CloudRuntimesError:
    code = getattr(native, "sqlite_errorcode", None)
    text = str(native)
    where = f"database {name!r}: "
    if code is None:  # raised by the module itself
        if isinstance(native, sqlite3.ProgrammingError):
            return InvalidArgumentError(f"{where}{text}")
        return InternalError(f"{where}{text}")
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_CONSTRAINT:
        shown = text if _CONSTRAINT.match(text) else "a constraint does not hold"  # else a trigger's own words
        if code in (
            sqlite3.SQLITE_CONSTRAINT_UNIQUE,
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
            sqlite3.SQLITE_CONSTRAINT_ROWID,
        ):
            return AlreadyExistsError(f"{where}a row with such a unique value exists ({shown})")
        return ConflictError(f"{where}{shown}")
    if primary == sqlite3.SQLITE_ERROR:
        if text.startswith("no such table"):
            return NotFoundError(f"{where}{text}")
        if text.endswith("already exists"):
            return AlreadyExistsError(f"{where}{text}")
        return InvalidArgumentError(f"{where}{text}")
    if primary in (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE):
        return InvalidArgumentError(f"{where}a value does not fit its column ({text})")
    return explain_sqlite(native, path)


def _by_class(error: Any, name: str) -> CloudRuntimesError:
    """By the classes of the DBAPI (PEP 249), for drivers whose errors say no more."""
    where = f"database {name!r}: "
    native = type(error.orig).__name__
    if error.connection_invalidated:
        return UnavailableError(f"{where}the connection was lost ({native})")
    for classes, error_class, what in _BY_CLASS:
        if isinstance(error, classes):
            return error_class(f"{where}{what.format(native)}")
    return InternalError(f"{where}it failed ({native})")
