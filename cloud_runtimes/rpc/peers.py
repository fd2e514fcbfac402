"""Calls over HTTP, to the first of several addresses that is reached; nothing is ever sent to a second one that a first may have got."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from .._http.client import HttpClient
from .._http.http1 import Endpoint
from .._http.sync_client import NotReached
from ..config import without_values
from ..errors import InvalidArgumentError, UnauthenticatedError, UnavailableError
from ..spi.flow import run_sync
from ..spi.operation import Operation
from ..spi.rpc import RpcCall, RpcReply

_CONNECT: Final = 5.0
"""Seconds for one of several addresses."""


@without_values
def endpoint(address: object, where: str, secret: bytes | None = None, instance: str | None = None) -> Endpoint:
    """Return what ``http(s)://host[:port][/prefix]`` of a configuration or registry stands for. An error names ``where`` it stands, not the address, which may hold a password."""
    why = f"{where}: no address such as 'http://127.0.0.1:8080'"
    if not isinstance(address, str) or not re.fullmatch(r"[!-\[\]-~]*", address):  # visible ASCII without backslashes
        raise InvalidArgumentError(why)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:  # which quotes the address
        raise InvalidArgumentError(f"{why}: this is no URL, or its port is none") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InvalidArgumentError(f"{why}: http or https, a host, no user")
    if parts.query or parts.fragment or any(each in (".", "..") for each in parts.path.split("/")):
        raise InvalidArgumentError(f"{why}: no query, fragment or dot segments")
    tls = parts.scheme == "https"
    return Endpoint(tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"), secret, instance)


class Peers(HttpClient):
    """The connections of one client."""

    def call(self, op: Operation, endpoints: Sequence[Endpoint], call: RpcCall, caller: str) -> RpcReply:
        """Make a call."""
        return run_sync(self._first(self.send, op, endpoints, call, caller))

    async def call_async(self, op: Operation, endpoints: Sequence[Endpoint], call: RpcCall, caller: str) -> RpcReply:
        """Make a call."""
        return await self._first(self.send_async, op, endpoints, call, caller)

    async def _first(
        self,
        send: Callable[..., Awaitable[RpcReply]],
        op: Operation,
        endpoints: Sequence[Endpoint],
        call: RpcCall,
        caller: str,
    ) -> RpcReply:
        """Call the first that is reached."""
        failures: list[NotReached] = []
        for each in endpoints:
            try:
                return await send(op, each, call, caller, None if len(endpoints) == 1 else _CONNECT)
            except NotReached as error:
                failures.append(error)
        raise _unreached(op, failures) from (failures[-1].__cause__ if failures else None)


def _unreached(op: Operation, failures: list[NotReached]) -> UnavailableError | UnauthenticatedError:
    reasons = "; ".join(dict.fromkeys(map(str, failures)))
    if failures and all(each.mistrust for each in failures):
        return UnauthenticatedError(
            f"the service {op.component!r} was not trusted: {reasons}; nothing was sent. "
            f"Its rpc_token and the token of [rpc.{op.component}] must be the same, and its app_id {op.component!r}"
        )
    return UnavailableError(f"the service {op.component!r} cannot be reached: {reasons}")
