"""Bindings over HTTP."""

from __future__ import annotations

import re
from typing import Final

from ...codec import json
from ...codec.payload import JSON
from ..http.app import HttpApi
from ..http.request import Reply, Request, empty, mapping, members, text
from ..http.router import Route
from .api import BindingsApi

__all__ = ["BindingsRoutes"]

_MAX_HEADER: Final = 4096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class BindingsRoutes:
    """The route of bindings."""

    def __init__(self, api: BindingsApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add it."""
        http.add(Route("POST PUT", "/v1.0/bindings/{name}", self._invoke))

    async def _invoke(self, request: Request) -> Reply:
        body = members(request.json())
        data = body.get("data")
        found = await self._api.invoke(
            request.params["name"],
            text(body, "operation") or "",
            # Dapr makes "null" of none, which files then take for base64
            b"" if data is None else json.encode(data),
            mapping(body, "metadata"),
        )
        if found is None:
            return empty
        data, metadata = found
        # a statement may be longer than callers take headers
        headers = [
            (f"metadata.{name}", _header(value)) for name, value in metadata.items() if len(value) <= _MAX_HEADER
        ]
        return Reply(200, data, JSON, headers)


def _header(value: str) -> str:
    """Return text for a header: on one line, as UTF-8."""
    return _CONTROL.sub(" ", value).strip().encode().decode("latin-1")
