"""Interface of an exporter: it sends bytes of OTLP and reports the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

__all__ = ["Exporter", "RejectedError", "RetryError"]


class RetryError(Exception):
    """The batch was not taken but may be sent again: no connection, or a status 429, 502, 503, 504.

    Args:
        reason: for a log; no secret.
        after: seconds that the endpoint asked for (``Retry-After``).
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class RejectedError(Exception):
    """The endpoint refused the batch for good; it must not be sent again (OTLP, "Failures")."""


class Exporter(ABC):
    """Sends one batch at a time, on the sender's thread.

    It does not retry, wait between attempts, count or drop: that is the pipeline's. Making one does no I/O.
    """

    features: ClassVar[frozenset[str]] = frozenset()
    batch_bytes: ClassVar[int] = 4 << 20
    """Bytes of a batch, at most, but for one that a single record fills."""

    @abstractmethod
    def export(self, signal: str, body: bytes, timeout: float) -> int:
        """Send a batch.

        Args:
            signal: ``"traces"``, ``"logs"`` or ``"metrics"``.
            body: an ``Export…ServiceRequest`` of OTLP.
            timeout: seconds after which it must give up with `RetryError`.

        Returns:
            How many records of it the endpoint rejected (partial success).

        Raises:
            RetryError: see there.
            RejectedError: see there.
        """

    def abort(self) -> None:
        """End an `export` under way in another thread as soon as possible; there is nothing to end by default."""

    def close(self) -> None:
        """Let go of what is open."""

    def forked(self) -> None:
        """Forget, in a forked child, what belongs to the parent, without closing or sending."""
