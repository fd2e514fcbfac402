"""Mending over brokers: events that were sent back to their group, and errors of what must not be mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..._native import events as kernel
from ...errors import ConflictError, NotFoundError
from ..admin import Target
from ..events import EventRecord, undo_dead_letter
from .policy import DeliveryHistory

BACK: Final = DeliveryHistory(redriven=True)
"""History of an event that was sent back to its group alone."""


def sent_back(letter: EventRecord, to: Target) -> tuple[tuple[str, str], bytes]:
    """Return topic and group (``""``: all) that a dead letter goes back to, and the event that it was, as a frame."""
    says = letter.extensions
    topic = str(says["dltopic"])
    frame: bytes = kernel.build_frame(letter.source, letter.type, topic, (undo_dead_letter(letter),))
    return (topic, str(says["dlgroup"]) if to == "group" else ""), frame


def group_is_gone(pubsub: str, topic: str, group: str) -> NotFoundError:
    """Return the error of a letter whose group is not there."""
    return NotFoundError(
        f"{pubsub}/{topic} has no group {group!r} any more, whose dead letters these are: "
        'let it subscribe first, redrive those of another group, or to="topic"'
    )


def has_members(pubsub: str, topic: str, group: str, members: Sequence[str], seconds: float) -> ConflictError:
    """Return the error of a group with members, of which one that was killed counts for so long."""
    some = ", ".join(sorted(members)[:3])
    return ConflictError(
        f"{pubsub}/{topic}: the group {group!r} has members: stop them first ({some}); "
        f"one that was killed counts for {seconds:g} s"
    )
