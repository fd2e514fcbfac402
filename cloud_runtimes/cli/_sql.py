"""``sql STORE STATEMENT``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final

from ..codec import json
from ..database import Row
from ..errors import PayloadError
from ..spi.sql import scan
from ._errors import UsageError
from ._session import Invocation, connect
from ._streams import note, write
from ._tables import Table

__all__ = ["FORMATS", "sql"]

FORMATS: Final = ("table", "csv", "json")
_BATCH: Final = 1000


def sql(invocation: Invocation, store: str, statement: str, params: list[str], output: str | None) -> int:
    """Run a statement: rows to stdout, as they come, or how many were changed to stderr."""
    if output is not None and output not in FORMATS:
        raise UsageError(f"--format {output}: give {', '.join(FORMATS)}")
    if statement == "-":
        statement = sys.stdin.read()
    given = dict(_parameter(each) for each in params)
    scanned = scan(statement)
    with connect(invocation) as client:
        if scanned.returns:
            with client.database.stream(store, statement, given) as rows:
                _show(iter(rows), output or ("table" if sys.stdout.isatty() else "csv"))
            return 0
        done = client.database.execute(store, statement, given)
    note(f"{done.rows_affected} {'row' if done.rows_affected == 1 else 'rows'} affected")
    return 0


def _parameter(text: str) -> tuple[str, Any]:
    """Read ``name=value``: JSON where it is JSON, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--param {text}: give NAME=VALUE")
    try:
        return name, json.decode(value.encode())
    except (PayloadError, UnicodeEncodeError):
        return name, value


def _show(rows: Iterator[Row], output: str) -> None:
    if output == "json":
        for row in rows:
            write(json.encode({name: _json(value) for name, value in row.items()}) + b"\n")
        return
    first = next(rows, None)
    if first is None:
        return
    names = list(first)
    every = chain((first,), rows)
    if output == "csv":
        write(_csv([names]))
        while batch := list(islice(every, _BATCH)):
            write(_csv([[_text(value, "") for value in row.values()] for row in batch]))
        return
    table = Table(names)
    while batch := list(islice(every, _BATCH)):
        table.add([[_text(value, "NULL") for value in row.values()] for row in batch])


def _json(value: Any) -> Any:
    return value.hex() if isinstance(value, (bytes, memoryview)) else value


def _text(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, (bytes, memoryview)):
        return value.hex()
    return json.encode(value).decode() if isinstance(value, (dict, list)) else str(value)


def _csv(rows: list[list[str]]) -> bytes:
    """Write RFC 4180, with the line ends of the system's tools."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogateescape")
