"""``file put|get|ls|rm|stat|url``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from ._completing import stores
from ._errors import UsageError
from ._output import Output, is_table, record, rows
from ._publish import opened
from ._session import connect
from ._streams import Advance, progress, write
from ._tables import Table

if TYPE_CHECKING:
    from ..file import FileInfo

_CHUNK: Final = 1 << 20
_PAGE: Final = 1000
_COLUMNS: Final = ("size", "modified", "content_type", "name")

file_app = typer.Typer(help="Store and read files.", no_args_is_help=True, rich_markup_mode=None)

Store = Annotated[
    str, typer.Argument(help="Name of the file component.", show_default=False, autocompletion=stores("file"))
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the file.", show_default=False)]


@file_app.command("put", short_help="Store a file.")
def put(
    context: typer.Context,
    store: Store,
    name: Name,
    path: Annotated[str, typer.Argument(help="Where the content is; - is stdin.")] = "-",
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="What it is, e.g. text/csv.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the file; repeatable.")
    ] = None,
    no_overwrite: Annotated[bool, typer.Option("--no-overwrite", help="Only if there is none of that name.")] = False,
) -> int:
    """Store a file, whole or not at all. Exit code 4 where --no-overwrite finds one."""
    from ._values import pairs

    kept = dict(pairs(metadata, "--metadata")) or None
    data: Any = sys.stdin.buffer if path == "-" else Path(path)
    with ExitStack() as resources:
        client = resources.enter_context(connect(context.obj))
        if sys.stderr.isatty():  # elsewhere the service copies the file itself, which is faster
            file, _, size = resources.enter_context(opened(path))
            data = _counted(file, resources.enter_context(progress(size, "bytes")))
        client.file.put_file(store, name, data, content_type=content_type, metadata=kept, overwrite=not no_overwrite)
    return 0


def _counted(file: IO[bytes], advance: Advance) -> Iterator[bytes]:
    """Yield the content of a file, and tell how much of it is read."""
    count = 0
    while data := file.read(_CHUNK):
        yield data
        count += len(data)
        advance(count, count)


@file_app.command("get", short_help="Write a file.")
def get(
    context: typer.Context,
    store: Store,
    name: Name,
    path: Annotated[str, typer.Argument(help="Where to; - is stdout.")] = "-",
    start: Annotated[int, typer.Option(metavar="N", help="First byte.")] = 0,
    length: Annotated[int | None, typer.Option(metavar="N", help="How many bytes at most.")] = None,
) -> int:
    """Write a file's content to stdout or a path. Exit code 3 where there is none."""
    if start < 0 or (length is not None and length < 0):
        raise UsageError("--start and --length are numbers of bytes ≥ 0")
    with connect(context.obj) as client, client.file.open_file(store, name) as file:
        if start:
            file.seek(start)
        remaining = (file.info.size or 0) if length is None else length
        if path == "-":
            while data := file.read(min(remaining, _CHUNK)):
                write(data)
                remaining -= len(data)
            return 0
        with open(path, "wb") as target:
            while data := file.read(min(remaining, _CHUNK)):
                target.write(data)
                remaining -= len(data)
    return 0


@file_app.command("ls", short_help="List files.")
def list_files(
    context: typer.Context,
    store: Store,
    prefix: Annotated[str, typer.Argument(help="With which names begin.", show_default=False)] = "",
    level: Annotated[bool, typer.Option("--level", help="Stop at the next /: folders end with it.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="How many at most.")] = None,
    after: Annotated[str | None, typer.Option(metavar="NAME", help="Only those behind this name.")] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="Size and time before the name.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As --format json.")] = False,
    output: Output = None,
) -> int:
    """Write the names in byte order: a table on a terminal, else one a line."""
    with connect(context.obj) as client:
        remaining, table = limit, Table(_COLUMNS, whole=True)
        while remaining is None or remaining > 0:
            size = _PAGE if remaining is None else min(remaining, _PAGE)
            page = client.file.list_files(store, prefix, recursive=not level, limit=size, after=after)
            _show(page, table, long, "json" if json else output)
            if len(page) < size:
                break
            after = page[-1].name
            remaining = None if remaining is None else remaining - size
        else:
            if limit is not None and limit < 1:
                raise UsageError("--limit is a number ≥ 1")
    return 0


def _show(page: Sequence[FileInfo], table: Table, long: bool, output: str | None) -> None:
    if output is not None or is_table(output):
        rows(map(_fields, page), _COLUMNS, output, table)
    else:
        write(b"".join(_line(info, long) + b"\n" for info in page))


def _line(info: FileInfo, long: bool) -> bytes:
    if not long:
        return info.name.encode()
    time = "" if info.modified is None else info.modified.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{'' if info.size is None else info.size:>12} {time:20} {info.name}".encode()


def _fields(info: FileInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "size": info.size,
        "modified": None if info.modified is None else info.modified.isoformat(),
        "etag": info.etag,
        "content_type": info.content_type,
        "metadata": dict(info.metadata),
    }


@file_app.command("rm")
def remove(
    context: typer.Context,
    store: Store,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of files.", show_default=False)],
) -> int:
    """Delete files; absent ones are fine."""
    with connect(context.obj) as client:
        for name in names:
            client.file.delete_file(store, name)
    return 0


@file_app.command("stat")
def stat(context: typer.Context, store: Store, name: Name, output: Output = None) -> int:
    """Write what is known of a file: a table on a terminal, else a JSON object. Exit code 3 where there is none."""
    with connect(context.obj) as client:
        record(_fields(client.file.stat_file(store, name)), output)
    return 0


@file_app.command("url", short_help="Write a signed URL of a file.")
def url(
    context: typer.Context,
    store: Store,
    name: Name,
    expires: Annotated[float, typer.Option(metavar="SECONDS", help="How long it holds.")] = 900.0,
    method: Annotated[Literal["GET", "PUT"], typer.Option(help="What may be done with it.")] = "GET",
) -> int:
    """Write a URL with which whoever has it may read or write a file for some time. It is a secret while it holds."""
    with connect(context.obj) as client:
        write(client.file.url(store, name, expires=expires, method=method).encode() + b"\n")
    return 0
