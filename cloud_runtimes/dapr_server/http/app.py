"""The HTTP API as an ASGI application; it trusts the server beneath with the framing of messages only."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from ..._core.logs import logger
from ..._http.limits import HEAD_TIME, SLOWEST
from ..._http.request_guard import RequestGuard
from ...codec.payload import JSON
from ...protocols.dapr.failures import DaprError
from ..app.channel import Body
from ..context import Context
from .request import Reply, Request

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_BAD_REQUEST: Final = Reply(400, b"400 Bad Request", "text/plain; charset=utf-8")
NOBODY: Final = DaprError(
    404, "NOT_FOUND", "ERR_DIRECT_INVOKE", "failed getting app id either from the URL path or the header dapr-app-id"
)
_NOT_FOUND: Final = Reply(404, NOBODY.body(), JSON)
"""What no route takes is a call of an application that is not named (dapr/dapr ``pkg/api/http/directmessaging.go``)."""
_TOO_LARGE: Final = Reply(413, b"request body too large", "text/plain; charset=utf-8")
_DRAINED: Final = 64 << 20
"""Bytes that are read and thrown away of what is too large: a connection that is closed before may lose the answer."""
_UNAUTHENTICATED: Final = Reply(401, b"invalid api token", "text/plain; charset=utf-8")
_BUG: Final = DaprError(500, "INTERNAL", "ERROR", "unexpected failure of the sidecar: see its log")


@dataclass(frozen=True, slots=True)
class Route:
    """``Route("GET", "/v1.0/state/{store}/{key*}", handler)``: ``{x}`` is one segment, ``{x*}`` all that follow, at least one.

    Methods are separated by spaces; ``*``: any. ``open``: without a token.
    """

    methods: str
    path: str
    handler: Any
    open: bool = False


class _Router:
    """Finds the route of a path by its first two segments, then by trying the few that begin with them."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], list[tuple[tuple[str, ...], frozenset[str], Route]]] = {}

    def add(self, *routes: Route) -> None:
        """Add routes; of two that fit the first is taken."""
        for route in routes:
            segments = tuple(route.path[1:].split("/"))
            methods = frozenset(route.methods.split())
            self._routes.setdefault((segments[0], segments[1]), []).append((segments[2:], methods, route))

    def find(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        """Return the route and what its placeholders hold; ``None``: there is none."""
        segments = path[1:].split("/")
        if len(segments) < 2:
            return None, {}
        rest = segments[2:]
        for pattern, methods, route in self._routes.get((segments[0], segments[1]), ()):
            if method not in methods and "*" not in methods:
                continue
            params = _match(pattern, rest)
            if params is not None:
                return route, params
        return None, {}


class HttpApi:
    """Routes of all building blocks; ``otherwise`` takes what no route takes, if it wants to."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._guard = RequestGuard(context.settings.allowed_hosts, option="--allow-host")
        self._router = _Router()
        self.otherwise: Callable[[Request], Awaitable[Reply | None]] | None = None

    def add(self, *routes: Route) -> None:
        """Add routes."""
        self._router.add(*routes)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        reply, read = await self._answer(scope, headers, receive)
        if reply.rest is not None:
            await _pass_on(receive, send, reply, reply.rest)
        else:
            await _send(send, reply, close=not read)

    async def _answer(
        self, scope: dict[str, Any], headers: list[tuple[str, str]], receive: Receive
    ) -> tuple[Reply, bool]:
        """Return the reply, and whether the body was read to its end."""
        raw = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        if not raw.startswith("/"):  # absolute-form and asterisk-form: nobody's proxy
            return _NOT_FOUND, False
        if _BAD_ESCAPE.search(raw) or _is_ambiguous(scope, headers):
            return _BAD_REQUEST, False
        shows_token = self._shows_token(headers)
        if not shows_token and (refusal := self._guard.refusal(scope)) is not None:
            return Reply(refusal.status, refusal.reason.encode(), "text/plain; charset=utf-8"), False
        method = scope["method"]
        path = raw.rstrip("/") or "/"
        route, params = self._router.find(method, path)
        if self._context.settings.api_token is not None and not shows_token and not (route is not None and route.open):
            return _UNAUTHENTICATED, False
        body = await _body(receive, headers, self._context.settings.max_body)
        if isinstance(body, Reply):
            return body, False
        request = Request(method, path, raw, scope.get("query_string", b"").decode("latin-1"), headers, body)
        try:
            request.params = {name: unquote_plus(text, errors="strict") for name, text in params.items()}
        except UnicodeDecodeError:
            return Reply(400, b"the path is not UTF-8", "text/plain; charset=utf-8"), True
        try:
            if route is not None:
                return await route.handler(request), True
            reply = None if self.otherwise is None else await self.otherwise(request)
            return reply or _NOT_FOUND, True
        except DaprError as error:
            return Reply(error.status, error.body(), JSON), True
        except Exception as error:
            logger().error("%s %s failed: %r", method, path, error, exc_info=error)
            return Reply(_BUG.status, _BUG.body(), JSON), True

    def _shows_token(self, headers: list[tuple[str, str]]) -> bool:
        token = self._context.settings.api_token
        if token is None:
            return False
        given = [value for name, value in headers if name == "dapr-api-token"]
        return len(given) == 1 and hmac.compare_digest(given[0].encode("latin-1"), token.encode())


def _is_ambiguous(scope: dict[str, Any], headers: list[tuple[str, str]]) -> bool:
    """Return whether another server could see another end of the body (RFC 9112, section 6.1): that is how one request hides in another."""
    names = [name for name, _ in headers if name in ("transfer-encoding", "content-length")]
    return "transfer-encoding" in names and ("content-length" in names or scope.get("http_version") == "1.0")


async def _body(receive: Receive, headers: list[tuple[str, str]], limit: int) -> bytes | Reply:
    """Read a body, no slower than `SLOWEST`."""
    has_body = False
    for name, value in headers:
        if name == "content-length":
            if not value.isdigit() or len(value) > 15 or int(value) > limit + _DRAINED:
                return _TOO_LARGE
            has_body = True
        elif name == "transfer-encoding":
            has_body = True
    if not has_body:
        return b""
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    begin = loop.time()
    try:
        async with asyncio.timeout(HEAD_TIME) as timer:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return Reply(400, b"the caller went away")
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size <= limit:
                    parts.append(piece)
                else:
                    parts.clear()
                if size > limit + _DRAINED:
                    return _TOO_LARGE
                if not message.get("more_body", False):
                    return _TOO_LARGE if size > limit else parts[0] if len(parts) == 1 else b"".join(parts)
                timer.reschedule(begin + HEAD_TIME + size / SLOWEST)
    except TimeoutError:
        return Reply(408, b"the body came too slowly", "text/plain; charset=utf-8")


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if reply.content_type is not None:
        headers.append((b"content-type", reply.content_type.encode("latin-1")))
    return headers


async def _pass_on(receive: Receive, send: Send, reply: Reply, rest: Body) -> None:
    """Send a body as it comes, until its end or the caller's. One that breaks ends the connection, so that the caller sees it."""
    gone = asyncio.ensure_future(_gone(receive))
    pieces = aiter(rest)
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
        while True:
            coming = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait((gone, coming), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return
            piece = coming.result()
            await send({"type": "http.response.body", "body": piece or b"", "more_body": piece is not None})
            if piece is None:
                return
    except Exception as error:
        logger().warning("an answer broke off: %r", error)
    finally:
        gone.cancel()
        await rest.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _send(send: Send, reply: Reply, *, close: bool) -> None:
    headers = _headers(reply)
    if reply.status not in (204, 304):
        headers.append((b"content-length", str(len(reply.body)).encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if reply.status in (204, 304) else reply.body})


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for index, wanted in enumerate(pattern):
        if wanted.endswith("*}"):
            rest = "/".join(segments[index:])
            if not rest:
                return None
            params[wanted[1:-2]] = rest
            return params
        if index >= len(segments):
            return None
        if wanted.startswith("{"):
            params[wanted[1:-1]] = segments[index]
        elif wanted != segments[index]:
            return None
    return params if len(pattern) == len(segments) else None
