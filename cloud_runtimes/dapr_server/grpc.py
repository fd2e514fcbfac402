"""The gRPC API: methods of the service ``dapr.proto.runtime.v1.Dapr``, without generated code."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, cast

import grpc
from grpc import aio

from .._core.logs import logger
from ..errors import GRPC_CODES
from ..protocols.dapr.failures import DaprError
from ..protocols.dapr.messages import messages
from .context import Context

SERVICE: Final = "/dapr.proto.runtime.v1.Dapr/"
_CODES: Final = {code.name: code for code in grpc.StatusCode}

Unary = Callable[[Any, Any], Awaitable[Any]]
Streaming = Callable[[Any, Any], AsyncIterator[Any]]
"""An asynchronous generator: it is closed when the call ends."""


class GrpcApi(grpc.GenericRpcHandler):
    """Methods of all building blocks; ``otherwise`` may give a handler to what is not of Dapr's service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._handlers: dict[str, Any] = {}
        self.otherwise: Callable[[grpc.HandlerCallDetails], Any] | None = None

    def unary(self, name: str, request: str, handler: Unary) -> None:
        """Have ``handler(request, servicer_context)`` answer a method; ``request`` is the name of its message."""
        self._handlers[SERVICE + name] = grpc.unary_unary_rpc_method_handler(
            self._guarded(handler), getattr(messages(), request).FromString, _serialize
        )

    def server_stream(self, name: str, request: str, handler: Streaming) -> None:
        """Have ``handler(request, servicer_context)`` yield the answers of a method."""
        self._handlers[SERVICE + name] = grpc.unary_stream_rpc_method_handler(
            self._guarded_stream(handler), getattr(messages(), request).FromString, _serialize
        )

    def stream(self, name: str, request: str, handler: Streaming) -> None:
        """Have ``handler(requests, servicer_context)`` yield the answers to a stream of requests."""
        self._handlers[SERVICE + name] = grpc.stream_stream_rpc_method_handler(
            self._guarded_stream(handler), getattr(messages(), request).FromString, _serialize
        )

    def refuse(self, name: str, error: DaprError) -> None:
        """Have a method refused, whatever its kind, before a message is read."""

        async def answer(request: Any, context: Any) -> None:
            await abort(context, error)

        self._handlers[SERVICE + name] = grpc.stream_stream_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return who answers a method, or ``None``."""
        handler = self._handlers.get(handler_call_details.method)
        metadata = handler_call_details.invocation_metadata
        if not self._accepts(metadata, self._context.settings.api_token):
            # another sidecar has no token of ours, but may pass calls on to the application
            peer = self._context.peer_token
            if handler is not None or peer is None or not self._accepts(metadata, peer):
                return _refusal
        if handler is None and self.otherwise is not None:
            handler = self.otherwise(handler_call_details)
        return handler

    def _accepts(self, metadata: Any, token: str | None) -> bool:
        if token is None:
            return True
        given = [value for name, value in metadata or () if name == "dapr-api-token"]
        return len(given) == 1 and hmac.compare_digest(str(given[0]).encode(), token.encode())

    def _guarded(self, handler: Unary) -> Unary:
        async def answer(request: Any, context: Any) -> Any:
            try:
                return await handler(request, context)
            except DaprError as error:
                await abort(context, error)
            except aio.AbortError:
                raise
            except Exception as error:
                await _failed(context, error)

        return answer

    def _guarded_stream(self, handler: Streaming) -> Streaming:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(cast(AsyncGenerator[Any, None], handler(request, context))) as items:
                    async for item in items:
                        yield item
            except DaprError as error:
                await abort(context, error)
            except aio.AbortError:
                raise
            except Exception as error:
                await _failed(context, error)

        return answer


async def _refuse(request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid api token")


# takes any method, a streaming one too: it is refused before a message is read
_refusal: Final[Any] = grpc.stream_stream_rpc_method_handler(_refuse)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _failed(context: Any, error: Exception) -> None:
    logger().error("a call over gRPC failed: %r", error, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "unexpected failure of the sidecar: see its log")


async def abort(context: Any, error: DaprError) -> None:
    """End a call with a refusal, its details in ``grpc-status-details-bin``."""
    if error.reason is not None:
        kinds = messages()
        status = kinds.Status(code=GRPC_CODES[error.grpc_code], message=error.message)
        details = [kinds.ErrorInfo(reason=error.reason, domain="dapr.io", metadata=error.metadata)]
        if error.resource is not None:
            kind, name, *text = error.resource
            details.append(
                kinds.ResourceInfo(resource_type=kind, resource_name=name, description=text[0] if text else "")
            )
        if error.violations:
            violations = [kinds.FieldViolation(field=field, description=text) for field, text in error.violations]
            details.append(kinds.BadRequest(field_violations=violations))
        if error.links:
            details.append(kinds.Help(links=[kinds.HelpLink(description=text, url=url) for text, url in error.links]))
        for detail in details:
            status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(_CODES[error.grpc_code], error.message)
