"""SQL by the binding ``bindings.postgresql`` (dapr/components-contrib ``bindings/postgres``), and by those of a sidecar of ours to other databases.

Dapr's binding tells rows without the names of their columns and takes parameters as JSON. So on PostgreSQL a query is asked for its rows as JSON texts, which name and keep them exactly, and each parameter is a text with a cast.
"""

from __future__ import annotations

import datetime
import decimal
import json as stdlib_json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from ...codec import json
from ...errors import CloudRuntimesError, InternalError, InvalidArgumentError, PayloadError, UnsupportedError
from ...spi.database import DatabaseDriver, Execute, ExecuteResult, Outcome, Query, RowSet, Statement
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.sql_states import SILENT, by_state
from .._sidecar.transport import Flow, SidecarDriver
from .grpc_transport import GrpcTransport
from .transport import DaprSidecarError

_POSTGRES: Final = ("bindings.postgresql", "bindings.postgres")
_OURS: Final = ("bindings.sqlite", "bindings.sqlalchemy")
_PARAM: Final = re.compile(r"(?<![:\w\\]):([^\W\d]\w*)")
_STATE: Final = re.compile(r"\(SQLSTATE ([0-9A-Z]{5})\)")
_CONSTRAINT: Final = re.compile(r'constraint "[^"]{1,63}"')
_SAID: Final = re.compile(r"(?:^error invoking output binding [^:]*: )|(?:error executing query: )|(?:ERROR: )")
_CASTS: Final[Mapping[type, str]] = {
    float: "double precision",
    decimal.Decimal: "numeric",
    datetime.date: "date",
    datetime.time: "time",
    uuid.UUID: "uuid",
}
_LOST: Final = ("08", "57P")
"""SQLSTATEs after which it is not known whether the statement was committed."""


class DaprDatabase(SidecarDriver, DatabaseDriver):
    """Database behind a binding of the sidecar."""

    _transport: GrpcTransport
    features = frozenset()
    # what JSON has none of
    lacks = frozenset({bytes, decimal.Decimal})

    def __init__(self, transport: GrpcTransport, name: str) -> None:
        super().__init__(transport, name)
        self._kind: str | None = None

    def _run(self, op: Operation, statement: Statement, /) -> Flow[Outcome]:
        assert isinstance(statement, Query | Execute)
        asks = isinstance(statement, Query)
        if asks and not statement.sql.returns:
            raise InvalidArgumentError("the statement gives no rows: use execute()")
        if self._kind is None:
            kind = (yield from self._transport.components()).get(self._name, "")
            if kind and kind not in (*_POSTGRES, *_OURS):
                raise UnsupportedError(f"{self._name!r} is {kind}: databases need a binding that is {_POSTGRES[0]}")
            self._kind = kind or _POSTGRES[0]
        postgres = self._kind in _POSTGRES
        sql, params = _positional(statement.sql.template, statement.params, postgres)
        if asks and postgres:
            sql = f"WITH q AS (\n{sql}\n) SELECT row_to_json(q)::text FROM q"
        metadata = {"sql": sql, "params": json.encode(params).decode()}
        try:
            data, reply_metadata = yield from self._transport.invoke_binding(
                self._name, "query" if asks else "exec", None, metadata
            )
        except DaprSidecarError as refused:
            if (error := self._failed(op, refused)) is not None:
                raise error from refused
            raise
        if not asks:
            affected = reply_metadata.get("rows-affected", "0")
            return ExecuteResult(int(affected) if affected.isdigit() else 0)
        try:
            rows = _rows_of_texts(data) if postgres else _rows_of_json(data, reply_metadata.get("columns"))
        except (PayloadError, ValueError, TypeError) as error:
            raise InternalError(f"the sidecar's answer about {self._name!r} is of another form than Dapr's") from error
        twice = sorted({column for column in rows.columns if rows.columns.count(column) > 1})
        if twice:
            raise InvalidArgumentError(f"several columns are named {', '.join(twice)}: give each a name with AS")
        return rows

    run, run_async = both_apis(_run)

    def _failed(self, op: Operation, refused: DaprSidecarError) -> CloudRuntimesError | None:
        """Return what a database's own refusal means; ``None``: it is another one's."""
        message = refused.error_reply.message
        if (match := _STATE.search(message)) is None:
            return None
        state = match[1]
        if state.startswith("23"):
            named = _CONSTRAINT.search(message)
            detail = f" ({named[0]})" if named else ""
        elif state.startswith(SILENT):
            detail = f" (SQLSTATE {state})"
        else:
            detail = f": {_SAID.sub('', message[: match.start()]).strip()}"
        error = by_state(self._name, state, detail)
        error.maybe_applied = op.method.writes and state.startswith(_LOST)
        return error

    def begin(self, op: Operation, isolation: Any, /) -> NoReturn:
        raise UnsupportedError("the binding has no transactions")

    def stream(self, op: Operation, query: Query, /) -> NoReturn:
        raise UnsupportedError("the binding has no streams")


