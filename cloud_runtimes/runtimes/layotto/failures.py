"""What a refusal of Layotto is here. It has no details, so the code decides, then the rpc; its text is only told."""

from __future__ import annotations

from typing import Final

from ... import errors
from ...errors import CloudRuntimesError
from .._sidecar.failures import ErrorReply, SidecarError

__all__ = ["LayottoSidecarError"]

_BY_CODE: Final[dict[str, type[CloudRuntimesError]]] = {
    "ABORTED": errors.ConflictError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "FAILED_PRECONDITION": errors.ComponentNotFoundError,  # nothing of the kind is configured
    "INVALID_ARGUMENT": errors.ComponentNotFoundError,  # all else has been checked here
    "NOT_FOUND": errors.NotFoundError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "UNAVAILABLE": errors.UnavailableError,
    "UNIMPLEMENTED": errors.UnsupportedError,
}
_ARGUMENTS: Final = frozenset(["InvokeService"])
"""Whose INVALID_ARGUMENT may be about more than the name of a component."""


class LayottoSidecarError(SidecarError):
    """The sidecar said no.

    Attributes:
        rpc: to what; ``""``: it ended a stream.
    """

    def __init__(self, error_reply: ErrorReply, failed: frozenset[str] | None = None, *, rpc: str = "") -> None:
        super().__init__(error_reply, failed)
        self.rpc = rpc

    @property
    def status(self) -> str:
        """Name of the gRPC status."""
        return self.error_reply.code.removeprefix("grpc ")

    def error(self, *, applied: bool) -> CloudRuntimesError:
        cls = _BY_CODE.get(self.status, errors.InternalError)
        if self.status == "INVALID_ARGUMENT" and self.rpc in _ARGUMENTS:
            cls = errors.InvalidArgumentError
        unknown = applied and issubclass(
            cls, errors.InternalError | errors.DeadlineExceededError | errors.UnavailableError
        )
        return cls(f"the sidecar says: {self.error_reply.message} ({self.status})", maybe_applied=unknown)
