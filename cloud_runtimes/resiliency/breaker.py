"""A circuit breaker, of one target, shared by all threads and loops that call it; and what became of the target's calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from .._core.threads import Mutex
from .policies import BreakerPolicy, Counts

State = Literal["closed", "open", "half open"]


@dataclass(frozen=True, slots=True)
class TargetStats:
    """Statistics of the calls of a target since the client was created, or forked.

    Attributes:
        calls: first attempts that were let through.
        retries: further attempts.
        over_budget: retries skipped because the budget was used up.
        refused: attempts that the breaker did not let through.
        state: of the breaker; ``None``: there is none.
    """

    calls: int = 0
    retries: int = 0
    over_budget: int = 0
    refused: int = 0
    state: State | None = None


_NEVER: Final = float("inf")


class Breaker:
    """Lets calls through, or says how long it will not.

    Each change of its state begins a *generation*: what a call of an earlier one comes to is not counted. ``changed`` is told the new state, outside of the lock.
    """

    def __init__(self, policy: BreakerPolicy, now: Callable[[], float], changed: Callable[[State], None]) -> None:
        self._policy = policy
        self._now = now
        self._changed = changed
        self._lock = Mutex()
        self._state: State = "closed"
        self._generation = 0
        self._counts = Counts()
        # when it is half open, or begins to count anew
        self._until = self._window()

    @property
    def state(self) -> State:
        """Current state; an open breaker that admits probes is half open."""
        with self._lock:
            return "half open" if self._state == "open" and self._now() >= self._until else self._state

    def refuses_for(self) -> float | None:
        """Return the seconds for which it certainly refuses; ``None``: it may let a call through."""
        with self._lock:
            remaining = self._until - self._now()
            return remaining if self._state == "open" and remaining > 0 else None

    def enter(self) -> int | float:
        """Let a call through, and return its generation (an int), or the seconds after which one may be let through (a float)."""
        new_state: State | None = None
        with self._lock:
            now = self._now()
            if self._state == "open":
                if now < self._until:
                    return self._until - now
                new_state = self._begin("half open", now)
            elif self._state == "half open" and self._counts.requests >= self._policy.probes:
                # probes that never came back must not keep it so for ever
                if now < self._until:
                    return self._until - now
                self._begin("half open", now)
            elif now >= self._until:  # what is under way still counts, in the new interval
                self._counts, self._until = Counts(), self._window()
            self._counts.requests += 1
            generation = self._generation
        if new_state is not None:
            self._changed(new_state)
        return generation

    def leave(self, generation: int, good: bool | None) -> None:
        """Count what a call came to; ``None``: it says nothing about the target."""
        new_state: State | None = None
        with self._lock:
            if generation != self._generation:
                return
            counts = self._counts
            if good is None:
                counts.requests = max(0, counts.requests - 1)
            elif good:
                counts.total_successes += 1
                counts.consecutive_successes += 1
                counts.consecutive_failures = 0
                if self._state == "half open" and counts.consecutive_successes >= self._policy.probes:
                    new_state = self._begin("closed", self._now())
            else:
                counts.total_failures += 1
                counts.consecutive_failures += 1
                counts.consecutive_successes = 0
                if self._state == "half open" or self._policy.trip(counts):
                    new_state = self._begin("open", self._now())
        if new_state is not None:
            self._changed(new_state)

    def _begin(self, state: State, now: float) -> State:
        self._state = state
        self._generation += 1
        self._counts = Counts()
        self._until = self._window() if state == "closed" else now + self._policy.timeout
        return state

    def _window(self) -> float:
        return self._now() + self._policy.interval if self._policy.interval else _NEVER
