"""``InvokeService``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from grpc import StatusCode

from ...errors import GRPC_CODES
from ...protocols.dapr.failures import grpc_code_of_http
from ...protocols.dapr.messages import messages
from ..app.channel import AppAnswer, AppCall
from ..app.grpc import VERBS, headers_of, metadata_of
from .api import InvokeApi, method_path
from .policies import not_invoked

_MAX_TEXT: Final = 63


class InvokeMethods:
    """The method of service invocation."""

    def __init__(self, api: InvokeApi) -> None:
        self._api = api

    def add_to(self, grpc: Any) -> None:
        """Add it."""
        grpc.unary("InvokeService", "InvokeServiceRequest", self._invoke)

    async def _invoke(self, request: Any, context: Any) -> Any:
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


async def _fail(context: Any, code: str, text: str, status: bytes) -> None:
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
