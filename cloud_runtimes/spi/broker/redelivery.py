"""Parts of messages that come again: frames that fit a broker, and what is known of their events, as the text of a header."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..._native import events as kernel
from ...errors import PayloadError
from ..events import printable
from .policy import NO_HISTORY, DeliveryHistory

__all__ = ["pieces", "read_history", "write_history"]

_PAST: Final = re.compile(r"(\d{1,10}) (\d{1,18}) (\d{1,18})(?: (.*))?", re.ASCII | re.DOTALL)
_LAST: Final = 253_402_300_799_999_999
"""Microseconds from 1970 to the end of the year 9999."""
_MOST: Final = 2**31 - 1


def pieces(frame: bytes, room: int) -> Iterator[bytes]:
    """Return a frame as frames of so many bytes at most; one event alone may have more, and so may a frame of a later version."""
    try:
        whole = kernel.Frame(frame) if len(frame) > room else None
    except PayloadError:
        whole = None
    if whole is None or len(whole) < 2:
        yield frame
        return
    half = len(whole) // 2
    for places in (range(half), range(half, len(whole))):
        yield from pieces(whole.select(places), room)


def write_history(deliveries: int, history: DeliveryHistory) -> str:
    """Return how often an event was delivered and what is known of it, as text."""
    error = "" if history.error is None else history.error.replace("\n", " ")
    return f"{deliveries} {history.first or 0} {history.last or 0} {error}"


def read_history(text: str) -> tuple[int, DeliveryHistory]:
    """Read what `write_history` made; 0 and nothing where it is of another program."""
    found = _PAST.fullmatch(text)
    if found is None or max(int(found[2]), int(found[3])) > _LAST:
        return 0, NO_HISTORY
    error = printable(found[4] or "")
    return min(int(found[1]), _MOST), DeliveryHistory(int(found[2]) or None, int(found[3]) or None, error or None)
