"""``invoke``: call a method."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from ..codec import json
from ..rpc import RpcResponse
from ._errors import UsageError
from ._session import Invocation, connect
from ._state import _encode, _is_json, _read, _value
from ._streams import note, write

__all__ = ["invoke"]


def invoke(
    invocation: Invocation,
    service: str,
    method: str,
    data: str | None,
    *,
    text: bool,
    file: str | None,
    content_type: str | None,
    http_method: str,
    headers: Sequence[str],
    query: Sequence[str],
    include: bool,
) -> int:
    """Call a method and write its reply."""
    if data is not None and file is not None:
        raise UsageError("give DATA or --file PATH, not both")
    if text and (data is None or content_type is not None):
        raise UsageError("--text says what DATA is: it does not go with --file or --content-type")
    given: Any = None
    if data is not None:
        raw = _read("-") if data == "-" else _encode(data)
        given, content_type = _value(raw, "text/plain" if text else content_type)
    values: dict[str, list[str]] = {}
    for name, value in _pairs(query, "--query"):
        values.setdefault(name, []).append(value)
    options: dict[str, Any] = {
        "http_method": http_method,
        "content_type": content_type,
        "headers": dict(_pairs(headers, "--header")) or None,
        "query": values or None,
    }
    with connect(invocation) as client:
        if file is None:
            response = client.rpc.invoke(service, method, given, **options)
        else:
            with _opened(file) as stream:
                response = client.rpc.invoke(service, method, stream, **options)
        if include:
            note(f"{response.status}")
            for name, value in response.headers.items():
                note(f"{name}: {value}")
        if response.status >= 300:
            from ..rpc.failures import failure
            from ..spi.rpc import RpcReply

            raise failure(
                RpcReply(response.status, response.headers, response.content_type, response.data), service, method
            )
    _show(response)
    return 0


def _show(response: RpcResponse) -> None:
    if not response.data:
        return
    if _is_json(response.content_type):
        write(response.data + b"\n")
        return
    value = response.decode()
    write(response.data if isinstance(value, (bytes, str)) else json.encode(value) + b"\n")


def _pairs(given: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for each in given:
        name, sign, value = each.partition("=")
        if not name or not sign:
            raise UsageError(f"{option} {each!r}: give NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _opened(path: str) -> Any:
    if path == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
