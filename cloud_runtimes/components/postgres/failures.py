"""What the failures of PostgreSQL and libpq mean to a caller: the one error table of this component."""

from __future__ import annotations

from typing import Any, Final

from psycopg.pq import DiagnosticField

from ...errors import CloudRuntimesError, ResourceExhaustedError, UnauthenticatedError, UnavailableError
from ...spi.sql_states import SILENT, by_state

__all__ = ["Lost", "SqlFailure"]

_CLOSED: Final = ("57P01", "57P02", "57P03", "57P05", "08006", "25P03")
"""The server ends the connection with these."""


class SqlFailure(Exception):
    """The server refused a statement.

    Attributes:
        state: the SQLSTATE.
        place: of the statement among those sent together.
        primary: the server's message.
    """

    def __init__(self, result: Any, place: int) -> None:
        self.state = (result.error_field(DiagnosticField.SQLSTATE) or b"XX000").decode()
        self.primary = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        self.place = place
        super().__init__(self.state)

    def explained(self, where: str) -> CloudRuntimesError:
        """Return our error. Nothing was applied: the server rolled the transaction back."""
        return by_state(where, self.state, "" if self.state.startswith(SILENT) else f": {self.primary}")


class Lost(Exception):
    """The connection could not be made, or ended."""

    def explained(self, where: str, *, maybe_applied: bool) -> CloudRuntimesError:
        """Return our error."""
        text = str(self)
        last = text.strip().rpartition("\n")[2]
        if "password" in text or "no pg_hba.conf entry" in text or "authentication failed" in text:
            return UnauthenticatedError(f"{where}: the server does not accept the user or the password: check the url")
        if "too many clients" in text or "connection slots" in text or "too many connections" in text:
            return ResourceExhaustedError(
                f"{where}: the server takes no more connections: lower max_connections, or raise the server's",
                retryable=True,
            )
        if "does not exist" in text:
            return by_state(where, "3D000", "")
        return UnavailableError(f"{where}: the server cannot be reached: {last}", maybe_applied=maybe_applied)
