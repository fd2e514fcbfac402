"""How soon an event comes again, when it is given up, and what a dead letter says: alike for every component."""

from __future__ import annotations

import itertools
import os
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from ..._core.logs import repeated
from ..._native import events as kernel
from ...errors import CloudRuntimesError, ConflictError
from .. import pubsub as spi
from ..admin import MemberInfo
from ..events import dead_letter_record
from ..operation import Method
from ..pubsub import Cause, Settlement, SubscribeRequest

FEATURES: Final = frozenset(
    {
        spi.TTL,
        spi.DELAY,
        spi.RAW,
        spi.GROUP,
        spi.START,
        spi.START_TIME,
        spi.SUBSCRIBE,
        spi.ACK_WAIT,
        spi.MAX_DELIVERIES,
        spi.DEAD_LETTER,
        spi.RETRY_DELAY,
        spi.DELIVERY_COUNT,
        spi.LAG,
    }
)
"""What a component has that keeps events and counts their deliveries."""
POLL: Final = Method("pubsub", "receive", repeatable=False)
POLL_TIMEOUT: Final = 30.0
LOOK_TIMEOUT: Final = 2.0
"""Seconds in which a member learns whether its group is paused; it renews nothing meanwhile."""
_DEFAULT_ACK_WAIT: Final = 30.0
_DEFAULT_DELIVERIES: Final = 5
_MAX_BACK_OFF_MS: Final = 60_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_numbers = itertools.count()

LATEST: Final = 2**63 - 1
"""Behind everything that was published."""


def begins_at(request: SubscribeRequest) -> int | None:
    """Return when the first event of a new group was published at the earliest, in milliseconds since 1970 UTC; ``None``: at any time, `LATEST`: it was not yet."""
    if isinstance(request.start, datetime):
        return max(0, (request.start - _EPOCH) // timedelta(milliseconds=1))
    return LATEST if request.start == "latest" else None


def member_info(name: str, in_flight: int | None, since: datetime | None = None) -> MemberInfo:
    """Return what the name of a member tells, see `DeliveryPolicy`. Another program's may tell nothing."""
    host, *ids = name.rsplit("-", 3)
    pid = int(ids[0]) if len(ids) == 3 and ids[0].isdecimal() else None
    return MemberInfo(name, None if pid is None else host, pid, since, in_flight)


class DeliveryHistory(NamedTuple):
    """Earlier deliveries of an event: its first and last delivery (microseconds since 1970 UTC), and the last error. ``redriven``: it was sent back to its group alone."""

    first: int | None = None
    last: int | None = None
    error: str | None = None
    redriven: bool = False

    def after(self, at: int, deliveries: int, cause: Cause | None) -> DeliveryHistory:
        """Return the history after a delivery, the one of this number."""
        first, error = at if deliveries == 1 else self.first, self.error if cause is None else cause.error
        return DeliveryHistory(first, at, error, self.redriven)


NO_HISTORY: Final = DeliveryHistory()


class DeliveryPolicy:
    """The rules of one member.

    Attributes:
        pubsub: name of the bus.
        request: of the member.
        name: of the member, with its host and process; no other has it.
        label: what counters and messages call the group.
        ack_wait_ms: how long a lease lasts.
        max_deliveries: ``None``: no limit.
    """

    def __init__(self, pubsub: str, request: SubscribeRequest) -> None:
        self.pubsub = pubsub
        self.request = request
        host = re.sub("[^A-Za-z0-9]+", "-", socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"
        self.label = f"{pubsub}/{request.topic}/{request.group}"
        self.ack_wait_ms = int((request.ack_wait or _DEFAULT_ACK_WAIT) * 1000)
        self.max_deliveries = request.max_deliveries or (_DEFAULT_DELIVERIES if request.dead_letter_topic else None)

    def check_order(self, *, has_order: bool) -> None:
        """Refuse a member that asks for another order than its group has.

        Raises:
            ConflictError: it does.
        """
        if has_order != (self.request.order is not None):
            has, wants = ('order="key"', "none") if has_order else ("no order", 'order="key"')
            raise ConflictError(
                f"the group {self.request.group!r} of {self.pubsub}/{self.request.topic} has {has} and this member asks for "
                f"{wants}: ask for the same, or take another group="
            )

    def is_exhausted(self, deliveries: int) -> bool:
        """Return whether an event that would be delivered for this time is given up instead, since its last holder died with it."""
        return self.max_deliveries is not None and deliveries > self.max_deliveries

    def decide(self, settlement: Settlement, delay: float | None, cause: Cause | None, deliveries: int) -> int | Cause:
        """Return in how many milliseconds an event that was not acknowledged comes again; a `Cause`: it does not."""
        if settlement is Settlement.DROP:
            return cause or Cause("dropped")
        if settlement is Settlement.RELEASE:
            return 0
        if self.max_deliveries is not None and deliveries >= self.max_deliveries:
            return cause or Cause("deliveries")
        return self.back_off(deliveries) if delay is None else int(delay * 1000)

    def back_off(self, deliveries: int) -> int:
        """Return the milliseconds until an event comes again that was delivered so often, where its handler asked for no delay."""
        return min(_MAX_BACK_OFF_MS, 1000 << min(max(deliveries - 1, 0), 10))

    def log_lost(self, events: int, cause: Cause) -> None:
        """Log events that failed, come no more and go to no dead-letter topic; a line a second at most."""
        why = "the last delivery failed" if cause.reason == "deliveries" else "they cannot be read"
        message = "%s: %d events are lost, since %s and there is no dead-letter topic: %s"
        repeated(f"lost {self.label}", message, self.label, events, why, cause.error or "their holder died", every=1.0)

    def dead_letter(
        self, frame: kernel.Frame, index: int, cause: Cause, deliveries: int, history: DeliveryHistory
    ) -> bytes:
        """Return the record of an event as a dead letter."""
        try:
            return dead_letter_record(
                frame[index],
                cause if cause.error else cause._replace(error=history.error),
                topic=self.request.topic,
                group=self.request.group,
                count=cause.deliveries or deliveries,
                first_us=history.first,
                last_us=cause.last_us or history.last,
            )
        except CloudRuntimesError:  # of another writer, with attributes that ours may not have: it goes as it is
            record: bytes = frame.record_bytes(index)
            return record
