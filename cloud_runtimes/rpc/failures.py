"""Errors on their way from a handler to its caller: a status, a class, a code, a message; never a traceback.

An error of ours travels as JSON beside the header ``cloud-runtimes-error`` that names its class. Any other failure is told by its status alone.
"""

from __future__ import annotations

from typing import Any, Final

from .. import errors
from .._http.limits import MAX_BODY
from ..codec.json import encode
from ..codec.payload import JSON
from ..errors import CloudRuntimesError, InternalError, PayloadError
from ..spi.rpc import RpcReply
from .types import RpcResponse

ERROR_HEADER: Final = "cloud-runtimes-error"
MAX_MESSAGE: Final = 4096

_CLASSES: Final[dict[str, type[CloudRuntimesError]]] = {name: getattr(errors, name) for name in errors.__all__}

# google.rpc.Code → HTTP, as the gRPC gateway and Dapr map them
_STATUS: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "CANCELLED": 503,
    "DEADLINE_EXCEEDED": 504,
}
# HTTP → class, where the answer does not name one
_BY_STATUS: Final[dict[int, type[CloudRuntimesError]]] = {
    401: errors.UnauthenticatedError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.DeadlineExceededError,
    409: errors.ConflictError,
    413: errors.ResourceExhaustedError,
    429: errors.ResourceExhaustedError,
    501: errors.UnsupportedError,
    503: errors.UnavailableError,
    504: errors.DeadlineExceededError,
}

BARE: Final = RpcReply(500, {}, None, b"")
"""The answer to a handler that failed with an exception that is none of ours."""


def error_reply(error: CloudRuntimesError, status: int | None = None) -> RpcReply:
    """Return the answer that carries an error."""
    # a class of the application's own arrives as the nearest of ours
    name = next((cls.__name__ for cls in type(error).__mro__ if _CLASSES.get(cls.__name__) is cls), "InternalError")
    message = error.message
    body = {
        "errorCode": error.code,
        "message": message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…",
        "error": name,
        "retryable": error.retryable,
        "maybe_applied": error.maybe_applied,
    }
    try:
        data = encode(body)
    except PayloadError:  # a lone surrogate in the message
        data = encode({**body, "message": message[:MAX_MESSAGE].encode("utf-8", "replace").decode()})
    return RpcReply(status or _STATUS.get(error.code, 500), {ERROR_HEADER: name}, JSON, data)


def too_large() -> RpcReply:
    """Return the answer to a body that is larger than is taken."""
    refusal = errors.ResourceExhaustedError(f"the body is larger than the {MAX_BODY:,} bytes that are taken")
    return error_reply(refusal, 413)


def failure(reply: RpcReply, service: str, method: str) -> CloudRuntimesError:
    """Return the error for an answer of status ≥ 400."""
    error = _carried(reply)
    if error is None:
        status = reply.status
        cls = _BY_STATUS.get(status, InternalError if status >= 500 or status < 400 else errors.InvalidArgumentError)
        what = f"answered with status {status}"
        if status < 400:
            what = "redirects, which is never followed: give the address itself"
        message = f"{service}.{method} {what}; error.response has headers and body"
        error = cls(message, maybe_applied=status >= 500 and status != 501)
    error.response = RpcResponse(*reply)
    return error


def _carried(reply: RpcReply) -> CloudRuntimesError | None:
    """Read an error of ours, believing nothing about it."""
    cls = _CLASSES.get(reply.headers.get(ERROR_HEADER, ""))
    if cls is None:
        return None
    from ..codec.json import decode

    try:
        body: Any = decode(reply.data)
    except PayloadError:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return None
    code, retryable, applied = body.get("errorCode"), body.get("retryable"), body.get("maybe_applied")
    error = cls(body["message"][:MAX_MESSAGE])
    if isinstance(code, str) and code.isidentifier() and len(code) <= 64:
        error.code = code
    if isinstance(retryable, bool):
        error.retryable = retryable
    if isinstance(applied, bool):
        error.maybe_applied = applied
    return error
