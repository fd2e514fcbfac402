"""Checks and encoding of the RPC service before any I/O: no accepted value can end a line or segment of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlencode

from .._core import propagation
from .._core.arguments import check_metadata
from .._native import telemetry
from ..codec.payload import OCTETS, encode_payload
from ..errors import InvalidArgumentError, PayloadError
from ..spi.rpc import Body, RpcCall

MAX_HEADERS: Final = 16 * 1024
"""Bytes of names and values of one call's headers."""

_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")  # section 5.5, without what is not ASCII
_VERB: Final = re.compile(r"(?!(?:CONNECT|TRACE)$)[A-Z]{1,20}")
HOP_HEADERS: Final = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers of the transport, not of the call."""
_OURS: Final = ("cloud-runtimes-", "proxy-")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\?#]|[\ud800-\udfff]")
_RESERVED_PATHS: Final = ("healthz", "dapr", "cloud-runtimes")

_new_call = tuple.__new__
_NO_HEADERS: Final[Mapping[str, str]] = {}


def check_service(service: Any) -> str:
    """Return the name of a service: an ``app_id``, never an address."""
    if not isinstance(service, str) or not _SERVICE.fullmatch(service):
        raise InvalidArgumentError(
            f"service {_shown(service)}: give the app_id of a service (letters, digits, '.', '_', '-', at most 128); "
            "an address belongs into the configuration: [rpc.<service>] address = …"
        )
    return service


def check_method(method: Any) -> str:
    """Return a method's name as the path of a request: 1 to 512 characters of ``/``-separated segments, without what could be read as something else."""
    if isinstance(method, str):
        return _path(method)
    raise _no_method(method)


@lru_cache(1024)
def _path(method: str) -> str:
    segments = method.split("/")
    if not 0 < len(method) <= 512 or _UNSAFE.search(method) or any(each in ("", ".", "..") for each in segments):
        raise _no_method(method)
    return quote(method, safe="/")


def _no_method(method: Any) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"method {_shown(method)}: give a name such as 'my-method' or 'orders/42': 1 to 512 characters without spaces, "
        "control characters, '?', '#', '\\', empty or dot segments; query= takes what stands behind a '?'"
    )


def check_registered(method: Any) -> str:
    """Return the name of a method to register; some paths belong to sidecars."""
    check_method(method)
    name = str(method)
    if name.split("/")[0] in _RESERVED_PATHS:
        raise InvalidArgumentError(f"method {name!r}: {', '.join(_RESERVED_PATHS)} and what is below them are taken")
    return name


def header_map(headers: Any) -> dict[str, str]:
    """Return headers with names in lower case: tokens, visible ASCII with spaces and tabs inside, none that this package sets itself, 16 KiB in all."""
    if not isinstance(headers, Mapping):
        raise InvalidArgumentError(f"headers must be a mapping of str to str, not {type(headers).__name__}")
    normalized: dict[str, str] = {}
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidArgumentError(f"header {_shown(name)}: a name is made of letters, digits and !#$%&'*+-.^_`|~")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidArgumentError(
                f"header {name!r}: a value is a str of visible ASCII with spaces inside only; encode what is not"
            )
        lower = name.lower()
        if lower in HOP_HEADERS or lower.startswith(_OURS):
            raise InvalidArgumentError(f"header {name!r} is set by the call itself; content_type= and timeout= exist")
        if lower in normalized:
            raise InvalidArgumentError(f"header {name!r} is given twice, in different case")
        normalized[lower] = value
        size += len(name) + len(value) + 4
    if size > MAX_HEADERS:
        raise InvalidArgumentError(f"headers: {size:,} bytes; {MAX_HEADERS:,} are taken: send the rest as data")
    return normalized


def query_text(query: Any) -> str:
    """Return a query, percent-encoded; values are str, numbers, bools, or sequences of them."""
    if not isinstance(query, Mapping):
        raise InvalidArgumentError(f"query must be a mapping, not {type(query).__name__}")
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"query: a name must be a non-empty str, not {_shown(name)}")
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, bool):
                each = "true" if each else "false"
            if not isinstance(each, (str, int, float)):
                raise InvalidArgumentError(
                    f"query {name!r}: give str, a number or a list of them, not {type(each).__name__}"
                )
            pairs.append((name, str(each)))
    try:
        text = urlencode(pairs)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"query: a lone surrogate is not UTF-8: {error}") from None
    if len(text) > MAX_HEADERS:
        raise InvalidArgumentError(f"query: {len(text):,} bytes; {MAX_HEADERS:,} are taken: send the rest as data")
    return text


def is_stream(data: Any) -> bool:
    """Return whether data is read piece by piece: a binary file, an iterator or an async iterator."""
    return hasattr(data, "__next__") or hasattr(data, "__anext__") or hasattr(data, "read")


def prepare(
    method: str,
    data: Any,
    http_method: str,
    content_type: str | None,
    headers: Mapping[str, str] | None,
    query: Mapping[str, Any] | None,
    metadata: Mapping[str, str] | None,
) -> RpcCall:
    """Check and encode one call."""
    path = check_method(method)
    body: Body
    if data is None:
        body, content_type = b"", None
    elif type(data) is not dict and is_stream(data):
        body, content_type = data, encode_payload(b"", content_type or OCTETS)[1]
        if hasattr(data, "read"):
            body = _pieces(data)
    else:
        body, content_type = encode_payload(data, content_type)
    if http_method != "POST" and not (isinstance(http_method, str) and _VERB.fullmatch(http_method)):
        raise InvalidArgumentError(f"http_method {_shown(http_method)}: give 'POST', 'GET', 'PUT', 'PATCH', 'DELETE' …")
    if metadata is not None:
        check_metadata(metadata)
    head = _NO_HEADERS if headers is None else header_map(headers)
    text = "" if query is None else query_text(query)
    return _new_call(RpcCall, (method, path, http_method, body, content_type, head, text))


def carrying(call: RpcCall) -> RpcCall:
    """Return the call with the trace context of the caller in its headers, unless it has one of its own; what does not fit into `MAX_HEADERS` is left out."""
    traceparent, more = telemetry.outgoing()
    if (traceparent is None and not more) or "traceparent" in call.headers:
        return call
    carried = {"traceparent": traceparent} if traceparent is not None else {}
    if more:
        propagation.inject(carried)
    headers = dict(call.headers)
    size = sum(len(name) + len(value) + 4 for name, value in headers.items())
    for name, value in carried.items():
        more_size = len(name) + len(value) + 4
        if name not in headers and size + more_size <= MAX_HEADERS:
            headers[name] = value
            size += more_size
    return call._replace(headers=headers)


def _pieces(file: Any) -> Any:
    while piece := file.read(256 * 1024):
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise PayloadError("a file must be opened in binary mode")
        yield piece


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
