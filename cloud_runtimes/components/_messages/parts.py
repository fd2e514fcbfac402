"""Parts of messages that come again: frames that fit a broker, and what is known of their events, as the text of a header."""

from __future__ import annotations

from collections.abc import Iterator

from ..._native import events as kernel
from .._deliveries import NO_PAST, Past

__all__ = ["pieces", "read_past", "write_past"]


def pieces(frame: bytes, room: int) -> Iterator[bytes]:
    """Return a frame as frames of so many bytes at most; one event alone may have more."""
    count = len(frame) > room and len(kernel.Frame(frame))
    if not count or count == 1:
        yield frame
        return
    whole = kernel.Frame(frame)
    for places in (range(count // 2), range(count // 2, count)):
        yield from pieces(whole.select(places), room)


def write_past(deliveries: int, past: Past) -> str:
    """Return how often an event was delivered and what is known of it, as text."""
    error = "" if past.error is None else past.error.replace("\n", " ")
    return f"{deliveries} {past.first or 0} {past.last or 0} {error}"


def read_past(text: str) -> tuple[int, Past]:
    """Read what `write_past` made; 0 and nothing where it is of another program."""
    try:
        deliveries, first, last, *error = text.split(" ", 3)
        return int(deliveries), Past(int(first) or None, int(last) or None, "".join(error) or None)
    except ValueError:
        return 0, NO_PAST
