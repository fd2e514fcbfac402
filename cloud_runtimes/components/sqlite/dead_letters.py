"""Dead letters of a consumer group: events that go to another topic of the log, and what is told of them."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..._core.clocks import Clocks
from ..._native import events as kernel
from ...errors import CloudRuntimesError
from ...spi.events import dead_letter
from ...spi.pubsub import Cause, SubscribeRequest
from . import log
from .write_task import WriteTask

__all__ = ["DeadLetter", "DeadLetters"]

_PAST_KEPT: Final = 4096


class _Past(NamedTuple):
    """What this member remembers of an event that comes again: its first and last delivery (microseconds since 1970 UTC), and the last error."""

    first: int | None
    last: int | None
    error: str | None


_NO_PAST: Final = _Past(None, None, None)


class DeadLetter(NamedTuple):
    """An event for the dead-letter topic: where it is, why it goes there, and how often the group got it."""

    frame: int
    place: int
    cause: Cause
    deliveries: int


class DeadLetters:
    """The dead letters of one member.

    Args:
        pubsub: the component's name.
        request: of the member.
        clocks: of the engine.
    """

    def __init__(self, pubsub: str, request: SubscribeRequest, clocks: Clocks) -> None:
        self._pubsub = pubsub
        self._request = request
        self._clocks = clocks
        self._label = f"{pubsub}/{request.topic}/{request.group}"
        # of events that were retried, by frame and place
        self._past: OrderedDict[tuple[int, int], _Past] = OrderedDict()

    def store(self, connection: sqlite3.Connection, events: Sequence[DeadLetter], task: WriteTask) -> None:
        """Move events to the dead-letter topic, or count them as dropped."""
        target = self._request.dead_letter_topic
        if target is None:
            log.count(connection, f"dropped:{self._label}", len(events))
            return
        topic = log.find_topic(connection, self._pubsub, target)
        wall = self._clocks.wall_ms()
        by_frame: dict[int, list[DeadLetter]] = {}
        for event in events:
            by_frame.setdefault(event.frame, []).append(event)
        for number, body in log.bodies(connection, list(by_frame)).items():
            frame = kernel.Frame(body)
            records = [self._record(frame, event) for event in by_frame[number]]
            built = kernel.build_frame(frame.source, frame.type, frame.topic, records)
            log.append(connection, topic, len(records), built, wall)
        log.count(connection, f"dead_lettered:{self._label}", len(events))
        task.channels += (log.topic_channel(topic),)

    def _record(self, frame: kernel.Frame, event: DeadLetter) -> bytes:
        past = self._past.get((event.frame, event.place), _NO_PAST)
        cause = event.cause if event.cause.error else event.cause._replace(error=past.error)
        try:
            return dead_letter(
                frame[event.place],
                cause,
                topic=self._request.topic,
                group=self._request.group,
                count=event.deliveries,
                first_us=past.first,
                last_us=past.last,
            )
        except CloudRuntimesError:  # of another writer, with attributes that ours may not have: it goes as it is
            return frame.record_bytes(event.place)

    def remember(self, record: kernel.ClaimedRecord, cause: Cause | None) -> None:
        """Note what a dead letter will tell of an event that was delivered and not acknowledged."""
        held = record.marks
        place = held.claim.frame, held.claim.start + record.place
        past = self._past.pop(place, _NO_PAST)
        first = held.at if held.claim.deliveries == 1 else past.first
        error = past.error if cause is None else cause.error
        self._past[place] = _Past(first, held.at, error)
        if len(self._past) > _PAST_KEPT:
            self._past.popitem(last=False)
