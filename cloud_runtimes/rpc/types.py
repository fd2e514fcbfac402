"""Types of the RPC service."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypedDict, TypeVar, overload

from ..codec.payload import decode_payload

T = TypeVar("T")


class CallOptions(TypedDict, total=False):
    """Keyword arguments that every call takes; see `RpcService.invoke_method`."""

    http_method: str
    content_type: str | None
    headers: Mapping[str, str] | None
    query: Mapping[str, Any] | None
    timeout: float | None
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class RpcResponse:
    """Answer of a method, whatever the status; a handler may return one to choose all of it.

    Attributes:
        status: the HTTP status (RFC 9110, section 15), 200 to 599.
        headers: names in lower case; the values of a repeated name are joined by ``", "``.
        content_type: how ``data`` is encoded; ``None`` where there is none.
        data: the body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    data: bytes = b""

    @overload
    def decode(self, type: builtins.type[T]) -> T: ...
    @overload
    def decode(self, type: Any = None) -> Any: ...
    def decode(self, type: Any = None) -> Any:
        """Return the body decoded by its content type, ``None`` where there is no body.

        Raises:
            PayloadError: it is not what the content type says, or does not fit ``type``.
        """
        return decode_body(self.data, self.content_type, type)


@dataclass(slots=True, kw_only=True, eq=False)
class RpcRequest:
    """A call as its handler sees it.

    Attributes:
        method: the method's name.
        http_method: ``"POST"``, ``"GET"`` …
        headers: names in lower case; never the token that let the caller in.
        query: name → values.
        content_type: how ``data`` is encoded; ``None`` where there is no body.
        data: the body, undecoded.
        caller: the ``app_id`` that the caller gives itself; ``None`` where it gives none.
    """

    method: str
    http_method: str
    headers: Mapping[str, str]
    query: Mapping[str, list[str]]
    content_type: str | None
    data: bytes
    caller: str | None = None
    _deadline: float | None = None

    def remaining(self) -> float | None:
        """Seconds that the caller still waits, never negative; ``None``: without limit."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of the call. Calls that the handler makes carry it on."""
        return self.headers.get("traceparent")


def decode_body(data: bytes, content_type: str | None, type: Any) -> Any:
    """Decode a body; an empty one is ``None``, as ``bytes`` it is empty."""
    if data:
        return decode_payload(data, content_type, type)
    if type is None:
        return None
    if type is bytes:
        return b""
    from ..codec.convert import convert

    return convert(None, type)
