"""Error table of this component: maps the server's error replies to ours."""

from __future__ import annotations

from typing import Any, Final

from ...errors import (
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from .resp import ReplyError

_AWAY: Final = frozenset(
    [
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MOVED",
        "NOREPLICAS",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
        "NOGOODSLAVE",
    ]
)

_DENIED: Final = ("ACL failure in script", "The user executing the script can't")
"""How Valkey and Redis begin what a command in a script may not do."""


def map_error(where: str, error: ReplyError) -> CloudRuntimesError:
    """Return our error for an error reply. Nothing of that command was applied, but what a script did before."""
    before, script, text = str(error).rpartition(" script: ")
    begun = bool(script)
    text = before if begun else text
    code, _, rest = text.partition(" ")
    if code in ("NOAUTH", "WRONGPASS") or "invalid password" in text or "AUTH" in text.split(" ", 2)[:2]:
        return UnauthenticatedError(
            f"redis {where}: the server does not accept the user or the password: check the url"
        )
    if code in ("DENIED", "NOPERM") or rest.startswith(_DENIED):
        return PermissionDeniedError(f"redis {where}: the user may not do this: {rest}", maybe_applied=begun)
    if code == "OOM":
        return ResourceExhaustedError(
            f"redis {where}: the server's memory is full (maxmemory): raise it, lower retention, or consume",
            retryable=True,
        )
    if code == "MISCONF":
        return ResourceExhaustedError(f"redis {where}: the server cannot write to its disk: {rest}", retryable=True)
    if code in _AWAY:
        return UnavailableError(f"redis {where}: the server cannot do it now: {text}", retryable=True)
    if text.lower().startswith("err unknown command 'sentinel'"):
        return InvalidArgumentError(f"redis {where}: this is no Sentinel: check the url; its port is often 26379")
    if text.startswith(("ERR unknown command", "ERR syntax error")):
        return UnsupportedError(f"redis {where}: the server is too old: Redis 7.0 or Valkey is needed ({text})")
    if text.startswith("ERR max number of clients"):
        return ResourceExhaustedError(
            f"redis {where}: the server takes no more connections: lower max_connections, or raise its maxclients",
            retryable=True,
        )
    if "SELECT is not allowed in cluster mode" in text:
        return InvalidArgumentError(f"redis {where}: a cluster has database 0 alone: check the url")
    if "cluster support disabled" in text:
        return InvalidArgumentError(f"redis {where}: the server is not part of a cluster: give redis://host:6379/0")
    if "DB index" in text:
        return InvalidArgumentError(f"redis {where}: the server has no database of this number: check the url")
    if code == "CROSSSLOT":  # of keys without one hash tag, as Dapr's are
        what = 'the server is one of a cluster, and layout = "dapr" must know that: give a url with redis+cluster://'
        return UnsupportedError(f"redis {where}: {what}")
    if code == "WRONGTYPE":
        what = "a key of another program is in the way: choose another prefix"
        return InternalError(f"redis {where}: {what}", maybe_applied=begun)
    return InternalError(f"redis {where}: {error}", maybe_applied=begun)


def checked(replies: list[Any], *, but: str | None = None) -> list[Any]:
    """Return replies, or raise the first error among them; the engine makes it one of ours. Errors with the code ``but`` stay."""
    for reply in replies:
        if isinstance(reply, ReplyError) and str(reply).partition(" ")[0] != but:
            raise reply
    return replies
