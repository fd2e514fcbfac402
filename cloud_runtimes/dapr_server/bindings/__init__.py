"""Bindings to files and SQL, ``/v1.0/bindings``, and those that call the application at times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ...codec import json
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, InvalidArgumentError, PermissionDeniedError, UnavailableError
from ...protocols.dapr.failures import DaprError
from ...protocols.dapr.messages import messages
from ..context import Block, Context
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, mapping, members, text
from . import files, sql
from .cron import Timers

__all__ = ["BindingsApi", "BindingsBlock"]

_MAX_HEADER: Final = 4096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class BindingsApi:
    """The bindings that the settings name."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._closed: set[str] = set()

    async def invoke(
        self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]
    ) -> tuple[bytes, dict[str, str]] | None:
        """Do something with a binding; return the reply's data and metadata, ``None``: it has no reply."""
        try:
            return await self._invoke(name, operation, data, metadata)
        except PermissionDeniedError as error:
            text = f"error invoking output binding {name}: {error.message}"
            raise DaprError.basic(403, "PERMISSION_DENIED", "ERR_INVOKE_OUTPUT_BINDING", text) from error
        except CloudRuntimesError as error:
            text = f"error invoking output binding {name}: {error.message}"
            raise DaprError.basic(500, "INTERNAL", "ERR_INVOKE_OUTPUT_BINDING", text) from error

    async def _invoke(
        self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]
    ) -> tuple[bytes, dict[str, str]] | None:
        if not operation:
            raise InvalidArgumentError("operation field is missing from request")
        kind, store = self._context.settings.bindings.get(name, ("", ""))
        if not kind:
            raise InvalidArgumentError(f"couldn't find output binding {name}")
        operations = files.OPERATIONS if kind == "file" else sql.OPERATIONS
        if operation not in operations:
            raise InvalidArgumentError(
                f"binding {name} does not support operation {operation}. supported operations:{' '.join(operations)}"
            )
        if kind == "file":
            budget = self._context.budget(f"the answer of binding {name}", "ask for less at a time")
            result = await files.invoke(self._context, store, operation, data, metadata, budget)
            return None if result is None else (result, {})
        if operation == "close":
            # for callers of the sidecar alone: the client's database serves others too
            self._closed.add(name)
            return None
        if name in self._closed:
            raise UnavailableError("component is closed")
        budget = self._context.budget(f"the rows of binding {name}", "add a condition or LIMIT")
        try:
            return await sql.invoke(self._context.frame("database"), store, operation, metadata, budget)
        except CloudRuntimesError as error:
            raise type(error)(f"{error.message} (SQLSTATE {sql.state(error)})") from error


class BindingsBlock(Block):
    """Bindings to files and SQL, ``/v1.0/bindings``, and those that call the application at times."""

    def __init__(self, context: Context) -> None:
        self._api = BindingsApi(context)
        self._timers = Timers(context)

    def routes(self, http: HttpApi) -> None:
        http.add(Route("POST PUT", "/v1.0/bindings/{name}", self._http_invoke))

    def methods(self, grpc: Any) -> None:
        grpc.unary("InvokeBinding", "InvokeBindingRequest", self._grpc_invoke)

    async def start(self) -> None:
        """Begin to call the application at times."""
        self._timers.start()

    async def stop(self) -> None:
        """Call it no more."""
        await self._timers.stop()

    # -- over HTTP --------------------------------------------------------

    async def _http_invoke(self, request: Request) -> Reply:
        body = members(request.json())
        data = body.get("data")
        result = await self._api.invoke(
            request.params["name"],
            text(body, "operation") or "",
            # Dapr makes "null" of none, which files then take for base64
            b"" if data is None else json.encode(data),
            mapping(body, "metadata"),
        )
        if result is None:
            return empty
        data, metadata = result
        # a statement may be longer than callers take headers
        headers = [
            (f"metadata.{name}", _header(value)) for name, value in metadata.items() if len(value) <= _MAX_HEADER
        ]
        return Reply(200, data, JSON, headers)

    # -- over gRPC --------------------------------------------------------

    async def _grpc_invoke(self, request: Any, context: Any) -> Any:
        result = await self._api.invoke(request.name, request.operation, request.data, dict(request.metadata))
        if result is None:
            return messages().InvokeBindingResponse()
        return messages().InvokeBindingResponse(data=result[0], metadata=result[1])


def _header(value: str) -> str:
    """Return text for a header: on one line, as UTF-8."""
    return _CONTROL.sub(" ", value).strip().encode().decode("latin-1")
