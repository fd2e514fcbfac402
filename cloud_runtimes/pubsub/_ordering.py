"""Order by key in a member: what its `Fetcher` does beyond others for ``order="key"``.

The source delivers the events of a key to one member at a time, in order. Here of each key one event at a time is ready or handled. An event that comes again waits in memory and holds back its key; the source learns of it when it is handled or given up.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from time import monotonic, time_ns
from typing import Any, Final

from .._native import events as kernel
from ..spi.broker.policy import DeliveryPolicy
from ..spi.pubsub import Cause, EventSource, Settlement, Settlements, SubscribeRequest
from .types import Event

WAITING: Final = 16
"""So many times ``max_in_flight`` events may wait for earlier ones of their keys before no more are fetched."""
_LOOK_AGAIN: Final = 0.05


class KeyOrder:
    """The keys of one member.

    Attributes:
        queue: its events that are ready, and those that wait.
        is_paused: whether none of them may be handed out.
    """

    def __init__(
        self,
        ready: deque[Event[Any]],
        source: EventSource,
        pubsub_name: str,
        request: SubscribeRequest,
        counts: dict[str, int],
    ) -> None:
        self.queue = kernel.KeyedQueue(ready)
        self.is_paused = False
        self._source = source
        self._counts = counts
        self._policy = DeliveryPolicy(pubsub_name, request)
        self._revision = source.revision
        self.queue.until = source.valid_until
        # when, a number, the event, and the number of its next delivery
        self._later: list[tuple[float, int, Event[Any], int]] = []
        self._numbers = itertools.count()

    @property
    def may_take(self) -> bool:
        """Whether events may be handed out: the source's leases hold."""
        return bool(self.queue.until >= monotonic())

    def settle(
        self,
        events: Sequence[Event[Any]],
        settlement: Settlement,
        delay: float | None,
        cause: Cause | None,
        telling: Settlements,
    ) -> int:
        """Tell the source of events that need no further delivery by this member, and note the others; return how many it is told of."""
        done = 0
        for event in events:
            # one that its key has left behind was acknowledged a moment ago, which is on its way here
            if event._settlement is not None or not self.queue.keep(event):
                continue
            count = event.delivery_count or 1
            answer = self._policy.decide(settlement, delay, cause, count)
            kernel.settle_events((event,), settlement)
            self._counts[settlement.value] += 1
            if isinstance(answer, Cause):
                answer = answer._replace(deliveries=count, last_us=time_ns() // 1000)
                telling.add((event._token,), Settlement.DROP, None, answer)
            elif _has_left(event):
                telling.add((event._token,), Settlement.RELEASE)
            else:
                at = monotonic() + answer / 1000
                if settlement is Settlement.RETRY:
                    self._source.failed(event._token, count)
                heappush(self._later, (at, next(self._numbers), event, count + (settlement is Settlement.RETRY)))
                continue
            self.queue.replace(event, None)
            done += 1
        return done

    def repeat(self, is_handled: Callable[[Event[Any]], bool]) -> bool:
        """Make events ready that are due again, unless a handler that takes too long still has them; return whether any is."""
        now = monotonic()
        ready = False
        while self._later and self._later[0][0] <= now:
            _, number, event, count = heappop(self._later)
            if is_handled(event):
                heappush(self._later, (now + _LOOK_AGAIN, number, event, count))
                continue
            again: Event[Any] = Event(
                event._record,
                fetcher=event._fetcher,
                token=event._token,
                pubsub_name=event.pubsub_name,
                delivery_count=count,
                type=event._type,
                raw=event._raw,
            )
            if self.queue.replace(event, again):
                self._counts["again"] += count > 1
                ready = True
        return ready

    def answer_late(self, events: Sequence[Event[Any]], telling: Settlements) -> int:
        """Acknowledge those of the events that wait for another delivery; return how many do."""
        late = set(map(id, events))
        answered = [entry[2] for entry in self._later if id(entry[2]) in late]
        if answered:
            self._later = [entry for entry in self._later if id(entry[2]) not in late]
            heapify(self._later)
            telling.add([event._token for event in answered], Settlement.ACK)
            for event in answered:
                self.queue.replace(event, None)
        return len(answered)

    def next_due(self, limit: float) -> float:
        """Return in how many seconds `repeat` has something to do, at most ``limit``."""
        return min(limit, max(0.001, self._later[0][0] - monotonic())) if self._later else limit

    def follow(self, telling: Settlements) -> int:
        """Give back what must not be handed out any more; return how many events the source is told of."""
        until = 0.0 if self.is_paused else self._source.valid_until
        if self._source.revision == self._revision:
            self.queue.until = until
            return 0
        self._revision = self._source.revision
        swept = self.queue.sweep()
        self.queue.until = until  # what was lost was taken out before a lease of later on lets anything be taken
        kernel.settle_events(swept, Settlement.RELEASE)
        later = [entry[2] for entry in self._later if _has_left(entry[2])]
        self._later = [entry for entry in self._later if not _has_left(entry[2])]
        heapify(self._later)
        for event in later:
            self.queue.replace(event, None)
        telling.add([event._token for event in (*swept, *later)], Settlement.RELEASE)
        return len(swept) + len(later)

    def pending(self) -> list[Any]:
        """Return the tokens of events that wait for another delivery."""
        return [event._token for _, _, event, _ in self._later]


def _has_left(event: Event[Any]) -> bool:
    """Return whether the source gives an event to another member, or has lost it."""
    marks = getattr(event._token, "marks", None)
    return marks is not None and (marks.void or marks.leaving)
