"""``services`` and ``stores``: what there is on a home."""

from __future__ import annotations

from typing import Annotated

import typer

from ._output import Output, fields_of, is_table, rows
from ._session import connect


def services(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only applications whose names begin so.")] = "",
    output: Output = None,
) -> int:
    """Write the applications that can be called, with their processes: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        found = client.admin.services(prefix=prefix)
    lines = [fields_of(service) for service in found]
    if is_table(output):
        lines = [
            {"app_id": service.app_id, **fields_of(instance), "methods": ", ".join(service.methods or ())}
            for service in found
            for instance in service.instances
        ]
    rows(lines, ("app_id", "address", "host", "pid", "since", "version", "methods"), output)
    return 0


def stores(context: typer.Context, output: Output = None) -> int:
    """Write the names of state, configuration, files, locks and events, declared ones and those with data on the home: a table on a terminal, else a JSON object a line."""
    with connect(context.obj) as client:
        rows(map(fields_of, client.admin.stores()), ("service", "name", "component", "declared"), output)
    return 0
