"""``sql STORE STATEMENT``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ._errors import UsageError
from ._session import connect
from ._streams import note, write
from ._tables import Table

if TYPE_CHECKING:
    from ..database import Row

_FORMATS: Final = ("table", "csv", "json")
_BATCH: Final = 1000


def sql(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Name of the database component.", show_default=False)],
    statement: Annotated[str, typer.Argument(help="One statement; - is stdin.", show_default=False)],
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter :NAME, JSON, else text; repeatable.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--format", metavar="table|csv|json", help="By default table to a terminal, else csv.")
    ] = None,
) -> int:
    """Run one statement, in a transaction of its own: rows to stdout, as they come; else their number to stderr."""
    from ..spi.sql import scan
    from ._values import json_or_text, pairs

    if output is not None and output not in _FORMATS:
        raise UsageError(f"--format {output}: give {', '.join(_FORMATS)}")
    if statement == "-":
        statement = sys.stdin.read()
    given = {name: json_or_text(value) for name, value in pairs(param, "--param")}
    scanned = scan(statement)
    with connect(context.obj) as client:
        if scanned.returns:
            with client.database.stream(store, statement, given) as rows:
                _show(iter(rows), output or ("table" if sys.stdout.isatty() else "csv"))
            return 0
        done = client.database.execute(store, statement, given)
    note(f"{done.rows_affected} {'row' if done.rows_affected == 1 else 'rows'} affected")
    return 0


def _show(rows: Iterator[Row], output: str) -> None:
    if output == "json":
        from ..codec import json

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
    from ..codec import json

    return json.encode(value).decode() if isinstance(value, (dict, list)) else str(value)


def _csv(rows: list[list[str]]) -> bytes:
    """Write RFC 4180, with the line ends of the system's tools."""
    import csv
    import io

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogateescape")
