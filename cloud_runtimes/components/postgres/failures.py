"""Error table of this component: maps errors of PostgreSQL and libpq to ours."""

from __future__ import annotations

import re
from typing import Any, Final

from psycopg.pq import DiagnosticField

from ...errors import (
    CloudRuntimesError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from ...spi.sql_states import SILENT, by_state

READ_ONLY: Final = "25006"
_UNPREPARED: Final = ("26000", "42P05")
"""A statement that another session has prepared, or has not."""

_ROLE: Final = re.compile(r'role ".*" does not exist')
_DATABASE: Final = re.compile(r'database ".*" does not exist')


class SqlFailure(Exception):
    """The server refused a statement.

    Attributes:
        state: the SQLSTATE.
        index: of the statement among those sent together.
        primary: the server's message.
    """

    def __init__(self, result: Any, index: int) -> None:
        self.state = (result.error_field(DiagnosticField.SQLSTATE) or b"XX000").decode()
        self.primary = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        self.index = index
        super().__init__(self.state)

    def map_error(self, where: str, *, standby: bool) -> CloudRuntimesError:
        """Return our error. Nothing was applied: the server rolled the transaction back."""
        if self.state == READ_ONLY and standby:
            return UnavailableError(
                f"{where}: this server is a standby and only reads: name all servers in the url, with target_session_attrs=read-write"
            )
        if self.state in _UNPREPARED:
            return InvalidArgumentError(
                f"{where}: prepared statements do not pass the pooler before it: set prepare = false, or max_prepared_statements of PgBouncer 1.21 or newer"
            )
        error = by_state(where, self.state, "" if self.state.startswith(SILENT) else f": {self.primary}")
        if self.state in (READ_ONLY, "53100"):
            error.retryable = True  # an operator mends it while the application runs
        return error


class ConnectionLost(Exception):
    """The connection could not be made, or ended."""

    def map_error(self, where: str, *, maybe_applied: bool, accepted: bool = False) -> CloudRuntimesError:
        """Return our error; ``accepted``: the server has accepted this URL before."""
        text = str(self)
        if (
            "password" in text
            or "no pg_hba.conf entry" in text
            or "authentication failed" in text
            or _ROLE.search(text)
        ):
            return UnauthenticatedError(
                f"{where}: the server does not accept the user or the password: check the url",
                retryable=accepted,
                maybe_applied=maybe_applied,
            )
        if "too many clients" in text or "connection slots" in text or "too many connections" in text:
            return ResourceExhaustedError(
                f"{where}: the server takes no more connections: lower max_connections, or raise the server's",
                retryable=True,
            )
        if _DATABASE.search(text):
            return by_state(where, "3D000", "")
        # the last server that was asked; its hints are indented
        lines = [line for line in text.splitlines() if line.strip() and not line[0].isspace()]
        last = lines[-1] if lines else "it closed the connection"
        return UnavailableError(f"{where}: the server cannot be reached: {last}", maybe_applied=maybe_applied)
