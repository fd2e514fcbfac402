"""Service invocation: ``/v1.0/invoke``, the header ``dapr-app-id``, ``InvokeService``, and calls of gRPC that are passed on."""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any, Final

from ...errors import GRPC_CODES
from ...protocols.dapr.failures import DaprError, grpc_code_of_http
from ...protocols.dapr.messages import messages
from ..app.channel import AppAnswer, AppCall, passed_on
from ..context import Block, Context
from ..http.app import NOBODY, HttpApi, Route
from ..http.request import Reply, Request
from .announced import Announced
from .api import InvokeApi, clean_path, method_path
from .policies import not_invoked

__all__ = ["InvokeBlock"]

_PREFIX = "/v1.0/invoke/"
_MAX_TEXT: Final = 63


class InvokeBlock(Block):
    """See the module; while it runs, others find the application under its id."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._api = InvokeApi(context)
        self._announced = Announced(context)
        self._proxy: Any = None

    def routes(self, http: HttpApi) -> None:
        http.add(Route("*", "/v1.0/invoke/{target*}", self._http_invoke))
        http.otherwise = self._http_otherwise

    def methods(self, grpc: Any) -> None:
        from .proxy import Proxy

        grpc.unary("InvokeService", "InvokeServiceRequest", self._grpc_invoke)
        self._proxy = Proxy(self._context, self._api)
        grpc.otherwise = self._proxy.handler

    async def start(self) -> None:
        """Let others find the application."""
        await self._announced.start()

    async def stop(self) -> None:
        """Be found no longer."""
        await self._announced.stop()
        if self._proxy is not None:
            await self._proxy.close()

    # -- over HTTP --------------------------------------------------------

    async def _http_otherwise(self, request: Request) -> Reply | None:
        return None if _named(request) is None else await self._http_invoke(request)

    async def _http_invoke(self, request: Request) -> Reply:
        destination = _named(request) or _in_path(request)
        if destination is None:
            raise NOBODY
        target, path = destination
        if request.method in ("CONNECT", "TRACE"):
            raise DaprError(
                500, "INTERNAL", "ERR_DIRECT_INVOKE", f"failed to invoke, id: {target}, err: invalid HTTP verb"
            )
        call = AppCall(
            request.method,
            path,
            request.query_string,
            passed_on(request.headers),
            request.header("content-type"),
            request.body,
        )
        answer = await self._api.invoke(target, call, stream=True)
        return Reply(answer.status, answer.body, answer.content_type, answer.headers, answer.rest)

    # -- over gRPC --------------------------------------------------------

    async def _grpc_invoke(self, request: Any, context: Any) -> Any:
        from ..app.grpc import VERBS, headers_of, metadata_of

        message = request.message
        verb = message.http_extension.verb
        name = VERBS[verb] if 0 <= verb < len(VERBS) else "NONE"
        if not request.id:
            raise not_invoked("", "the id of an application is missing")
        call = AppCall(
            name,
            method_path(message.method),
            message.http_extension.querystring,
            headers_of(context.invocation_metadata()),
            message.content_type or None,
            message.data.value,
            message.data.type_url,
        )
        if self._api.needs_verb(request.id) and name in ("NONE", "CONNECT", "TRACE"):
            raise not_invoked(request.id, "rpc error: code = InvalidArgument desc = invalid HTTP verb")
        answer = await self._api.invoke(request.id, call)
        metadata = [(key, value) for key, value in metadata_of(answer.headers) if key != "dapr-http-status"]
        if answer.failure is not None:
            await context.send_initial_metadata(tuple(metadata))
            await _fail(context, *answer.failure)
        if not answer.is_grpc:
            metadata.append(("dapr-http-status", str(answer.status)))
        await context.send_initial_metadata(tuple(metadata))
        if (code := grpc_code_of_http(answer.status)) != "OK":
            await _fail(context, code, _phrase(answer.status), _details(code, answer))
        kinds = messages()
        return kinds.InvokeResponse(
            data=kinds.Any(type_url=answer.data_type, value=answer.body), content_type=answer.content_type or ""
        )


def _named(request: Request) -> tuple[str, str] | None:
    """Return the target of a header, and the whole path."""
    path = clean_path(request.raw_path)
    if target := request.header("dapr-app-id"):
        return target, path
    credentials = request.header("authorization") or ""
    if credentials.startswith("Basic "):
        try:
            name, separator, target = base64.b64decode(credentials[6:], validate=True).decode().partition(":")
        except ValueError:
            return None
        if separator and name.lower() == "dapr-app-id" and target and ":" not in target:
            return target, path
    return None


def _in_path(request: Request) -> tuple[str, str] | None:
    """Return the target in the path, and what follows it."""
    raw = request.raw_path
    if not raw.startswith(_PREFIX):
        return None
    target, separator, path = raw[len(_PREFIX) :].partition("/method/")
    target = f"{request.params['target']}/".partition("/method/")[0] if separator else ""  # the path may end there
    return (target, clean_path(path)) if target else None


async def _fail(context: Any, code: str, text: str, status: bytes) -> None:
    from grpc import StatusCode

    if status:
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
    await context.abort(StatusCode[code], text)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _details(code: str, answer: AppAnswer) -> bytes:
    """Return the status of an answer over HTTP (dapr/dapr ``pkg/messaging/v1/util.go``): of the body only the beginning is told."""
    kinds = messages()
    status = kinds.Status(code=GRPC_CODES[code], message=_phrase(answer.status))
    info = kinds.ErrorInfo(
        reason=_phrase(answer.status),
        domain="dapr.io",
        metadata={
            "http.code": str(answer.status),
            "http.error_message": answer.body[:_MAX_TEXT].decode("utf-8", "replace"),
        },
    )
    status.details.add().Pack(info)
    data: bytes = status.SerializeToString()
    return data
