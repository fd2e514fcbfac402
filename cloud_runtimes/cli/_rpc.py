"""``invoke`` and ``serve-app``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..client import CloudRuntimesClient
from ..codec import json
from ..rpc import RpcResponse
from ._errors import UsageError
from ._session import Invocation, connect, logging_to_stderr
from ._state import _encode, _is_json, _read, _value
from ._streams import note, write

__all__ = ["invoke", "serve_app"]


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


def serve_app(invocation: Invocation, target: str, host: str, port: int | None) -> int:
    """Serve the methods of the client that ``MODULE:NAME`` is, until a signal."""
    module, colon, name = target.partition(":")
    if not colon or not module or not name.isidentifier():
        raise UsageError(f"{target!r}: give MODULE:CLIENT, e.g. shop.main:client")
    sys.path.insert(0, os.getcwd())  # as python -m does
    try:
        found: Any = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"there is no module {module!r} in {os.getcwd()} or among the installed ones") from error
    except AttributeError as error:
        raise UsageError(f"the module {module!r} has no {name!r}") from error
    if not isinstance(found, CloudRuntimesClient):
        raise UsageError(f"{target} is {type(found).__name__}, not a CloudRuntimesClient")
    with logging_to_stderr(), found:
        server = found.rpc.serving(host=host, port=port)
        server._run_until_closed(lambda: note(f"{found._context.settings.app_id} at {server.address}"))
    return 128 + server.signal if server.signal else 0
