"""The application over gRPC: the services ``AppCallback`` of Dapr, without generated code."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

import grpc
from grpc import aio

from ...codec import json
from ...codec.payload import JSON
from ...protocols.dapr.failures import http_status_of_grpc
from ...protocols.dapr.messages import messages
from ..settings import SidecarSettings
from .channel import AppAnswer, AppCall, AppChannel

CALLBACK: Final = "/dapr.proto.runtime.v1.AppCallback/"
ALPHA: Final = "/dapr.proto.runtime.v1.AppCallbackAlpha/"

_MOST_CALLS: Final = 500
"""Under way on one connection; a caller has 1,000 under way on one of the sidecar's."""
VERBS: Final = ("NONE", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
"""``HTTPExtension.Verb`` by its number."""

_HTTP_ONLY: Final = frozenset(
    [
        "accept",
        "accept-charset",
        "accept-language",
        "accept-ranges",
        "cache-control",
        "cookie",
        "date",
        "expect",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-schedule-tag-match",
        "if-unmodified-since",
        "max-forwards",
        "origin",
        "pragma",
        "referer",
        "via",
        "warning",
    ]
)
"""Headers that Dapr gives the prefix ``dapr-`` where they become metadata of gRPC."""


def metadata_of(headers: list[tuple[str, str]]) -> list[tuple[str, str | bytes]]:
    """Return headers as metadata of gRPC; what that cannot hold is left out."""
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.startswith((":", "grpc-")) or name in ("content-type", "user-agent", "dapr-api-token"):
            continue
        if not all(each.islower() or each.isdigit() or each in "-_." for each in name) or not name.isascii():
            continue
        if name.endswith("-bin"):
            try:
                metadata.append((name, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)))
            except ValueError:
                continue
        elif value.isascii() and value.isprintable():
            metadata.append((f"dapr-{name}" if name in _HTTP_ONLY else name, value))
    return metadata


def headers_of(metadata: Any) -> list[tuple[str, str]]:
    """Return metadata of gRPC as headers."""
    return [
        (str(name), value)
        for name, value in metadata or ()
        if isinstance(value, str) and not str(name).startswith((":", "grpc-")) and name not in ("content-type", "date")
    ]


def status_json(code: int, message: str, status: bytes) -> bytes:
    """Return a ``google.rpc.Status`` as Dapr puts it into the body over HTTP; details of types that are not known are left out."""
    details = []
    if status:
        from google.protobuf import json_format

        for each in messages().Status.FromString(status).details:
            try:
                details.append(json_format.MessageToDict(each, descriptor_pool=messages().pool))
            except (TypeError, ValueError, KeyError, json_format.Error):
                continue
    document: dict[str, Any] = {"code": code, "message": message}
    return json.encode({**document, "details": details} if details else document)


class GrpcChannel(AppChannel):
    """See the module."""

    protocol = "grpc"

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._address = f"{host}:{self._port}"
        self._max_body = settings.max_body
        self._channels: dict[aio.Channel, int] = {}

    @contextmanager
    def channel(self) -> Iterator[aio.Channel]:
        """Give a connection for one call.

        A call beyond those that an application takes on one connection waits for another to end. Where so many are under way, further ones have a connection of their own, as in daprd (``pkg/api/grpc/manager/pool.go``).
        """
        channel = next((each for each, calls in self._channels.items() if calls < _MOST_CALLS), None)
        if channel is None:
            channel = self._connect()
        self._channels[channel] = self._channels.get(channel, 0) + 1
        try:
            yield channel
        finally:
            self._channels[channel] -= 1

    def _connect(self) -> aio.Channel:
        return aio.insecure_channel(
            self._address,
            options=(
                ("grpc.max_receive_message_length", self._max_body),
                ("grpc.max_send_message_length", -1),
                # an application that was restarted is found again at once; an attempt that is under way has 20 s, as in daprd
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ),
        )

    @property
    def token(self) -> tuple[tuple[str, str], ...]:
        """The token for the application as metadata."""
        return () if self._token is None else (("dapr-api-token", self._token),)

    async def unary(
        self, path: str, request: Any, reply: str, metadata: Any = (), timeout: float | None = None
    ) -> tuple[Any, list[tuple[str, str]]]:
        """Call a method of the application; returns its reply, of the message named ``reply``, and its headers.

        Raises:
            grpc.aio.AioRpcError: it failed, or was not reached.
        """
        with self.channel() as channel:
            method: Any = channel.unary_unary(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(messages(), reply).FromString,
            )
            call = method(
                request,
                timeout=self._timeout if timeout is None else timeout,
                metadata=aio.Metadata(*metadata, *self.token),
            )
            answer = await call
            return answer, headers_of(await call.initial_metadata())

    async def invoke(self, call: AppCall, timeout: float | None = None) -> AppAnswer:
        kinds = messages()
        request = kinds.InvokeRequest(
            method=unquote(call.path),
            data=kinds.Any(type_url=call.data_type, value=call.body),
            content_type=call.content_type or "",
            http_extension=kinds.HTTPExtension(
                verb=VERBS.index(call.verb) if call.verb in VERBS else 0, querystring=call.query
            ),
        )
        try:
            reply, headers = await self.unary(
                f"{CALLBACK}OnInvoke", request, "InvokeResponse", metadata_of(call.headers), timeout
            )
        except aio.AioRpcError as error:
            code = error.code()
            raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            status = raw if isinstance(raw, bytes) else b""
            message = error.details() or ""
            return AppAnswer(
                http_status_of_grpc(code.name),
                headers_of(error.initial_metadata()),
                JSON,
                status_json(_number(code), message, status),
                failure=(code.name, message, status),
                is_grpc=True,
            )
        return AppAnswer(
            200, headers, reply.content_type or None, reply.data.value, data_type=reply.data.type_url, is_grpc=True
        )

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
