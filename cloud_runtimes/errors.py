"""The errors, one tree.

::

    CloudRuntimesError
    ├── InvalidArgumentError (ValueError)               INVALID_ARGUMENT
    │   └── PayloadError                                INVALID_ARGUMENT
    ├── NotFoundError (LookupError)                     NOT_FOUND
    │   └── MissingFileError (FileNotFoundError)        NOT_FOUND
    ├── ComponentNotFoundError (LookupError)            FAILED_PRECONDITION
    ├── AlreadyExistsError                              ALREADY_EXISTS
    ├── ConflictError                                   ABORTED
    │   └── LeaseLostError                              ABORTED
    ├── PermissionDeniedError (PermissionError)         PERMISSION_DENIED
    ├── UnauthenticatedError                            UNAUTHENTICATED
    ├── ResourceExhaustedError                          RESOURCE_EXHAUSTED
    ├── UnavailableError (ConnectionError)              UNAVAILABLE, retryable
    ├── DeadlineExceededError (TimeoutError)            DEADLINE_EXCEEDED
    ├── UnsupportedError (NotImplementedError)          UNIMPLEMENTED
    ├── ClosedError (RuntimeError)                      CANCELLED
    ├── InternalError                                   INTERNAL
    └── BulkError                                       the code its members share, else UNKNOWN

Codes have gRPC's names. A message names the thing (key, component, file) and the remedy, and holds no secret; the error of the library beneath is ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

__all__ = [
    "AlreadyExistsError",
    "BulkError",
    "ClosedError",
    "CloudRuntimesError",
    "ComponentNotFoundError",
    "ConflictError",
    "DeadlineExceededError",
    "InternalError",
    "InvalidArgumentError",
    "LeaseLostError",
    "MissingFileError",
    "NotFoundError",
    "PayloadError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
]

_CODES: Final = """
OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED
FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED
"""
GRPC_CODES: Final[Mapping[str, int]] = {name: number for number, name in enumerate(_CODES.split())}
"""Name → number of a gRPC status (gRPC, "Status codes and their use in gRPC")."""

_CONTEXT: Final = ("code", "retryable", "maybe_applied", "service", "operation", "runtime", "component")


class Response(Protocol):
    """Part of an `RpcResponse` that an error shows; see there."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def data(self) -> bytes: ...
    def decode(self, type: Any = None) -> Any: ...


class CloudRuntimesError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        code: a gRPC status name, the thing to branch on besides the class.
        retryable: the cause is transient; the same call may succeed later.
        maybe_applied: the write may have happened although the call failed.
        service, operation, runtime, component: where, as far as known.
        response: of a failed `RpcService.invoke_method`: the `RpcResponse` with status, headers and body.
    """

    code: str = "UNKNOWN"
    retryable: bool = False
    maybe_applied: bool = False
    service: str | None = None
    operation: str | None = None
    runtime: str | None = None
    component: str | None = None
    response: Response | None = None

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retryable: bool | None = None,
        maybe_applied: bool | None = None,
        service: str | None = None,
        operation: str | None = None,
        runtime: str | None = None,
        component: str | None = None,
    ) -> None:
        super().__init__(message)
        given = (code, retryable, maybe_applied, service, operation, runtime, component)
        # what is not given is the class's
        self.__dict__.update((name, value) for name, value in zip(_CONTEXT, given, strict=True) if value is not None)

    @property
    def message(self) -> str:
        """Description of the error, without its context."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[CloudRuntimesError], args: tuple[Any, ...], state: dict[str, Any]) -> CloudRuntimesError:
    # called, since cls.__new__ is not the constructor's where two built-in exceptions are among the bases
    error = cls(*args)
    error.__dict__.update(state)
    return error


class InvalidArgumentError(CloudRuntimesError, ValueError):
    """An argument or a setting is wrong; nothing was sent."""

    code = "INVALID_ARGUMENT"


class PayloadError(InvalidArgumentError):
    """A value cannot be encoded, or bytes cannot be decoded (into ``type``)."""


class NotFoundError(CloudRuntimesError, LookupError):
    """The thing asked for does not exist, and the result type has no ``None``."""

    code = "NOT_FOUND"


class MissingFileError(NotFoundError, FileNotFoundError):
    """A file that does not exist."""


class ComponentNotFoundError(CloudRuntimesError, LookupError):
    """No component of that name is configured. Not a `NotFoundError`, which must not hide a misconfiguration."""

    code = "FAILED_PRECONDITION"


class AlreadyExistsError(CloudRuntimesError):
    """The thing to create exists."""

    code = "ALREADY_EXISTS"


class ConflictError(CloudRuntimesError):
    """A condition did not hold: a stale etag, a lower fence, a create-only write on what exists."""

    code = "ABORTED"


class LeaseLostError(ConflictError):
    """A lock's lease ended before its holder did."""


class PermissionDeniedError(CloudRuntimesError, PermissionError):
    """The caller is known and not allowed."""

    code = "PERMISSION_DENIED"


class UnauthenticatedError(CloudRuntimesError):
    """Credentials are missing or wrong."""

    code = "UNAUTHENTICATED"


class ResourceExhaustedError(CloudRuntimesError):
    """A limit was met: disk, buffer, size, rate."""

    code = "RESOURCE_EXHAUSTED"


class UnavailableError(CloudRuntimesError, ConnectionError):
    """The service or server behind the component cannot be reached now."""

    code = "UNAVAILABLE"
    retryable = True


class DeadlineExceededError(CloudRuntimesError, TimeoutError):
    """The time given ran out; `maybe_applied` is whether a write may have happened."""

    code = "DEADLINE_EXCEEDED"


class UnsupportedError(CloudRuntimesError, NotImplementedError):
    """The runtime or component cannot do what an argument asks."""

    code = "UNIMPLEMENTED"


class ClosedError(CloudRuntimesError, RuntimeError):
    """The client or handle is closed, or was inherited by a forked child."""

    code = "CANCELLED"


class InternalError(CloudRuntimesError):
    """Anything else: a fault of ours or of what stands beneath."""

    code = "INTERNAL"


class BulkError(CloudRuntimesError):
    """Some items of a bulk call failed; all were tried.

    Attributes:
        failed: key or index → the error of that item.
        result: what the call would have returned for the others.
    """

    failed: Mapping[Any, CloudRuntimesError]
    result: Any

    def __init__(
        self,
        message: str = "",
        *,
        failed: Mapping[Any, CloudRuntimesError] | None = None,
        result: Any = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.failed = dict(failed or {})
        self.result = result
        errors = list(self.failed.values())
        if errors:
            codes = {error.code for error in errors}
            self.code = codes.pop() if len(codes) == 1 else "UNKNOWN"
            self.retryable = all(error.retryable for error in errors)
            self.maybe_applied = any(error.maybe_applied for error in errors)
