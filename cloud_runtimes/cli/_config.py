"""``config get|set|delete|watch``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, Final

from ..configuration import ConfigurationItem
from ._errors import NOT_FOUND, UsageError
from ._session import Invocation, connect
from ._streams import complain, stopping, write
from ._tables import Table, record, rows

__all__ = ["delete", "get", "save", "watch"]

_COLUMNS: Final = ("key", "value", "version", "group", "label")

_LOOK: Final = 0.2
"""Seconds between looks at signals."""


def _fields(item: ConfigurationItem) -> dict[str, Any]:
    fields: dict[str, Any] = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return {**fields, "tags": dict(item.tags), "metadata": dict(item.metadata)}


def get(
    invocation: Invocation, store: str, keys: Sequence[str], *, group: str | None, label: str | None, items: bool
) -> int:
    """Write one value, or several as a JSON object; with ``items`` all that is known of each, a line each."""
    with connect(invocation) as client:
        found = client.configuration.get_configuration_items(store, keys, group=group, label=label)
    missing = [key for key in keys if key not in found]
    if items:
        rows(map(_fields, found.values()), _COLUMNS)
    elif len(keys) == 1:
        if not missing:
            write(found[keys[0]].value.encode() + b"\n")
    else:
        record({key: item.value for key, item in found.items()})
    if missing:
        complain(f"no key {', '.join(map(repr, missing))} in {store!r}")
        return NOT_FOUND
    return 0


def save(
    invocation: Invocation,
    store: str,
    key: str,
    value: str,
    *,
    group: str | None,
    label: str | None,
    tags: Sequence[str],
) -> int:
    """Save a value."""
    named = {}
    for each in tags:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise UsageError(f"--tag {each!r}: give NAME=VALUE")
        named[name] = text
    if value == "-":
        try:
            value = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise UsageError("the value is not UTF-8: a value is text") from None
    with connect(invocation) as client:
        client.configuration.save_configuration(
            store, [ConfigurationItem(key, value, tags=named)], group=group, label=label
        )
    return 0


def delete(invocation: Invocation, store: str, keys: Sequence[str], *, group: str | None, label: str | None) -> int:
    """Delete keys."""
    with connect(invocation) as client:
        client.configuration.delete_configuration(store, keys, group=group, label=label)
    return 0


def watch(
    invocation: Invocation,
    store: str,
    keys: Sequence[str],
    *,
    group: str | None,
    label: str | None,
    count: int | None,
) -> int:
    """Write current values, then what changes, until ``count`` lines or a signal; return the exit code."""
    left, table = count, Table(_COLUMNS)
    with connect(invocation) as client, stopping(interrupt=False) as stop:
        with client.configuration.subscribe_configuration(store, keys, group=group, label=label) as changes:
            while not stop.signal and left != 0:
                items = list((changes.receive(timeout=_LOOK) or {}).values())[:left]
                if items:
                    rows(map(_fields, items), _COLUMNS, table)
                if left is not None:
                    left -= len(items)
        return stop.code if stop.signal else 0
