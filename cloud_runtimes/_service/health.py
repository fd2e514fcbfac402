"""Whether what runs in the background works: consumers, job runners and watchers live as long as their client."""

from __future__ import annotations

from typing import Final

from .._core.backoff import Backoff
from .._core.logs import kind_of, logger, repeated
from ..errors import ClosedError, CloudRuntimesError, InternalError, PayloadError

_FIRST: Final = 0.05
_LIMIT: Final = 30.0
_LIMIT_PASSING: Final = 2.0
"""Seconds between attempts after errors that pass by themselves, such as a server that restarts."""
_OF_CALLER: Final = frozenset(["INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"])


class Health:
    """Failures in a row of one consumer, runner or watcher, and the pauses after them.

    Attributes:
        name: of what runs, for the log.
        problem: the error of the last attempt; ``None``: it worked.
    """

    def __init__(self, name: str, service: str) -> None:
        self.name = name
        self._service = service
        self._backoff = Backoff(_FIRST, _LIMIT)
        self._has_worked = False
        self.problem: CloudRuntimesError | None = None

    def works(self) -> None:
        """Note an attempt that worked."""
        self._has_worked = True
        if self.problem is not None:
            self.problem = None
            self._backoff.reset()
            logger().info("%s works again", self.name)

    def failed(self, error: Exception) -> float | None:
        """Note an attempt that failed, and log each kind of failure once a minute.

        Returns the seconds until the next attempt. ``None``: there is none, since the client is closed, or since what was asked for cannot work and never has.
        """
        ours = error if isinstance(error, CloudRuntimesError) else self._unexpected(error)
        self.problem = ours
        if isinstance(ours, ClosedError) or (not self._has_worked and _is_of_caller(ours)):
            return None
        unexpected = ours.__cause__ if ours is not error else None
        repeated(f"{self.name} {kind_of(ours)}", "%s: %s; trying again", self.name, ours, exc_info=unexpected)
        passing = ours.retryable or ours.code == "DEADLINE_EXCEEDED"
        return min(self._backoff.next(), _LIMIT_PASSING if passing else _LIMIT)

    def _unexpected(self, error: Exception) -> CloudRuntimesError:
        wrapped = InternalError(f"{type(error).__name__}: {error}", service=self._service)
        wrapped.__cause__ = error
        return wrapped


def _is_of_caller(error: CloudRuntimesError) -> bool:
    """Return whether a first attempt failed since the caller asked for what is not possible; data is never the caller's."""
    return error.code in _OF_CALLER and not error.retryable and not isinstance(error, PayloadError)
