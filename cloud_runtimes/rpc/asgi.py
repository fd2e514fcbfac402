"""The methods of one client as an ASGI application (ASGI 3.0, https://asgi.readthedocs.io/en/latest/specs/www.html).

Paths: ``/<method>``; ``/healthz``, ``/dapr/config`` and ``/dapr/subscribe`` for sidecars, and what these send by callbacks; ``/cloud-runtimes/hello`` for callers of ours. It trusts the server beneath with the framing of messages only, and bounds what it takes itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from time import monotonic
from typing import Any, Final

from .._http.limits import HEAD_TIME, MAX_BODY, MAX_LINE, SLOWEST
from .._http.proof import (
    CALLER_HEADER,
    CONTENT_TYPE_HEADER,
    HELLO,
    HTTPS,
    NONCE,
    REFUSED,
    SIDECAR_HEADER,
    STATUS_HEADER,
    TIMEOUT_HEADER,
    TOKEN_HEADER,
    accepts,
    answer,
    peer,
)
from .._http.request_guard import RequestGuard
from ..codec import json
from ..codec.payload import JSON, OCTETS
from ..errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from ..spi.operation import Method, Operation
from ..spi.rpc import Guard, Incoming, RpcDriver, RpcReply
from .failures import error_reply, too_large
from .host import Host, run
from .prepare import HOP_HEADERS

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_GUARD: Final = Method("rpc", "serve", repeatable=False, writes=False, handle=True)
_HEALTHY: Final = RpcReply(204, {}, None, b"")
_CONFIG: Final = RpcReply(200, {}, JSON, b"{}")
_SUBSCRIBE: Final = RpcReply(200, {}, JSON, b"[]")
_SIDECAR_CALLER: Final = "dapr-caller-app-id"
_SIDECAR: Final = frozenset([SIDECAR_HEADER, _SIDECAR_CALLER, "dapr-callee-app-id", "dapr-caller-namespace"])
_LAYOTTOS: Final = frozenset(["id", "rpc_request_timeout", "query_string", "grpc-accept-encoding", "user-agent"])
"""Headers by which Layotto finds a route and limits a call (mosn/layotto ``components/rpc``), and what it passes on of gRPC's own."""
_HIDDEN: Final = HOP_HEADERS | _SIDECAR | {TOKEN_HEADER, TIMEOUT_HEADER, CALLER_HEADER, CONTENT_TYPE_HEADER}
_CLOSE: Final = (b"connection", b"close")


