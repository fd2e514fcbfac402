"""Service invocation over HTTP."""

from __future__ import annotations

import base64

from ...protocols.dapr.failures import DaprError
from ..app.channel import AppCall, passed_on
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request
from .api import InvokeApi, clean_path

_PREFIX = "/v1.0/invoke/"
_NOBODY = DaprError(
    404, "NOT_FOUND", "ERR_DIRECT_INVOKE", "failed getting app id either from the URL path or the header dapr-app-id"
)


class InvokeRoutes:
    """``/v1.0/invoke/{id}/method/{path}``, and any path that is nobody else's with the header ``dapr-app-id``."""

    def __init__(self, api: InvokeApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        http.add(Route("*", "/v1.0/invoke/{target*}", self._invoke))
        http.otherwise = self._otherwise

    async def _otherwise(self, request: Request) -> Reply | None:
        return None if _named(request) is None else await self._invoke(request)

    async def _invoke(self, request: Request) -> Reply:
        destination = _named(request) or _in_path(request)
        if destination is None:
            raise _NOBODY
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
