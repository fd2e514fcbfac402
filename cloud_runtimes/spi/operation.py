"""Call of a service, without I/O: its name, deadline, attempt, and the meaning of its failure.

An `Operation` never sleeps or sends. The services do the waiting; they ask `failed` what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, ClassVar, Final

from .._core.backoff import FULL, Backoff
from .._core.os_errors import resource_exhausted
from ..errors import CloudRuntimesError, DeadlineExceededError, InternalError, UnsupportedError

__all__ = ["Method", "Operation", "end_driver", "ends_driver", "mark_interrupted", "set_context"]


MAX_ATTEMPTS: Final = 3
_BACKOFF: Final = Backoff(0.1, 2.0, jitter=FULL)


class Method:
    """Properties shared by all calls of a service method.

    Attributes:
        service, name: as in ``state.get``.
        repeatable: whether a failed attempt may be repeated.
        writes: whether it may change anything, so that an interrupted call has to say whether it did.
        handle: whether it opens a handle or is a step of one. Policies skip it: an interrupt between driver and
            service would leak the handle.
    """

    __slots__ = ("handle", "name", "repeatable", "service", "writes")

    def __init__(self, service: str, name: str, *, repeatable: bool, writes: bool = True, handle: bool = False) -> None:
        self.service = service
        self.name = name
        self.repeatable = repeatable
        self.writes = writes
        self.handle = handle

    def __repr__(self) -> str:
        return f"{self.service}.{self.name}"


class Operation:
    """Call of a service method.

    Attributes:
        method: the service method.
        component: the store or bus named by the caller.
        timeout: seconds for all attempts; ``None``: no limit.
        deadline: `time.monotonic` at which they are over.
        repeatable: whether this call may be repeated (a conditional write may not).
        metadata: for the component, untouched.
        attempt: 1 for the first.
        maybe_applied: whether an earlier attempt may have been applied.
        span: of the call; set only where calls have spans.
        one_attempt: set where the time is that of one attempt, not of the call.
        argument: the argument that gave the time.
    """

    __slots__ = (
        "attempt",
        "component",
        "deadline",
        "maybe_applied",
        "metadata",
        "method",
        "one_attempt",
        "repeatable",
        "span",
        "timeout",
    )
    argument: ClassVar[str] = "timeout"
    one_attempt: bool
    span: Any

    def __init__(
        self, method: Method, component: str, timeout: float | None, metadata: Mapping[str, str] | None = None
    ) -> None:
        self.method = method
        self.component = component
        self.timeout = timeout
        self.deadline = None if timeout is None else monotonic() + timeout
        self.repeatable = method.repeatable
        self.metadata = metadata
        self.attempt = 1
        self.maybe_applied = False

    def remaining(self) -> float | None:
        """Seconds left, ``None`` for no limit; never negative."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - monotonic())

    def timed_out(self, waiting_for: str, *, maybe_applied: bool = False) -> DeadlineExceededError:
        """Return the error for a deadline that passed."""
        remedy = "raise timeout in [resiliency]" if hasattr(self, "one_attempt") else f"give a longer {self.argument}="
        return DeadlineExceededError(
            f"{self.method}: {self.timeout:g} s were not enough for {self.component!r} (waiting for {waiting_for}); "
            f"{remedy}",
            maybe_applied=maybe_applied,
        )

    def limited(self, seconds: float) -> Operation:
        """Return this call for one attempt that has so long; itself where it has no longer than that anyway.

        A copy, since a driver that is left behind must not see the time of the next attempt.
        """
        deadline = monotonic() + seconds
        if self.deadline is not None and self.deadline <= deadline:
            return self
        copy = self._copy()
        copy.timeout, copy.deadline, copy.one_attempt = seconds, deadline, True
        return copy

    def following(self) -> Operation:
        """Return the next step of a call of several: it has the same deadline, and attempts of its own."""
        copy = self._copy()
        copy.attempt, copy.maybe_applied = 1, False
        return copy

    def _copy(self) -> Operation:
        """Return a copy; `copy.copy` takes four times as long."""
        copy: Operation = object.__new__(type(self))
        copy.method, copy.component, copy.metadata = self.method, self.component, self.metadata
        copy.timeout, copy.deadline = self.timeout, self.deadline
        copy.repeatable, copy.attempt, copy.maybe_applied = self.repeatable, self.attempt, self.maybe_applied
        for name in ("span", "one_attempt"):
            if hasattr(self, name):
                setattr(copy, name, getattr(self, name))
        return copy

    def mapped(self, error: Exception, runtime: str) -> CloudRuntimesError:
        """Return the error of a failed attempt as one of ours: itself, else wrapped; it says where it happened, and whether any attempt may have been applied."""
        mapped = error if isinstance(error, CloudRuntimesError) else self._wrap(error)
        set_context(mapped, self.method, self.component, runtime)
        self.maybe_applied = mapped.maybe_applied = mapped.maybe_applied or self.maybe_applied
        return mapped

    def failed(self, error: Exception, runtime: str) -> float:
        """Return the seconds to wait before the next attempt, which is counted here; where there is none, raise ``error``, wrapped once where it is not ours."""
        mapped = self.mapped(error, runtime)
        if mapped.retryable and self.repeatable and self.attempt < MAX_ATTEMPTS:
            delay = _BACKOFF.after(self.attempt)
            if self.deadline is None or monotonic() + delay < self.deadline:
                self.attempt += 1
                return delay
        if mapped is error:
            raise error
        raise mapped from error

    def interrupted(self, error: BaseException) -> None:
        """Complete what a ``CancelledError`` or ``KeyboardInterrupt`` that leaves the call says in ``maybe_applied``."""
        # a driver that says nothing was interrupted where it did not know
        said = getattr(error, "maybe_applied", self.method.writes)
        mark_interrupted(error, said or self.maybe_applied)

    def _wrap(self, error: Exception) -> CloudRuntimesError:
        if (exhausted := resource_exhausted(error)) is not None:
            return exhausted
        if isinstance(error, RuntimeError) and str(error) == "no running event loop":
            return UnsupportedError(
                f"{self.method}_async runs on asyncio, and no loop of it runs here: under trio call {self.method} "
                "in a thread, by trio.to_thread.run_sync, or run asyncio"
            )
        return InternalError(f"{self.method} on {self.component!r} failed: {type(error).__name__}: {error}")


def set_context(error: CloudRuntimesError, method: Method, component: str | None, runtime: str | None) -> None:
    """Say on an error where it happened, as far as it does not yet."""
    error.service = error.service or method.service
    error.operation = error.operation or method.name
    error.component = error.component or component
    error.runtime = error.runtime or runtime


def mark_interrupted(error: BaseException, maybe_applied: bool) -> None:
    """Tell on a ``CancelledError`` or ``KeyboardInterrupt`` whether the write may have happened."""
    interrupted: Any = error
    interrupted.maybe_applied = maybe_applied


def end_driver(error: CloudRuntimesError) -> None:
    """Have the service make another driver for its next call: the one that raises this error serves nothing any more."""
    ending: Any = error
    ending._ends_driver = True


def ends_driver(error: BaseException) -> bool:
    """Return whether `end_driver` was called for an error."""
    return getattr(error, "_ends_driver", False)
