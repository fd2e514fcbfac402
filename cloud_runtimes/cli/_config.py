"""``config get|set|delete|watch|validate|schema``."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ._completing import stores
from ._errors import NOT_FOUND, UsageError
from ._output import Output, record, rows
from ._session import connect
from ._settings_file import schema, validate
from ._streams import complain, stopping, write
from ._tables import Table

if TYPE_CHECKING:
    from ..configuration import ConfigurationItem

_COLUMNS: Final = ("key", "value", "version", "group", "label")

_LOOK: Final = 0.2
"""Seconds between looks at signals."""

config_app = typer.Typer(help="Read, write and follow configuration.", no_args_is_help=True, rich_markup_mode=None)
config_app.command("validate", short_help="Check a configuration file.")(validate)
config_app.command("schema", short_help="Write the schema of the file, for editors.")(schema)

Store = Annotated[
    str,
    typer.Argument(
        help="Name of the configuration component.", show_default=False, autocompletion=stores("configuration")
    ),
]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys; none: all.", show_default=False)]
Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="Namespace within the store.")]
Label = Annotated[str | None, typer.Option("--label", metavar="NAME", help="Variant of the values.")]


@config_app.command("get", short_help="Write values.")
def get(
    context: typer.Context,
    store: Store,
    keys: Keys = None,
    group: Group = None,
    label: Label = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items", help="All that is known of each item: a table on a terminal, else a JSON object a line."
        ),
    ] = False,
    output: Output = None,
) -> int:
    """Write the value of one KEY. Several are a table on a terminal, else a JSON object. Exit code 3 where a key has none."""
    keys = keys or []
    with connect(context.obj) as client:
        items_by_key = client.configuration.get_configuration_items(store, keys, group=group, label=label)
    missing = [key for key in keys if key not in items_by_key]
    if items:
        rows(map(_fields, items_by_key.values()), _COLUMNS, output)
    elif len(keys) == 1:
        if not missing:
            write(items_by_key[keys[0]].value.encode() + b"\n")
    else:
        record({key: item.value for key, item in items_by_key.items()}, output)
    if missing:
        complain(f"no key {', '.join(map(repr, missing))} in {store!r}")
        return NOT_FOUND
    return 0


def _fields(item: ConfigurationItem) -> dict[str, Any]:
    fields: dict[str, Any] = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return {**fields, "tags": dict(item.tags), "metadata": dict(item.metadata)}


@config_app.command("set", short_help="Save a value.")
def save(
    context: typer.Context,
    store: Store,
    key: Annotated[str, typer.Argument(help="Key.", show_default=False)],
    value: Annotated[str, typer.Argument(help="Text; - is stdin.", show_default=False)],
    group: Group = None,
    label: Label = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Tag of the item; repeatable.")] = None,
) -> int:
    """Save a value; its tags become those given."""
    from ..configuration import ConfigurationItem
    from ._values import pairs

    tags = dict(pairs(tag, "--tag"))
    if value == "-":
        try:
            value = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise UsageError("the value is not UTF-8: a value is text") from None
    items = [ConfigurationItem(key, value, tags=tags)]
    with connect(context.obj) as client:
        client.configuration.save_configuration(store, items, group=group, label=label)
    return 0


@config_app.command("delete")
def delete(
    context: typer.Context,
    store: Store,
    keys: Annotated[list[str], typer.Argument(help="Keys.", show_default=False)],
    group: Group = None,
    label: Label = None,
) -> int:
    """Delete keys; absent ones are fine."""
    with connect(context.obj) as client:
        client.configuration.delete_configuration(store, keys, group=group, label=label)
    return 0


@config_app.command("watch", short_help="Follow values.")
def watch(
    context: typer.Context,
    store: Store,
    keys: Keys = None,
    group: Group = None,
    label: Label = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N lines.")] = None,
    output: Output = None,
) -> int:
    """Write current values, then what changes, until interrupted: a table on a terminal, else a JSON object a line."""
    remaining, table = count, Table(_COLUMNS)
    with connect(context.obj) as client, stopping(interrupt=False) as stop:
        with client.configuration.subscribe_configuration(store, keys or [], group=group, label=label) as changes:
            while not stop.signal and remaining != 0:
                items = list((changes.receive(timeout=_LOOK) or {}).values())[:remaining]
                if items:
                    rows(map(_fields, items), _COLUMNS, output, table)
                if remaining is not None:
                    remaining -= len(items)
        return stop.code if stop.signal else 0