def _positional(template: str, params: Mapping[str, Any], postgres: bool) -> tuple[str, list[Any]]:
    """Return SQL with numbered parameters, and their values as JSON has them."""
    numbers = {name: number for number, name in enumerate(params, 1)}
    if postgres:
        texts = {name: _as_text(name, value) for name, value in params.items()}
        sql = _PARAM.sub(lambda match: f"${numbers[match[1]]}{texts[match[1]][1]}", template)
        return sql.replace("\\:", ":"), [text for text, _ in texts.values()]
    sql = _PARAM.sub(lambda match: f"${numbers[match[1]]}", template)
    return sql.replace("\\:", ":"), [_as_json(name, value) for name, value in params.items()]


def _as_text(name: str, value: Any) -> tuple[Any, str]:
    """Return a parameter as text, and the cast behind it, which gives PostgreSQL the type that the value has here; a text itself is of the type that the statement expects."""
    if value is None or isinstance(value, str):
        return value, ""
    if isinstance(value, bool):
        return str(value).lower(), "::text::boolean"
    if isinstance(value, int):
        return str(value), "::text::bigint" if -(2**63) <= value < 2**63 else "::text::numeric"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}", "::text::bytea"
    if isinstance(value, dict | list | tuple):
        return json.encode(value).decode(), "::text::jsonb"
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():.6f} seconds", "::text::interval"
    if isinstance(value, datetime.datetime):
        return value.isoformat(), f"::text::timestamp{'' if value.tzinfo is None else 'tz'}"
    for kind, cast in _CASTS.items():
        if isinstance(value, kind):
            return str(value), f"::text::{cast}"
    raise UnsupportedError(f"parameter {name!r}: a {type(value).__name__} does not go through a binding")


def _as_json(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict | list | tuple):
        return json.encode(value).decode()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise UnsupportedError(f"parameter {name!r}: {type(value).__name__} does not go through a binding to this database")


def _rows_of_texts(data: bytes) -> RowSet:
    """Read rows that are JSON texts, one object each, whose members are named and in the order of the columns."""
    rows = [
        stdlib_json.loads(text, object_pairs_hook=_Pairs, parse_float=_number)
        for (text,) in json.decode(data or b"[]") or ()
    ]
    if not all(isinstance(row, _Pairs) for row in rows):
        raise ValueError("a row is an object")
    columns = tuple(name for name, _ in rows[0].pairs) if rows else ()
    return RowSet(columns, [[_plain(value) for _, value in row.pairs] for row in rows])


def _rows_of_json(data: bytes, columns: str | None) -> RowSet:
    """Read rows that are arrays, beside the names of their columns."""
    rows: Sequence[Sequence[Any]] = json.decode(data or b"[]") or ()
    names = tuple(map(str, json.decode((columns or "[]").encode())))
    if rows and len(rows[0]) != len(names):
        raise ValueError("as many columns as names")
    return RowSet(names, rows)


class _Pairs:
    """An object as it stood, so that two columns of one name are seen."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(each) for name, each in value.pairs}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _number(text: str) -> float | decimal.Decimal:
    """Return a float where that is the number, else a decimal."""
    exact = decimal.Decimal(text)
    number = float(text)
    return number if decimal.Decimal(repr(number)) == exact else exact
