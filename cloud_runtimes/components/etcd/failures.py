"""Mapping of a server's refusals to errors for a caller: the only error table of this component."""

from __future__ import annotations

from typing import Final

from ...errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from .._net import connections as _connections
from .http2 import CANCELLED, REFUSED

# gRPC's numbers
_UNKNOWN, _INVALID, _DEADLINE, _NOT_FOUND = 2, 3, 4, 5
_DENIED, _EXHAUSTED, _PRECONDITION, _OUT_OF_RANGE, _UNIMPLEMENTED, _UNAVAILABLE, _UNAUTHENTICATED = (
    7, 8, 9, 11, 12, 14, 16,
)  # fmt: skip
_NO_LEADER: Final = "etcdserver: no leader"
# what reaches callers as it is, of errors that the server has no code for: while a leader changes, while the server ends,
# and while the leader does not answer it
_DROPPED = "raft proposal dropped"
_PASSING: Final = frozenset([_DROPPED, "raft: stopped", "context deadline exceeded"])
_UNSURE: Final = frozenset([CANCELLED, _UNKNOWN, _DEADLINE, _UNAVAILABLE])


class ServerError(_connections.ServerError):
    """The server refused something.

    Attributes:
        code: gRPC's number, or `REFUSED`.
    """

    @property
    def unsure(self) -> bool:
        """Whether it may have been done all the same."""
        return self.code in _UNSURE and self.text not in (_NO_LEADER, _DROPPED)

    @property
    def passes(self) -> bool:
        """Whether it may be taken a moment later, as while the cluster elects a leader."""
        return self.code in (REFUSED, _UNAVAILABLE) or (self.code == _UNKNOWN and self.text in _PASSING)

    @property
    def token_ended(self) -> bool:
        """Whether a new token helps."""
        return self.code == _UNAUTHENTICATED or "revision of auth store" in self.text

    @property
    def no_lease(self) -> bool:
        """Whether there is no such lease."""
        return self.code == _NOT_FOUND and "lease not found" in self.text

    @property
    def lease_exists(self) -> bool:
        """Whether a lease of that id was there."""
        return self.code == _PRECONDITION and "lease already exists" in self.text

    @property
    def without_users(self) -> bool:
        """Whether the server asks nobody who he is."""
        return self.code == _PRECONDITION and "authentication is not enabled" in self.text


def map_error(where: str, error: ServerError) -> CloudRuntimesError:
    """Return our error for a refusal."""
    status, text = error.code, error.text.removeprefix("etcdserver: ")[:500]
    at = f"etcd {where}"
    if status == _UNAUTHENTICATED or "user name is empty" in text or "authentication failed" in text:
        return UnauthenticatedError(f"{at}: the server does not accept the client: check user and password in the url")
    if status == _DENIED:
        return PermissionDeniedError(
            f"{at}: the user may not do this: grant its role readwrite on the component's prefix"
        )
    if "request is too large" in text or "larger than max" in text:
        return ResourceExhaustedError(
            f"{at}: the request is larger than the server takes: split it, or raise its --max-request-bytes"
        )
    if "too many operations" in text:
        return ResourceExhaustedError(
            f"{at}: a transaction has more operations than the server takes: lower max_operations to its --max-txn-ops"
        )
    if "database space exceeded" in text:
        return ResourceExhaustedError(
            f"{at}: the server's space is used up: compact and defragment it, then disarm its alarm (etcdctl alarm disarm)"
        )
    if status == _EXHAUSTED:
        return ResourceExhaustedError(f"{at}: {text}", retryable=True)
    if error.passes:
        return UnavailableError(f"{at}: {text}", maybe_applied=error.unsure)
    if status == _DEADLINE:
        return DeadlineExceededError(f"{at}: the server ended the call: {text}", maybe_applied=True)
    if status == _UNIMPLEMENTED:
        return UnsupportedError(f"{at}: the server has no etcd API version 3: etcd 3.4 or later is needed")
    if status == _NOT_FOUND:
        return NotFoundError(f"{at}: {text}")
    if status in (_INVALID, _OUT_OF_RANGE):
        return InvalidArgumentError(f"{at}: {text}")
    return InternalError(f"{at}: {text} ({status})", maybe_applied=error.unsure)
