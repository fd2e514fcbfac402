"""Events as messages of their own, the errors of messages as those of events, and what is known of events that come again, as the text of a header."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..._native import events as kernel
from ...codec.payload import OCTETS
from ...errors import CloudRuntimesError, PayloadError
from ..events import printable
from .policy import NO_HISTORY, DeliveryHistory

_PAST: Final = re.compile(r"(\+?)(\d{1,10}) (\d{1,18}) (\d{1,18})(?: (.*))?", re.ASCII | re.DOTALL)
REDRIVEN: Final = "+"
"""Beginning of the text about an event that was sent back to its group alone."""
_LAST: Final = 253_402_300_799_999_999
"""Microseconds from 1970 to the end of the year 9999."""
_MOST: Final = 2**31 - 1


def as_messages(frames: Sequence[bytes], *, raw: bool) -> list[tuple[str | None, bytes]]:
    """Return the events of frames as messages of their own: content type and data; ``None``: as structured JSON.

    ``raw``: events that were published without an envelope have none.
    """
    messages: list[tuple[str | None, bytes]] = []
    for frame in map(kernel.Frame, frames):
        if raw and frame[0].raw:
            records = [frame[index] for index in range(len(frame))]
            messages += [(record.content_type or OCTETS, record.payload) for record in records]
            continue
        try:
            messages += [(None, data) for data in frame.structured()]
        except PayloadError:  # of another writer, with attributes that have no JSON: as they are
            messages.append((None, frame.select(range(len(frame)))))
    return messages


def spread(counts: Sequence[int], errors: Mapping[int, CloudRuntimesError]) -> dict[int, CloudRuntimesError]:
    """Return the errors of messages as those of their events, by index.

    Args:
        counts: how many events each message has.
        errors: of messages, by index.

    Raises:
        CloudRuntimesError: all failed; the first error.
    """
    failures: dict[int, CloudRuntimesError] = {}
    index = 0
    for number, count in enumerate(counts):
        if (error := errors.get(number)) is not None:
            failures.update(dict.fromkeys(range(index, index + count), error))
        index += count
    if failures and len(failures) == index:
        raise failures[0]
    return failures


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
    for indexes in (range(half), range(half, len(whole))):
        yield from pieces(whole.select(indexes), room)


def singly(frame: bytes) -> list[bytes]:
    """Return each event of a frame as a frame: dead letters lie alone, so that each can be removed."""
    whole = kernel.Frame(frame)
    return [whole.select((index,)) for index in range(len(whole))]


def write_history(deliveries: int, history: DeliveryHistory) -> str:
    """Return how often an event was delivered and what is known of it, as text."""
    error = "" if history.error is None else history.error.replace("\n", " ")
    return f"{REDRIVEN if history.redriven else ''}{deliveries} {history.first or 0} {history.last or 0} {error}"


def read_history(text: str) -> tuple[int, DeliveryHistory]:
    """Read what `write_history` made; 0 and nothing where it is of another program."""
    match = _PAST.fullmatch(text)
    if match is None:
        return 0, NO_HISTORY
    redriven, deliveries, first, last, error = match.groups(default="")
    if max(int(first), int(last)) > _LAST:
        return 0, NO_HISTORY
    history = DeliveryHistory(int(first) or None, int(last) or None, printable(error) or None, bool(redriven))
    return min(int(deliveries), _MOST), history
