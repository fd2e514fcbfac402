"""A request of the HTTP API, and the reply."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ..._dapr.failures import DaprError
from ...codec import json
from ...codec.payload import JSON
from ...errors import PayloadError

__all__ = ["Reply", "Request", "empty", "json_reply", "malformed"]


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        method: ``"GET"`` and so on.
        path: decoded, without a trailing slash.
        raw_path: as it came, for what is passed on.
        query_string: as it came.
        params: what the route's placeholders hold.
        headers: (lower-case name, value) pairs in their order.
        body: whole.
    """

    method: str
    path: str
    raw_path: str
    query_string: str
    headers: list[tuple[str, str]]
    body: bytes
    params: dict[str, str] = field(default_factory=dict)
    _query: list[tuple[str, str]] | None = None

    def header(self, name: str) -> str | None:
        """Return the first header of that name, in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def query(self) -> list[tuple[str, str]]:
        """The pairs of the query, decoded."""
        if self._query is None:
            self._query = parse_qsl(self.query_string, keep_blank_values=True)
        return self._query

    def argument(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        for key, value in self.query:
            if key == name:
                return value
        return None

    def metadata(self) -> dict[str, str]:
        """Return the ``metadata.<name>`` parameters; of one name the first counts."""
        found: dict[str, str] = {}
        for key, value in self.query:
            if key.startswith("metadata."):
                found.setdefault(key[9:], value)
        return found

    def json(self) -> Any:
        """Return the body decoded.

        Raises:
            DaprError: it is not JSON.
        """
        try:
            return json.decode(self.body)
        except PayloadError as error:
            raise malformed(error.message) from error


@dataclass(slots=True)
class Reply:
    """One reply; ``content_type`` stands apart from the other headers."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Iterable[tuple[str, str]] = ()


empty = Reply(204)
"""Success with nothing to say."""


def json_reply(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Reply:
    """Return a reply of JSON."""
    return Reply(status, json.encode(value), JSON, headers)


def malformed(text: str) -> DaprError:
    """Return the refusal of a body that cannot be read (dapr/dapr ``pkg/messages``: ``ErrMalformedRequest``)."""
    return DaprError(400, "INVALID_ARGUMENT", "ERR_MALFORMED_REQUEST", f"failed deserializing HTTP body: {text}")
