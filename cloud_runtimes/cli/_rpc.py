"""``invoke``: call a method."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._errors import UsageError
from ._session import connect
from ._streams import note, write

if TYPE_CHECKING:
    from ..rpc import RpcResponse


def invoke(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service: its app id.", show_default=False)],
    method: Annotated[str, typer.Argument(help="Name of the method.", show_default=False)],
    data: Annotated[str | None, typer.Argument(help="JSON, else text; - is stdin.", show_default=False)] = None,
    text: Annotated[bool, typer.Option("--text", help="DATA is text/plain, whatever it looks like.")] = False,
    file: Annotated[
        str | None, typer.Option(metavar="PATH", help="The bytes of a file (- is stdin), streamed.")
    ] = None,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="What the data is.")] = None,
    http_method: Annotated[str, typer.Option(metavar="VERB", help="POST, GET, PUT …")] = "POST",
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header; repeatable.")] = None,
    query: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the query; repeatable.")] = None,
    include: Annotated[bool, typer.Option("--include", help="Write status and headers to stderr.")] = False,
) -> int:
    """Call a method and write its reply: JSON on a line, text and bytes as they are. Exit codes: 3 no such method, 5 not reached, 1 status 400 and above."""
    from ._values import pairs, value

    if data is not None and file is not None:
        raise UsageError("give DATA or --file PATH, not both")
    if text and (data is None or content_type is not None):
        raise UsageError("--text says what DATA is: it does not go with --file or --content-type")
    given: Any = None
    if data is not None:
        given, content_type = value(data, "text/plain" if text else content_type)
    queried: dict[str, list[str]] = {}
    for name, each in pairs(query, "--query"):
        queried.setdefault(name, []).append(each)
    options: dict[str, Any] = {
        "http_method": http_method,
        "content_type": content_type,
        "headers": dict(pairs(header, "--header")) or None,
        "query": queried or None,
    }
    with connect(context.obj) as client:
        if file is None:
            response = client.rpc.invoke(service, method, given, **options)
        else:
            with _opened(file) as stream:
                response = client.rpc.invoke(service, method, stream, **options)
        if include:
            note(f"{response.status}")
            for name, line in response.headers.items():
                note(f"{name}: {line}")
        if response.status >= 300:
            from ..rpc.failures import failure
            from ..spi.rpc import RpcReply

            raise failure(
                RpcReply(response.status, response.headers, response.content_type, response.data), service, method
            )
    _show(response)
    return 0


def _show(response: RpcResponse) -> None:
    from ..codec import json
    from ._values import is_json

    if not response.data:
        return
    if is_json(response.content_type):
        write(response.data + b"\n")
        return
    value = response.decode()
    write(response.data if isinstance(value, (bytes, str)) else json.encode(value) + b"\n")


def _opened(path: str) -> Any:
    if path == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
