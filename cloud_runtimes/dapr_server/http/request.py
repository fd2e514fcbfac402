"""A request of the HTTP API, and the reply."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from ...codec import json
from ...codec.payload import JSON
from ...errors import PayloadError
from ...protocols.dapr.failures import DaprError
from ..app.channel import Body

_WHOLE: Final = re.compile(r"-?[0-9]{1,10}")


@dataclass(slots=True)
class Request:
    """HTTP request.

    Attributes:
        method: ``"GET"`` and so on.
        path: decoded, without a trailing slash.
        raw_path: as received, for requests that are passed on.
        query_string: as received.
        params: values of the route's placeholders.
        headers: (lower-case name, value) pairs in their order.
        body: the whole body.
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
        values: dict[str, str] = {}
        for key, value in self.query:
            if key.startswith("metadata."):
                values.setdefault(key[9:], value)
        return values

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
    """HTTP reply; ``content_type`` is separate from the other headers, ``rest`` is a streamed body."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Iterable[tuple[str, str]] = ()
    rest: Body | None = None


empty = Reply(204)
"""Success with nothing to say."""


def json_reply(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Reply:
    """Return a reply of JSON."""
    return Reply(status, json.encode(value), JSON, headers)


def malformed(text: str) -> DaprError:
    """Return the refusal of a body that cannot be read (dapr/dapr ``pkg/messages``: ``ErrMalformedRequest``)."""
    return DaprError(400, "INVALID_ARGUMENT", "ERR_MALFORMED_REQUEST", f"failed deserializing HTTP body: {text}")


def members(value: Any, what: str = "the body") -> Mapping[str, Any]:
    """Return the members of an object by their names, and by those in lower case; ``null`` has none.

    Here and below it is as with Go's decoder: names differ by more than their case, ``null`` is as good as absent, and what is of another type is a `malformed` body.
    """
    fields = _object(value, what)
    return {**{name.lower(): each for name, each in fields.items()}, **fields}


def text(document: Mapping[str, Any], *names: str) -> str | None:
    """Return a member of `members` that is text, under the first of its names that is there; ``None``: there is none."""
    value = _member(document, names)
    if value is not None and not isinstance(value, str):
        raise malformed(f"{names[0]!r} is {_kind(value)} where a string is wanted")
    return value


def integer(document: Mapping[str, Any], *names: str) -> int:
    """Return a member that is a whole number of 32 bits, or its digits as text (ProtoJSON); absent: 0."""
    value = _member(document, names)
    if value is None:
        return 0
    number = value
    if (isinstance(value, str) and _WHOLE.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not -(2**31) <= number < 2**31:
        raise malformed(f"{names[0]!r} is {_kind(value)} where an integer of 32 bits is wanted")
    return number


def texts(document: Mapping[str, Any], name: str) -> list[str]:
    """Return a member that is an array of texts; absent: none."""
    value = _member(document, (name,))
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise malformed(f"{name!r} is {_kind(value)} where an array of strings is wanted")
    return value


def mapping(document: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return a member that is an object of texts, whose names are as they came; absent: empty."""
    value = _object(_member(document, (name,)), repr(name))
    for key, each in value.items():
        if not isinstance(each, str):
            raise malformed(f"{name}.{key} is {_kind(each)} where a string is wanted")
    return dict(value)


def _object(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(f"{what} is {_kind(value)} where an object is wanted")
    return value


def _member(document: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        for spelled in (name, name.lower()):
            if spelled in document:
                return document[spelled]
    return None


def _kind(value: Any) -> str:
    kinds = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "null")
