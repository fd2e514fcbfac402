"""Entries of a store that cannot be read: skipped, and named once.

A store is shared with other programs, older and newer versions, and hands that type. One entry that cannot be read must not hide the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from .._core.logs import once
from ..errors import PayloadError

S = TypeVar("S")
T = TypeVar("T")


def read_entries(where: str, entries: Iterable[S], name: Callable[[S], str], read: Callable[[S], T]) -> Iterator[T]:
    """Yield each entry as ``read`` returns it; skip those for which it raises.

    Args:
        where: the store, for the log.
        entries: as the store has them.
        name: returns what the log calls an entry.
        read: parses one entry, without I/O.
    """
    for entry in entries:
        try:
            yield read(entry)
        except Exception as error:
            skip(where, name(entry), error)


def skip(where: str, entry: str, error: Exception) -> None:
    """Log, once for each entry, that it is left out because it cannot be read."""
    what = "%s: the entry %r cannot be read and is skipped (%s: %s). Save it again, or delete it."
    once(f"unreadable {where} {entry}", what, where, entry, type(error).__name__, error)


def unreadable(what: str, error: Exception) -> PayloadError:
    """Return the error of a call that asks for one entry which cannot be read."""
    payload_error = PayloadError(
        f"{what} cannot be read ({type(error).__name__}: {error}): save it again, or delete it"
    )
    payload_error.__cause__ = error
    return payload_error
