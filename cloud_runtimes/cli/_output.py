"""Rows in the format that ``--format`` names: a table on a terminal and a JSON object a line elsewhere."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from ._streams import write
from ._tables import Table

Output = Annotated[
    Literal["table", "json"] | None,
    typer.Option(
        "--format",
        metavar="table|json",
        help="How to write; else a table to a terminal, and lines to a pipe or file.",
    ),
]


def is_table(output: str | None) -> bool:
    """Return whether ``--format``, or else where stdout goes, asks for a table."""
    return sys.stdout.isatty() if output is None else output == "table"


def rows(
    items: Iterable[Mapping[str, Any]], columns: Sequence[str], output: str | None, table: Table | None = None
) -> None:
    """Write objects: all of each as JSON, or some of their fields as lines of a table."""
    if not is_table(output):
        from ..codec import json

        write(b"".join(json.encode({name: _plain(item[name]) for name in item}) + b"\n" for item in items))
    elif lines := [[_text(item.get(name)) for name in columns] for item in items]:
        (table or Table(columns)).add(lines)


def record(fields: Mapping[str, Any], output: str | None) -> None:
    """Write one object: as JSON, or as a table with a field a line."""
    if is_table(output):
        Table(("field", "value"), whole=True).add([[name, _text(value)] for name, value in fields.items()])
    else:
        rows([fields], (), output)


def fields_of(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, for `rows`."""
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times as text, bytes as hexadecimal digits."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(each) for name, each in fields_of(value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _text(value: Any) -> str:
    from ..codec import json

    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    value = _plain(value)
    return value if isinstance(value, str) else json.encode(value).decode()
