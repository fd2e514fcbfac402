"""Mapping of an SQLSTATE to an error for the caller (PostgreSQL, appendix A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..errors import (
    AlreadyExistsError,
    CloudRuntimesError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["SILENT", "STATES", "by_state"]

STATES: Final[Mapping[str, tuple[type[CloudRuntimesError], str, dict[str, Any]]]] = {
    "08": (UnavailableError, "the connection failed", {}),
    "0A": (UnsupportedError, "the database cannot do that", {}),
    "21": (InvalidArgumentError, "the numbers of rows or columns do not fit", {}),
    "22": (InvalidArgumentError, "a value does not fit its type or column", {}),
    "23": (ConflictError, "a constraint does not hold", {}),
    "23505": (AlreadyExistsError, "a row with such a unique value exists", {}),
    "25": (InvalidArgumentError, "not possible in this state of the transaction", {}),
    "25006": (PermissionDeniedError, "the transaction or the server only reads", {}),
    "25P03": (UnavailableError, "the transaction was idle for too long, and the server ended it", {}),
    "28": (UnauthenticatedError, "the database does not accept the user or the password: check the url", {}),
    "2B": (ConflictError, "others depend on it", {}),
    "3D": (InvalidArgumentError, "there is no such database: check the url", {}),
    "3F": (NotFoundError, "there is no such schema", {}),
    "40": (ConflictError, "rolled back since another transaction was in the way: try again", {"retryable": True}),
    "42": (InvalidArgumentError, "the SQL is wrong", {}),
    "42501": (PermissionDeniedError, "not allowed", {}),
    "42P01": (NotFoundError, "there is no such table", {}),
    "42P07": (AlreadyExistsError, "it exists", {}),
    "42710": (AlreadyExistsError, "it exists", {}),
    "42S01": (AlreadyExistsError, "it exists", {}),
    "42S02": (NotFoundError, "there is no such table", {}),
    "53": (ResourceExhaustedError, "the server is at a limit", {"retryable": True}),
    "53100": (ResourceExhaustedError, "the disk of the server is full", {}),
    "54": (InvalidArgumentError, "too large or too complex", {}),
    "55P03": (ConflictError, "locked by another transaction", {"retryable": True}),
    "57014": (UnavailableError, "the statement was cancelled, by an operator or by statement_timeout", {}),
    "57P": (UnavailableError, "the server is stopping or starting", {}),
    "58": (UnavailableError, "the server failed", {"retryable": False}),
}
SILENT: Final = ("22", "28")
"""Classes whose messages may hold values, or the user."""


def by_state(name: str, state: str, detail: str) -> CloudRuntimesError:
    """Return our error for an SQLSTATE of a store; its message ends with ``detail``."""
    for length in (5, 3, 2):
        if row := STATES.get(state[:length]):
            error_class, what, options = row
            return error_class(f"database {name!r}: {what}{detail}", **options)
    return InternalError(f"database {name!r}: SQLSTATE {state}{detail}")
