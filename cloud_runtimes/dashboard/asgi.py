"""ASGI application of the dashboard: the page, what it asks for, and OTLP over HTTP.

OTLP: ``POST /v1/traces``, ``/v1/logs``, ``/v1/metrics`` (OTLP specification, "OTLP/HTTP"). There is no
authentication.
`RequestGuard` therefore refuses requests that pages of other origins make a browser send, and they cannot read any
answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from .._core.logs import logger
from .._http.limits import HEAD_TIME, MAX_BODY, MAX_LINE
from .._http.request_guard import RequestGuard
from ..codec import json
from ..errors import CloudRuntimesError, InternalError, PayloadError, ResourceExhaustedError, UnsupportedError
from ..rpc.asgi import BodyRefusedError, not_http, read_body
from ..telemetry import json_records
from ..telemetry.schema import bytes_field, varint
from . import otlp_json, queries, rows, search
from .encodings import UNPACK
from .openmetrics import CONTENT_TYPE, exposition
from .operations import TOKEN_HEADER, Operations, status_of
from .service_map import service_map
from .store import Store

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_WAITING: Final = 4 * MAX_BODY
"""Bytes of requests that are read or wait to be stored; more get 503, and clients come again."""
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_CHANGES: Final = "/api/changes/"
_SIGNALS: Final = {f"/v1/{signal}": signal for signal in ("traces", "logs", "metrics")}
_REJECTED: Final = {"traces": "rejectedSpans", "logs": "rejectedLogRecords", "metrics": "rejectedDataPoints"}
# no file of the page is .html, since those are what Cython writes about kernels, and are in no distribution
_FILES: Final = {
    "/": ("index.htm", "text/html; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "views", "charts", "map", "operations", "stores", "parts")
    },
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/grafana.json": ("grafana.json", JSON),
}
_CODES: Final = {400: 3, 403: 7, 404: 5, 405: 12, 408: 4, 409: 10, 413: 8, 415: 3, 421: 7, 500: 13, 501: 12, 503: 14}
"""Status → ``google.rpc.Code``."""
_HEADERS: Final = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Answer(NamedTuple):
    """HTTP answer of the viewer.

    Attributes:
        close: the request's body was not read to its end, so the connection cannot be reused.
    """

    status: int
    kind: str
    data: bytes
    close: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _RefusedError(Exception):
    """A request that is answered with a status and why."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes], close: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers
        self.close = close


