"""The front of ``file``; see `_app`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, TypeAlias

import typer

__all__ = ["file_app"]

Work: TypeAlias = Callable[[], int]

file_app = typer.Typer(help="Store and read files.", no_args_is_help=True, rich_markup_mode=None)

Files = Annotated[str, typer.Argument(help="Name of the file component.", show_default=False)]
FileName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the file.", show_default=False)]


@file_app.command("put", short_help="Store a file.")
def file_put(
    context: typer.Context,
    store: Files,
    name: FileName,
    path: Annotated[str, typer.Argument(help="Where the content is; - is stdin.")] = "-",
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="What it is, e.g. text/csv.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the file; repeatable.")
    ] = None,
    no_overwrite: Annotated[bool, typer.Option("--no-overwrite", help="Only if there is none of that name.")] = False,
) -> Work:
    """Store a file, whole or not at all. Exit code 4 where --no-overwrite finds one."""
    from . import _file

    return partial(
        _file.put,
        context.obj,
        store,
        name,
        path,
        content_type=content_type,
        metadata=metadata or [],
        overwrite=not no_overwrite,
    )


@file_app.command("get", short_help="Write a file.")
def file_get(
    context: typer.Context,
    store: Files,
    name: FileName,
    path: Annotated[str, typer.Argument(help="Where to; - is stdout.")] = "-",
    start: Annotated[int, typer.Option(metavar="N", help="First byte.")] = 0,
    length: Annotated[int | None, typer.Option(metavar="N", help="How many bytes at most.")] = None,
) -> Work:
    """Write a file's content to stdout or a path. Exit code 3 where there is none."""
    from . import _file

    return partial(_file.get, context.obj, store, name, path, start=start, length=length)


@file_app.command("ls", short_help="List files.")
def file_list(
    context: typer.Context,
    store: Files,
    prefix: Annotated[str, typer.Argument(help="With which names begin.", show_default=False)] = "",
    level: Annotated[bool, typer.Option("--level", help="Stop at the next /: folders end with it.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="How many at most.")] = None,
    after: Annotated[str | None, typer.Option(metavar="NAME", help="Only those behind this name.")] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="Size and time before the name.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Each as a JSON object.")] = False,
) -> Work:
    """Write the names in byte order: a table on a terminal, else one a line."""
    from . import _file

    return partial(
        _file.list_files,
        context.obj,
        store,
        prefix,
        recursive=not level,
        limit=limit,
        after=after,
        long=long,
        as_json=json,
    )


@file_app.command("rm")
def file_remove(
    context: typer.Context,
    store: Files,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of files.", show_default=False)],
) -> Work:
    """Delete files; absent ones are fine."""
    from . import _file

    return partial(_file.remove, context.obj, store, names)


@file_app.command("stat")
def file_stat(context: typer.Context, store: Files, name: FileName) -> Work:
    """Write what is known of a file: a table on a terminal, else a JSON object. Exit code 3 where there is none."""
    from . import _file

    return partial(_file.stat, context.obj, store, name)


@file_app.command("url", short_help="Write a signed URL of a file.")
def file_url(
    context: typer.Context,
    store: Files,
    name: FileName,
    expires: Annotated[float, typer.Option(metavar="SECONDS", help="How long it holds.")] = 900.0,
    method: Annotated[Literal["GET", "PUT"], typer.Option(help="What may be done with it.")] = "GET",
) -> Work:
    """Write a URL with which whoever has it may read or write a file for some time. It is a secret while it holds."""
    from . import _file

    return partial(_file.url, context.obj, store, name, expires=expires, method=method)
