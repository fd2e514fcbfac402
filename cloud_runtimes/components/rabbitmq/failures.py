"""Error table of this component: maps the server's error replies to ours."""

from __future__ import annotations

from typing import Final

from ...errors import (
    CloudRuntimesError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from .._net import connections as _connections

# reply codes of AMQP 0-9-1
_FORCED, _TOO_LARGE, _REFUSED, NOT_FOUND, LOCKED, _FAILED = 320, 311, 403, 404, 405, 406
_NOT_ALLOWED: Final = 530
_RESOURCES: Final = 506


class ServerError(_connections.ServerError):
    """The server closed a channel or the connection, or did not take messages.

    Attributes:
        code: AMQP's reply code; 0: it did not confirm messages (``basic.nack``).
    """


def map_error(where: str, error: ServerError) -> CloudRuntimesError:
    """Return our error for a refusal."""
    code, text = error.code, error.text.partition(" - ")[2] or error.text
    if code == 0:
        return ResourceExhaustedError(
            f"rabbitmq {where}: a queue did not take the message: it is at its max-length, or has no leader now",
            retryable=True,
            maybe_applied=True,  # by the other queues
        )
    if code == _REFUSED and "login was refused" in text.lower():
        return UnauthenticatedError(
            f"rabbitmq {where}: the server does not accept the client: check user and password in the url"
        )
    if code == _REFUSED:
        return PermissionDeniedError(
            f"rabbitmq {where}: the user may not do this: {text}: grant it by rabbitmqctl set_permissions, "
            'or have an administrator make exchanges and queues and set ensure = "check"'
        )
    if code == _NOT_ALLOWED:
        return PermissionDeniedError(
            f"rabbitmq {where}: {text}: check the virtual host, the path of the url, and that the user may use it"
        )
    if code == _FAILED and "delivery acknowledgement on channel" in text:
        return UnavailableError(
            f"rabbitmq {where}: {text}: handlers held an event longer than the server's consumer_timeout: raise it there"
        )
    if code == _FAILED and "inequivalent arg" in text:
        return ConflictError(
            f"rabbitmq {where}: it exists with other arguments: {text}: remove it, choose another prefix, "
            'or set ensure = "check" to use it as it is'
        )
    if code == NOT_FOUND:
        return NotFoundError(f'rabbitmq {where}: {text}: with ensure = "check" an administrator must make it')
    if code in (_TOO_LARGE, _FAILED) and "larger than" in text:
        return ResourceExhaustedError(f"rabbitmq {where}: {text}: raise the server's max_message_size")
    if code == _RESOURCES:
        return ResourceExhaustedError(f"rabbitmq {where}: {text}", retryable=True)
    if code in (_FORCED, LOCKED, 541):
        return UnavailableError(f"rabbitmq {where}: the server closed the connection: {text}")
    if code == _FAILED:
        return InvalidArgumentError(f"rabbitmq {where}: {text}")
    return InternalError(f"rabbitmq {where}: {text} ({code})")