class RpcApp:
    """See the module; made by `RpcService.asgi_app`."""

    def __init__(self, host: Host, hosting: Callable[[], RpcDriver], instance: str, guard: Guard | None = None) -> None:
        self._host = host
        self._hosting = hosting
        self._instance = instance
        self._guard = guard
        self._opening: asyncio.Future[Any] | None = None

    def __repr__(self) -> str:
        return f"<RpcApp of {len(self._host.handlers)} methods>"

    async def _known_guard(self) -> Guard:
        if self._guard is None:
            self._guard = await self._hosting().guard_async(Operation(_GUARD, "rpc", HEAD_TIME))
        return self._guard

    @cached_property
    def _requests(self) -> RequestGuard:
        return RequestGuard(self._hosting().allowed_hosts, option="rpc_allowed_hosts in [capa]")

    def _accepts(self, guard: Guard, headers: dict[str, str]) -> bool:
        return accepts(guard, self._host.app_id, headers.get(TOKEN_HEADER), headers.get(SIDECAR_HEADER))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await not_http(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        try:
            taken: bool | None
            reply, taken = await self._answer(scope, headers, receive if has_body else None)
        except BodyRefusedError as refused:
            reply, taken = refused.reply, False
        except CloudRuntimesError as error:
            reply, taken = error_reply(error), False
        if CONTENT_TYPE_HEADER in headers:
            reply = _inside(reply)
        await _send(send, reply, close=taken is None or (has_body and not taken))

    async def _answer(
        self, scope: Scope, headers: dict[str, str], receive: Receive | None
    ) -> tuple[RpcReply, bool | None]:
        """Return the reply, and whether the body was read to its end; ``None``: the connection is not to be trusted."""
        path, root = scope["path"], scope.get("root_path") or ""
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        query = scope.get("query_string", b"").decode("latin-1")
        if (
            path[:1] != "/"  # absolute-form and asterisk-form: nobody's proxy
            or len(path) + len(query) > MAX_LINE
            # RFC 9112, section 6.1: both, or a coding in HTTP/1.0, is how one request hides in another
            or ("transfer-encoding" in headers and ("content-length" in headers or scope.get("http_version") == "1.0"))
        ):
            wrong = InvalidArgumentError("the request cannot be taken: its target or framing is not allowed")
            return error_reply(wrong), None
        refusal = self._requests.refusal(scope)
        if refusal is not None and not self._accepts(await self._known_guard(), headers):
            return error_reply(PermissionDeniedError(refusal.reason), refusal.status), False
        name = path[1:]
        if (public := _PUBLIC.get(name)) is not None and receive is None:
            if public is _SUBSCRIBE and (callbacks := self._hosting().callbacks) is not None:
                return callbacks.subscriptions(), True
            if public is _HEALTHY and (problems := self._host.context.problems()):
                return RpcReply(503, {}, JSON, json.encode({"not_working": problems})), True
            return public, True
        if self._host.context.closed:
            raise UnavailableError(f"{self._host.app_id!r} is closing")
        guard = await self._known_guard()
        if name == HELLO:
            return self._hello(guard, query, scope, headers), False
        if not guard.open and not self._accepts(guard, headers):
            token = "is wrong or too old" if TOKEN_HEADER in headers else "is missing"
            error = UnauthenticatedError(
                f"the caller's token {token}: callers of the same CLOUD_RUNTIMES_HOME have one by themselves, "
                "others need the server's rpc_token as token in [rpc.<service>]"
            )
            reply = error_reply(error)
            return reply._replace(headers={**reply.headers, TOKEN_HEADER: REFUSED}), False
        handler = self._host.handlers.get(name)
        if handler is None:
            return await self._call_back(scope["method"], name, headers, receive)
        deadline = self._deadline(headers.get(TIMEOUT_HEADER))
        data = await read_body(receive, headers)
        given = headers.get(CONTENT_TYPE_HEADER)
        hidden = _HIDDEN if given is None else _HIDDEN | _LAYOTTOS
        shown = {key: value for key, value in headers.items() if key not in hidden}
        content_type = (given or headers.get("content-type") or OCTETS) if data else None
        caller = headers.get(CALLER_HEADER) or headers.get(_SIDECAR_CALLER)
        incoming = Incoming(name, scope["method"], shown, query, content_type, data, caller, deadline)
        return await run(self._host, handler, incoming), True

    async def _call_back(
        self, verb: str, name: str, headers: dict[str, str], receive: Receive | None
    ) -> tuple[RpcReply, bool | None]:
        """Answer what is no method: a callback of a sidecar, or nothing."""
        callbacks = self._hosting().callbacks
        if callbacks is None or (callback := callbacks.find(verb, name)) is None:
            return self._host.unknown(name), False
        body = await read_body(receive, headers)
        if not self._instance and callbacks.lacks_runner(name):
            await self._open_lifespan()
        return await callback(headers.get("content-type"), body), True

    async def _open_lifespan(self) -> None:
        """Begin what runs beside a server: an application that is mounted has no server of ours that does."""
        if self._opening is None:
            lifespan = self._host.lifespan(self._host.context.timeout)
            if lifespan is None:
                return
            self._opening = asyncio.ensure_future(lifespan.__aenter__())
        await asyncio.shield(self._opening)

    def _hello(self, guard: Guard, query: str, scope: Scope, headers: dict[str, str]) -> RpcReply:
        nonce = query.removeprefix("nonce=")
        if not NONCE.fullmatch(nonce):
            raise InvalidArgumentError("hello needs ?nonce= of 32 to 64 hexadecimal digits")
        authorities = [HTTPS]
        if (own := peer(scope.get("server"))) is not None:
            authorities.append(own)
        if self._requests.allows(host := headers.get("host", "").lower()):
            authorities.append(host)
        return RpcReply(
            200, {}, JSON, json.encode(answer(guard, self._host.app_id, self._instance, nonce, authorities))
        )

    def _deadline(self, text: str | None) -> float | None:
        """Return when the caller, or without its word the client's own timeout, gives up."""
        limit = self._host.context.timeout
        if text is not None:
            if not text.isascii() or not text.isdigit() or len(text) > 12:
                raise InvalidArgumentError(f"{TIMEOUT_HEADER} must be milliseconds")
            limit = int(text) / 1000
        return None if limit is None else monotonic() + limit


_PUBLIC: Final = {"healthz": _HEALTHY, "dapr/config": _CONFIG, "dapr/subscribe": _SUBSCRIBE}


class BodyRefusedError(Exception):
    """The body is not taken; ``reply`` says why."""

    def __init__(self, reply: RpcReply) -> None:
        super().__init__()
        self.reply = reply


async def read_body(receive: Receive | None, headers: dict[str, str]) -> bytes:
    """Read a body, of at most `MAX_BODY` bytes and no slower than `SLOWEST`."""
    if receive is None:
        return b""
    length = headers.get("content-length")
    if length is not None and (not length.isdigit() or len(length) > 15 or int(length) > MAX_BODY):
        raise BodyRefusedError(too_large())
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    begin = loop.time()
    try:
        async with asyncio.timeout(HEAD_TIME) as limit:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise InternalError("the caller went away")
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > MAX_BODY:
                    raise BodyRefusedError(too_large())
                parts.append(piece)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                limit.reschedule(begin + HEAD_TIME + size / SLOWEST)
    except TimeoutError:
        refusal = error_reply(DeadlineExceededError("the body came too slowly"), 408)
        raise BodyRefusedError(refusal) from None


def _inside(reply: RpcReply) -> RpcReply:
    """Return a reply that a sidecar passes on: as a success, with status and content type in headers of ours."""
    status_headers = {STATUS_HEADER: str(reply.status), CONTENT_TYPE_HEADER: reply.content_type or ""}
    return reply._replace(status=200, headers={**reply.headers, **status_headers})


async def _send(send: Send, reply: RpcReply, *, close: bool) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.content_type is not None:
        headers.append((b"content-type", reply.content_type.encode("latin-1")))
    if reply.status not in (204, 304):
        headers.append((b"content-length", str(len(reply.data)).encode()))
    if close:
        headers.append(_CLOSE)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.data})


async def not_http(scope: Scope, receive: Receive, send: Send) -> None:
    """Take part in a lifespan; refuse WebSockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
