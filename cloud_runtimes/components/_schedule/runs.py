"""A member of an application's runners: the runs that it holds, when it renews them and how long it waits. What a database does for it, a subclass writes."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from ..._core.logs import once
from ...spi.operation import Method, Operation
from ...spi.schedule import DueRun, Outcome, RunSource, StoredJob
from .jobs import Advance, advance

if TYPE_CHECKING:
    from .._log.member import Waits

CHANNEL: Final = "schedule"
_EXCHANGE: Final = Method("schedule", "run", repeatable=False)
_TIMEOUT: Final = 10.0
_IDLE: Final = 0.05
_LONGEST: Final = 1.0
_ASIDE: Final = 60.0
"""Seconds for which a member leaves a job to others that it cannot run."""


class RunToken(NamedTuple):
    """A try of a run."""

    id: int
    attempt: int


class LeasedRuns(RunSource):
    """See the module.

    Attributes:
        lease_ms: how long a lease lasts without a renewal. Holders renew three times as often.
        look_every: seconds after which a runner looks by itself.
    """

    lease_ms: ClassVar[int] = 15_000
    look_every: ClassVar[float] = 1.0

    def __init__(self, app: str, handlers: Callable[[], frozenset[str]]) -> None:
        self._app = app
        self._handlers = handlers
        self._member = os.urandom(16).hex()
        # run → until when it is held, by `_clock`
        self._held: dict[Any, float] = {}
        self._renew_at = 0.0
        self._waiter: Waits | None = None
        self._next = 0.0
        # versions of jobs that this process cannot run, which no look counts
        self._aside: set[str] = set()
        self._aside_until = 0.0

    # -- what a database does ---------------------------------------------

    def _clock(self) -> float:
        """Return the seconds of the clock by which leases end for their holder."""
        return time.monotonic()

    @abstractmethod
    def _subscribe(self) -> Waits:
        """Return what wakes it on `CHANNEL`."""

    # -- exchange ---------------------------------------------------------

    def _to_renew(self) -> list[RunToken]:
        """Return the runs whose leases are to be renewed now. The first call subscribes."""
        if self._waiter is None:
            self._waiter = self._subscribe()
        return [] if self._clock() < self._renew_at else list(self._held)

    def _is_due(self, pauses: Iterable[int | None]) -> bool:
        """Take the milliseconds until something can be claimed; returns whether it can be now."""
        self._next = max(0.0, min([_LONGEST, *(pause / 1000 for pause in pauses if pause is not None)]))
        return self._next == 0.0

    def _operation(self) -> Operation:
        return Operation(_EXCHANGE, "schedule", _TIMEOUT)

    def _look_again(self) -> bool:
        """Count what was set aside long enough ago, as a time zone may be known by now; returns whether there was any."""
        if not self._aside or self._clock() < self._aside_until:
            return False
        self._aside.clear()
        return True

    def _set_aside(self, job: StoredJob, version: str, error: Exception | None = None) -> None:
        """Leave a job to other processes until it is another version, or for a while. ``error`` is why, where reading the job did not tell."""
        if error is not None:
            name = job.spec.name
            once(f"job {name}", "the job %r is due, but not run by this process: %s", name, error)
        if not self._aside:
            self._aside_until = self._clock() + _ASIDE
        self._aside.add(version)

    def _advance(self, job: StoredJob, version: str, now: int) -> Advance | None:
        """Return how a job that is due moves on; ``None``: not by this process, which sets it aside."""
        try:
            if job.error is None:
                return advance(job, now)
        except Exception as error:
            self._set_aside(job, version, error)
        else:
            self._set_aside(job, version)
        return None

    def _take(
        self,
        outcomes: Sequence[Outcome],
        renew: Sequence[RunToken],
        renewed: Sequence[RunToken],
        runs: Sequence[DueRun],
        want: int,
        until: float,
    ) -> Sequence[DueRun]:
        """Hold what was renewed and claimed until its lease ends. What could not be renewed is lost."""
        for token in (*renew, *(outcome.token for outcome in outcomes)):
            self._held.pop(token, None)
        self._held |= dict.fromkeys((*renewed, *(run.token for run in runs)), until)
        if renew or not self._renew_at:
            self._renew_at = until - self.lease_ms / 1500
        self._next = 0.0 if len(runs) == want and want else _IDLE
        return runs

    # -- the rest of the SPI ----------------------------------------------

    def holds(self, token: object, /) -> bool:
        return self._clock() < self._held.get(token, 0.0)

    def wait(self, seconds: float, /) -> None:
        waiter = self._waiter
        if waiter is None:  # the store could not be opened
            time.sleep(min(seconds, self.look_every))
            return
        pause = min(seconds, self._next, self.look_every)
        if self._held:
            pause = min(pause, max(0.0, self._renew_at - self._clock()))
        waiter.wait(pause)

    def wake(self) -> None:
        if (waiter := self._waiter) is not None:
            waiter.wake()

    def close(self, outcomes: Sequence[Outcome], /) -> None:
        try:
            if outcomes:
                self.exchange(outcomes, 0)
        finally:
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
