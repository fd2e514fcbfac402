"""Error table of this component: maps the server's error responses to ours."""

from __future__ import annotations

from typing import Any, Final

from ...errors import (
    CloudRuntimesError,
    InternalError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from .._net import connections as _connections

# the numbers are those of nats-server's server/errors.json
CONSUMER_EXISTS: Final = frozenset([10013, 10148])
CONSUMER_LEAVES: Final = frozenset([10012, 10149])
"""One of the name is just being deleted, or its files are."""
CONSUMER_LIMIT: Final = 10026
NO_CONSUMER: Final = 10014
NO_MESSAGE: Final = 10037
NO_SEQUENCE: Final = 10043
NO_BATCHES: Final = 10174
NO_STREAM: Final = 10059
STREAM_EXISTS: Final = 10058
IN_HAND: Final = 10164
WRONG_SEQUENCES: Final = frozenset([10071, IN_HAND])
"""A condition of a write does not hold; ``IN_HAND``: there is another write to its key that is not yet taken."""
_FULL: Final = frozenset([10002, 10023, 10026, 10027, 10028, 10047, 10077, 10122, 10167, 10210, 10211])
_TOO_LARGE: Final = frozenset([10054, 10097])
_AWAY: Final = frozenset([10004, 10005, 10007, 10008, 10009, 10041, 10118, 10119, 10158, 10163, 10194, 10195])
LEADERLESS: Final = _AWAY | {503}
"""Nothing was done: there is no leader now."""


class ServerError(_connections.ServerError):
    """The server refused something.

    Attributes:
        code: JetStream's number of the error; 503: nobody answers at a subject; 0: ``text`` is an ``-ERR``.
    """

    @classmethod
    def of(cls, error: dict[str, Any]) -> ServerError:
        """Return the refusal in a reply of JetStream's API."""
        return cls(error.get("err_code") or error.get("code") or -1, str(error.get("description", "")))


def map_error(where: str, error: ServerError) -> CloudRuntimesError:
    """Return our error for a refusal. Nothing of that request was applied."""
    code, text = error.code, error.text
    if code == 0:
        low = text.lower()
        if low.startswith(("authorization", "user authentication", "account authentication")):
            return UnauthenticatedError(
                f"nats {where}: the server does not accept the client: "
                "check the user in the url, or credentials or nkey in the component's table"
            )
        if low.startswith("permissions violation"):
            return PermissionDeniedError(f"nats {where}: the user may not do this: {text}")
        if low.startswith("maximum"):
            return ResourceExhaustedError(f"nats {where}: {text}: raise the server's limit", retryable=True)
        return UnavailableError(f"nats {where}: the server closed the connection: {text}")
    if code == 503:
        return UnavailableError(
            f"nats {where}: no server has the stream now: JetStream is starting, has no leader, or lost the stream"
        )
    if code in _FULL:
        return ResourceExhaustedError(f"nats {where}: a limit of JetStream is reached: {text}", retryable=True)
    if code in _TOO_LARGE:
        return ResourceExhaustedError(f"nats {where}: a message is larger than the stream takes: {text}")
    if code == 10074:
        return UnsupportedError(f"nats {where}: replicas need a cluster of servers: {text}: set replicas = 1")
    if code in _AWAY:
        return UnavailableError(f"nats {where}: JetStream cannot do it now: {text}")
    if code in (10039, 10076):
        return UnsupportedError(
            f"nats {where}: JetStream is off: start the server with -js, and allow it to the account"
        )
    if code == 10109:
        return PermissionDeniedError(f"nats {where}: {text}: it is read-only for ever: take another name or prefix")
    if code in (NO_STREAM, NO_CONSUMER):
        return NotFoundError(f"nats {where}: the stream is gone: {text}")
    return InternalError(f"nats {where}: {text} ({code})")