class DashboardApp:
    """See the module.

    Args:
        store: of telemetry, open; ``None``: it takes and shows none.
        guard: which requests are refused since web pages made them.
        operations: what services hold; ``None``: it shows telemetry alone.
    """

    def __init__(self, store: Store | None, guard: RequestGuard, operations: Operations | None = None) -> None:
        self._store = store
        self._guard = guard
        self._operations = operations
        self._waiting = 0
        self._decoding = threading.Lock()
        folder = Path(__file__).parent / "page"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await not_http(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        kind = JSON if _media_type(headers) != PROTOBUF else PROTOBUF
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        try:
            answer = await self._answer(scope, headers, receive, has_body)
        except _RefusedError as refused:
            answer = _status(kind, refused.status, str(refused), refused.headers, close=refused.close)
        except CloudRuntimesError as error:
            status = status_of(error)
            if status == 503:
                logger().warning("%s", error)
            answer = _status(kind, status, str(error), ((b"retry-after", b"1"),) if status == 503 else ())
        except Exception as error:
            logger().error("telemetry viewer: %r", error, exc_info=error)
            answer = _status(kind, 500, "an error of the viewer, see its output")
        if answer.close and has_body and answer.status != 408:
            await _discard(receive)
        await _send(send, answer, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, headers: dict[str, str], receive: Receive, has_body: bool) -> Answer:
        path, method = scope["path"].removeprefix(scope.get("root_path", "")) or "/", scope["method"]
        if (
            path[:1] != "/"
            or len(path) + len(scope.get("query_string", b"")) > MAX_LINE
            # RFC 9112, section 6.1, as in `RpcApp`
            or ("transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] == "1.0"))
        ):
            raise _RefusedError(400, "the request's target or framing is not allowed", close=True)
        if (refusal := self._guard.refusal(scope)) is not None:
            raise _RefusedError(*refusal, close=has_body)
        signal = _SIGNALS.get(path) if self._store is not None else None
        change = path.removeprefix(_CHANGES) if path.startswith(_CHANGES) and self._operations is not None else None
        posted = bool(signal or change)
        if method != "POST" if posted else method not in ("GET", "HEAD"):
            raise _RefusedError(
                405, "POST" if posted else "GET", (b"allow", b"POST" if posted else b"GET"), close=has_body
            )
        if signal:
            return await self._export(signal, headers, receive if has_body else None)
        if change:
            return await self._change(change, headers, receive)
        if has_body:
            raise _RefusedError(400, "a GET has no body here", close=True)
        if path in self._files:
            data, kind = self._files[path]
            return Answer(200, kind, data)
        query = scope.get("query_string", b"").decode("latin-1")
        if path == "/metrics" and self._operations is not None:
            return Answer(200, CONTENT_TYPE, await asyncio.to_thread(exposition, self._operations))
        if path == "/health" and self._operations is not None:
            away = await asyncio.to_thread(self._operations.away)
            return Answer(503 if away else 200, JSON, json.encode({"away": away}))
        return Answer(200, JSON, json.encode(await asyncio.to_thread(self._ask, path, query)))

    async def _change(self, change: str, headers: dict[str, str], receive: Receive) -> Answer:
        assert self._operations is not None
        if _media_type(headers) != JSON:
            raise _RefusedError(415, f"content-type must be {JSON}", close=True)
        body, token = await _read(receive, headers), headers.get(TOKEN_HEADER, "")
        return Answer(200, JSON, json.encode(await asyncio.to_thread(self._operations.change, change, body, token)))

    # -- OTLP -------------------------------------------------------------

    async def _export(self, signal: str, headers: dict[str, str], receive: Receive | None) -> Answer:
        kind = _media_type(headers)
        if kind not in (PROTOBUF, JSON):
            raise _RefusedError(415, f"content-type must be {PROTOBUF} or {JSON}", close=receive is not None)
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in UNPACK:
            raise _RefusedError(415, "content-encoding must be gzip, zstd or identity", close=receive is not None)
        taken = 0

        async def counted() -> dict[str, Any]:
            nonlocal taken
            assert receive is not None
            message = await receive()
            size = len(message.get("body", b""))
            if self._waiting + size > MAX_WAITING:
                raise _RefusedError(503, "too much at once: come again", (b"retry-after", b"1"), close=True)
            taken += size
            self._waiting += size
            return message

        try:
            body = b"" if receive is None else await _read(counted, headers)
            batch = await asyncio.to_thread(self._keep, signal, kind, UNPACK[coding], body)
        finally:
            self._waiting -= taken
        return _accepted(signal, kind, batch)

    def _keep(self, signal: str, kind: str, unpack: Callable[[bytes], bytes], body: bytes) -> rows.Batch:
        try:
            with self._decoding:  # one at a time: decoded, a request is many times as large
                data = unpack(body)
                request = otlp_json.decode(signal, data) if kind == JSON else json_records.records(signal, data)
                batch = rows.read(signal, request)
        except PayloadError as error:
            raise _RefusedError(400, str(error)) from error
        except UnsupportedError as error:
            raise _RefusedError(415, str(error)) from error
        except ResourceExhaustedError as error:
            raise _RefusedError(413, str(error)) from error
        assert self._store is not None
        return self._store.add(signal, batch) if batch.rows or batch.rejected else batch

    # -- the page's questions ---------------------------------------------

    def _ask(self, path: str, query: str) -> dict[str, Any]:
        given = {name: values[-1] for name, values in parse_qs(query, max_num_fields=20).items()}
        service, limit = given.get("service", ""), max(1, _number(given, "limit", 100, 1000))
        operations, telemetry = self._operations, self._store
        if path == "/api/status":
            status = {} if telemetry is None else queries.status(telemetry)
            changes = operations is not None and operations.may_change
            return {
                **status,
                "telemetry": telemetry is not None,
                "operations": operations is not None,
                "changes": changes,
            }
        if operations is not None:
            if path == "/scale":
                return {"value": operations.lag(given)}
            question = path.removeprefix("/api/operations/")
            if question != path and (answer := operations.ask(question, given)) is not None:
                return answer
        if telemetry is None:
            raise _RefusedError(404, "there is nothing at this path")
        if path == "/api/traces":
            least = int(_decimal(given, "min") * 1_000_000)
            return queries.traces(
                telemetry,
                name=given.get("name", ""),
                least=least,
                errors=given.get("errors") == "1",
                service=service,
                period=search.period(given),
                asked=search.conditions(given.get("attributes", "")),
                limit=limit,
            )
        if path == "/api/logs":
            return queries.logs(
                telemetry,
                trace=_id(given.get("trace", "")),
                span=_id(given.get("span", "")),
                severity=_number(given, "severity", 0, 24),
                text=given.get("text", ""),
                service=service,
                period=search.period(given),
                asked=search.conditions(given.get("attributes", "")),
                limit=limit,
            )
        if path == "/api/metrics":
            name = given.get("name", "")
            return queries.metrics(telemetry, name=name, service=service, period=search.period(given), limit=limit)
        if path == "/api/map":
            return service_map(telemetry, search.period(given))
        if path.startswith("/api/traces/"):
            document = queries.trace(telemetry, _id(path.removeprefix("/api/traces/")))
            if document is not None:
                return document
            raise _RefusedError(404, "there is no such trace; the oldest are evicted")
        raise _RefusedError(404, "there is nothing at this path; OTLP goes to /v1/traces, /v1/logs and /v1/metrics")


async def _read(receive: Receive, headers: dict[str, str]) -> bytes:
    """Read the body of a request."""
    try:
        return await read_body(receive, headers)
    except BodyRefusedError as refused:
        slow = refused.reply.status == 408
        reason = "the body came too slowly" if slow else f"the body is larger than {MAX_BODY:,} bytes"
        raise _RefusedError(refused.reply.status, reason, close=True) from None
    except InternalError:
        raise _RefusedError(400, "the body did not come whole", close=True) from None


def _media_type(headers: dict[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _number(given: dict[str, str], name: str, default: int, maximum: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _RefusedError(400, f"{name} must be a number")
    return min(int(text), maximum)


def _decimal(given: dict[str, str], name: str) -> float:
    """Return milliseconds, which SQLite can have as nanoseconds."""
    try:
        value = float(given.get(name, "0"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e12:
        raise _RefusedError(400, f"{name} must be milliseconds")
    return value


def _id(text: str) -> bytes:
    if len(text) > 32 or not text.isalnum():
        return b""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _accepted(signal: str, kind: str, batch: rows.Batch) -> Answer:
    """Return an ``Export…ServiceResponse``: empty, or with what was rejected."""
    if not batch.rejected:
        return Answer(200, kind, b"{}" if kind == JSON else b"")
    if kind == JSON:
        partial = {_REJECTED[signal]: str(batch.rejected), "errorMessage": batch.reason}
        return Answer(200, kind, json.encode({"partialSuccess": partial}))
    inner, out = bytearray(b"\x08" + varint(batch.rejected)), bytearray()
    bytes_field(inner, 0x12, batch.reason.encode())
    bytes_field(out, 0x0A, inner)
    return Answer(200, kind, bytes(out))


def _status(
    kind: str, status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = (), *, close: bool = False
) -> Answer:
    """Return a ``google.rpc.Status`` in the encoding of the request."""
    code = _CODES[status]
    if kind == JSON:
        return Answer(status, kind, json.encode({"code": code, "message": reason}), close, headers)
    out = bytearray(b"\x08" + varint(code))
    bytes_field(out, 0x12, reason.encode("utf-8", "replace"))
    return Answer(status, kind, bytes(out), close, headers)


async def _discard(receive: Receive) -> None:
    """Read what is left of a body, within bounds: a client that still sends when the connection is closed never sees why."""
    room = MAX_WAITING
    try:
        async with asyncio.timeout(HEAD_TIME):
            while room > 0:
                message = await receive()
                room -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _send(send: Send, answer: Answer, *, head: bool) -> None:
    headers = [
        (b"content-type", answer.kind.encode()),
        (b"content-length", str(len(answer.data)).encode()),
        *_HEADERS,
        *answer.headers,
    ]
    if answer.close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.data})
