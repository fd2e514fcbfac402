"""State that a member and its fetchers share: messages that came, and where its partitions stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Condition
from typing import TypeAlias

from ...spi.broker.policy import DeliveryPolicy
from .ledger import Ledger
from .messages import Run

Origin: TypeAlias = tuple[str, int]
"""A topic and a partition."""


class Fetched:
    """State that a member and its fetchers share, guarded by `changed`, which also notifies of a change.

    Attributes:
        rules: of the member.
        changed: see above.
        new: messages that were fetched, and where they came from.
        open: partition → messages that were taken and are not settled.
        ledgers: of the partitions that the member has.
        going: partitions that go to another member, and until when that waits; the member takes out what it has let
            go of.
        valid_until: when, by `time.monotonic`, the member may have lost its partitions without knowing; see
            `Fetcher._committed`.
        told: the `valid_until` that the member has read.
    """

    def __init__(self, rules: DeliveryPolicy) -> None:
        self.rules = rules
        self.changed = Condition()
        self.new: deque[tuple[Origin, Run]] = deque()
        self.open: dict[Origin, int] = {}
        self.ledgers: dict[Origin, Ledger] = {}
        self.going: dict[Origin, float] = {}
        self.valid_until = self.told = 0.0

    def add(self, topic: str, runs: Sequence[Run]) -> None:
        """Take in messages that were fetched, without telling of them."""
        with self.changed:
            for run in runs:
                origin = topic, run.partition
                if not self.new or self.new[-1][0] != origin or not self.new[-1][1].join(run):
                    self.new.append((origin, run))

    def tell(self) -> None:
        """Tell of a change."""
        with self.changed:
            self.changed.notify_all()

    def take(self, limit: int) -> list[tuple[Origin, Run]]:
        """Return messages that were fetched."""
        taken = []
        with self.changed:
            while self.new and limit > 0:
                origin, run = self.new.popleft()
                if len(run.offsets) > limit:
                    run, rest = run.split(limit)
                    self.new.appendleft((origin, rest))
                taken.append((origin, run))
                limit -= len(run.offsets)
            self.changed.notify_all()
        return taken
