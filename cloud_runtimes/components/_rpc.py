"""Servers in a registry, as a store has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..rpc.registry import Entry
from ._unreadable import read_entries


def read_servers(app_id: str, rows: Iterable[Sequence[Any]], text: Callable[[Any], str] = str) -> list[Entry]:
    """Return the servers of an application, without entries that cannot be read.

    Args:
        app_id: of the application.
        rows: instance and address of each.
        text: makes text of what the store has.
    """

    def read(row: Sequence[Any]) -> Entry:
        instance, address = map(text, row)
        return Entry(instance, app_id, address)

    return list(read_entries(f"services of {app_id!r}", rows, lambda row: str(row[0]), read))


def read_entered(rows: Iterable[Sequence[Any]], text: Callable[[Any], str] = str) -> list[Entry]:
    """Return the servers of all applications, without entries that cannot be read. ``rows``: instance, application, address and what else each tells."""

    def read(row: Sequence[Any]) -> Entry:
        instance, app_id, address, about = row
        return Entry(text(instance), text(app_id), text(address), text(about) if about else "")

    return list(read_entries("services", rows, lambda row: str(row[0]), read))
