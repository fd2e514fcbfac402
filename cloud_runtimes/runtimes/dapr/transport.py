"""Meaning of Dapr's refusals, and shared parts of its calls by HTTP and gRPC.

See dapr/dapr ``pkg/api/errors`` and ``pkg/messages``."""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

from ... import errors
from ...codec import json
from ...errors import CloudRuntimesError, InternalError, PayloadError
from ...spi.rpc import RpcReply
from .._sidecar.transport import ErrorReply, SidecarError

_MOST: Final = 1000
"""Characters of a sidecar's message that are told."""
_BY_STATUS: Final[dict[int, type[CloudRuntimesError]]] = {
    400: errors.InvalidArgumentError,
    401: errors.UnauthenticatedError,
    403: errors.PermissionDeniedError,
    404: errors.UnsupportedError,  # of a path that is Dapr's: the sidecar does not have it
    408: errors.DeadlineExceededError,
    409: errors.ConflictError,
    413: errors.ResourceExhaustedError,
    429: errors.ResourceExhaustedError,
    501: errors.UnsupportedError,
    503: errors.UnavailableError,
    504: errors.DeadlineExceededError,
}
# class → ends of an errorCode or reason
_BY_CODE: Final[dict[type[CloudRuntimesError], tuple[str, ...]]] = {
    errors.ComponentNotFoundError: (
        *(f"{kind}_NOT_{what}" for kind in ("STORE", "STATE", "PUBSUB") for what in ("FOUND", "CONFIGURED")),
        "STORES_NOT_CONFIGURED",
        "FAILED_PRECONDITION",  # of gRPC: there is no component of this kind
    ),
    errors.ResourceExhaustedError: ("TOO_MANY_TRANSACTIONS",),
    errors.UnsupportedError: ("NOT_SUPPORTED", "NOT_SUPPORTED_STATE_OPERATION"),
    errors.InvalidArgumentError: ("ILLEGAL_KEY", "MALFORMED_REQUEST"),
    errors.PermissionDeniedError: ("PUBSUB_FORBIDDEN", "ERR_PERMISSION_DENIED"),
}
_NO_STORE: Final = re.compile(r"(configuration|lock) store \S+ not found|failed finding secret store with key")
"""Over gRPC some of Dapr's failures have words alone (dapr/dapr ``pkg/messages/predefined.go``)."""

_NO_BINDING: Final = re.compile(r"error invoking output binding .*couldn't find output binding")


class DaprSidecarError(SidecarError):
    """The sidecar said no, in a vocabulary of Dapr."""

    def error(self, *, applied: bool) -> CloudRuntimesError:
        return error(self.error_reply, applied=applied)


def refusal(reply: RpcReply) -> ErrorReply:
    """Read a reply of status ≥ 400, believing nothing about it."""
    try:
        body: Any = json.decode(reply.data)
    except PayloadError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("errorCode"), str):
        return ErrorReply(reply.status, "", "", f"status {reply.status}")
    details = body.get("details")
    reason = next(
        (
            each["reason"]
            for each in (details if isinstance(details, list) else ())
            if isinstance(each, dict) and isinstance(each.get("reason"), str)
        ),
        "",
    )
    return ErrorReply(reply.status, body["errorCode"], reason, str(body.get("message") or "")[:_MOST])


def error(error_reply: ErrorReply, *, applied: bool) -> CloudRuntimesError:
    """Return our error; ``applied``: where it is not known, a write may have happened."""
    error_type = next(
        (cls for cls, ends in _BY_CODE.items() if error_reply.code.endswith(ends) or error_reply.reason.endswith(ends)),
        None,
    )
    if _NO_BINDING.search(error_reply.message):
        error_type = errors.ComponentNotFoundError
    if (
        error_type is None
        and error_reply.status == 400
        and not error_reply.reason
        and _NO_STORE.match(error_reply.message)
    ):
        error_type = errors.ComponentNotFoundError
    cls = error_type or _BY_STATUS.get(error_reply.status) or (
        errors.InternalError if error_reply.status >= 500 else errors.InvalidArgumentError
    )  # fmt: skip
    where = f" ({error_reply.code})" if error_reply.code else ""
    unknown = applied and (
        cls is errors.InternalError or issubclass(cls, errors.DeadlineExceededError | errors.UnavailableError)
    )
    return cls(f"the sidecar says: {error_reply.message}{where}", maybe_applied=unknown)


def odd() -> NoReturn:
    raise InternalError("the sidecar's answer is of another form than Dapr's")
