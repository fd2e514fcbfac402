"""What a sidecar refuses, before it is known what that means here."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from ... import errors
from ...errors import CloudRuntimesError

__all__ = ["ErrorReply", "SidecarError", "stream_error"]


class ErrorReply(NamedTuple):
    """What a sidecar said.

    Attributes:
        status: HTTP; of gRPC the one that its code stands for.
        code: ``errorCode`` of Dapr, or ``grpc CODE``; ``""``: the answer is none of the sidecar's.
        reason: of the ``ErrorInfo``; ``""``: there is none.
    """

    status: int
    code: str
    reason: str
    message: str


class SidecarError(Exception):
    """A sidecar said no; `Transport.run` makes it one of our errors.

    Attributes:
        error_reply: what it said.
        failed: of a bulk, the ids of what failed; ``None``: it is not told.
    """

    def __init__(self, error_reply: ErrorReply, failed: frozenset[str] | None = None) -> None:
        super().__init__(error_reply.message)
        self.error_reply = error_reply
        self.failed = failed

    @abstractmethod
    def error(self, *, applied: bool) -> CloudRuntimesError:
        """Return our error; ``applied``: where it is not known, a write may have happened."""


def stream_error(failure: Exception | None, ended: str) -> CloudRuntimesError:
    """Return why a stream ended: `UnavailableError` (another one may do better) unless the sidecar has refused it for good."""
    if isinstance(failure, CloudRuntimesError):
        return failure
    if not isinstance(failure, SidecarError):
        return errors.UnavailableError(ended if failure is None else f"{ended}: {failure}")
    ours = failure.error(applied=False)
    # sidecars end streams that they are going to serve again by plain errors, which gRPC calls UNKNOWN
    return errors.UnavailableError(f"{ended}: {ours.message}") if isinstance(ours, errors.InternalError) else ours
