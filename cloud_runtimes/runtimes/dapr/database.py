"""SQL by the binding ``bindings.postgresql`` (dapr/components-contrib ``bindings/postgres``), and by those of a sidecar of ours to other databases.

Dapr's binding tells rows without the names of their columns and takes parameters as JSON. So on PostgreSQL a query is asked for its rows as JSON texts, which name and keep them exactly, and each parameter is a text with a cast.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from ...codec import json
from ...database._states import SILENT, by_state
from ...errors import CloudRuntimesError, InternalError, InvalidArgumentError, PayloadError, UnsupportedError
from ...spi.database import DatabaseDriver, Execute, ExecuteResult, Outcome, Query, Statement
from ...spi.operation import Operation
from .._sidecar.driver import SidecarDriver, operation
from .._sidecar.transport import Flow
from .database_values import as_json, as_text, rows_of_json, rows_of_texts, unescaped
from .failures import DaprSidecarError
from .transport import DaprTransport

__all__ = ["DaprDatabase"]

_POSTGRES: Final = ("bindings.postgresql", "bindings.postgres")
_OURS: Final = ("bindings.sqlite", "bindings.sqlalchemy")
_PARAM: Final = re.compile(r"(?<![:\w\\]):([^\W\d]\w*)")
_STATE: Final = re.compile(r"\(SQLSTATE ([0-9A-Z]{5})\)")
_CONSTRAINT: Final = re.compile(r'constraint "[^"]{1,63}"')
_SAID: Final = re.compile(r"(?:^error invoking output binding [^:]*: )|(?:error executing query: )|(?:ERROR: )")
_LOST: Final = ("08", "57P")
"""SQLSTATEs after which it is not known whether the statement was committed."""


class DaprDatabase(SidecarDriver, DatabaseDriver):
    """One database behind a binding of the sidecar."""

    _transport: DaprTransport
    features = frozenset()
    # what JSON has none of
    lacks = frozenset({bytes, decimal.Decimal})

    def __init__(self, transport: DaprTransport, name: str) -> None:
        super().__init__(transport, name)
        self._kind: str | None = None

    @operation
    def run(self, op: Operation, statement: Statement, /) -> Flow[Outcome]:
        assert isinstance(statement, Query | Execute)
        asks = isinstance(statement, Query)
        if asks and not statement.sql.returns:
            raise InvalidArgumentError("the statement gives no rows: use execute()")
        if self._kind is None:
            kind = yield from self._transport.component_type(self._name)
            if kind and kind not in (*_POSTGRES, *_OURS):
                raise UnsupportedError(f"{self._name!r} is {kind}: databases need a binding that is {_POSTGRES[0]}")
            self._kind = kind or _POSTGRES[0]
        postgres = self._kind in _POSTGRES
        sql, params = _positional(statement.sql.template, statement.params, postgres)
        if asks and postgres:
            sql = f"WITH q AS (\n{sql}\n) SELECT row_to_json(q)::text FROM q"
        metadata = {"sql": sql, "params": json.encode(params).decode()}
        try:
            data, told = yield from self._transport.invoke_binding(
                self._name, "query" if asks else "exec", None, metadata
            )
        except DaprSidecarError as refused:
            if (error := self._failed(op, refused)) is not None:
                raise error from refused
            raise
        if not asks:
            affected = told.get("rows-affected", "0")
            return ExecuteResult(int(affected) if affected.isdigit() else 0)
        try:
            rows = rows_of_texts(data) if postgres else rows_of_json(data, told.get("columns"))
        except (PayloadError, ValueError, TypeError) as error:
            raise InternalError(f"the sidecar's answer about {self._name!r} is of another form than Dapr's") from error
        twice = sorted({column for column in rows.columns if rows.columns.count(column) > 1})
        if twice:
            raise InvalidArgumentError(f"several columns are named {', '.join(twice)}: give each a name with AS")
        return rows

    def _failed(self, op: Operation, refused: DaprSidecarError) -> CloudRuntimesError | None:
        """Return what a database's own refusal means; ``None``: it is another one's."""
        message = refused.error_reply.message
        if (found := _STATE.search(message)) is None:
            return None
        state = found[1]
        if state.startswith("23"):
            named = _CONSTRAINT.search(message)
            detail = f" ({named[0]})" if named else ""
        elif state.startswith(SILENT):
            detail = f" (SQLSTATE {state})"
        else:
            detail = f": {_SAID.sub('', message[: found.start()]).strip()}"
        error = by_state(self._name, state, detail)
        error.maybe_applied = op.method.writes and state.startswith(_LOST)
        return error

    # -- what the binding has not -------------------------------------------------

    def begin(self, op: Operation, isolation: Any, /) -> NoReturn:
        raise UnsupportedError("the binding has no transactions")

    def stream(self, op: Operation, query: Query, /) -> NoReturn:
        raise UnsupportedError("the binding has no streams")


def _positional(template: str, params: Mapping[str, Any], postgres: bool) -> tuple[str, list[Any]]:
    """Return SQL with numbered parameters, and their values as JSON has them."""
    numbers = {name: number for number, name in enumerate(params, 1)}
    if postgres:
        texts = {name: as_text(name, value) for name, value in params.items()}
        sql = _PARAM.sub(lambda found: f"${numbers[found[1]]}{texts[found[1]][1]}", template)
        return unescaped(sql), [text for text, _ in texts.values()]
    sql = _PARAM.sub(lambda found: f"${numbers[found[1]]}", template)
    return unescaped(sql), [as_json(name, value) for name, value in params.items()]
