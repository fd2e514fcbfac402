"""``file put|get|ls|rm|stat|url``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..codec import json
from ..file import FileInfo
from ..file.types import UrlMethod
from ._errors import UsageError
from ._session import Invocation, connect
from ._streams import write
from ._tables import Table, record, rows

__all__ = ["get", "list_files", "put", "remove", "stat", "url"]

_PAGE: Final = 1000
_COLUMNS: Final = ("size", "modified", "content_type", "name")


def put(
    invocation: Invocation,
    store: str,
    name: str,
    path: str,
    *,
    content_type: str | None,
    metadata: list[str],
    overwrite: bool,
) -> int:
    """Store stdin or the content of a path."""
    pairs = {}
    for each in metadata:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise UsageError(f"--metadata {each!r}: give NAME=VALUE")
        pairs[key] = value
    data: Any = sys.stdin.buffer if path == "-" else Path(path)
    with connect(invocation) as client:
        client.file.put_file(store, name, data, content_type=content_type, metadata=pairs or None, overwrite=overwrite)
    return 0


def get(invocation: Invocation, store: str, name: str, path: str, *, start: int, length: int | None) -> int:
    """Write a file, or a part of it, in pieces."""
    if start < 0 or (length is not None and length < 0):
        raise UsageError("--start and --length are numbers of bytes ≥ 0")
    with connect(invocation) as client, client.file.open_file(store, name) as file:
        if start:
            file.seek(start)
        left = (file.info.size or 0) if length is None else length
        if path == "-":
            while data := file.read(min(left, 1024 * 1024)):
                write(data)
                left -= len(data)
            return 0
        with open(path, "wb") as target:
            while data := file.read(min(left, 1024 * 1024)):
                target.write(data)
                left -= len(data)
    return 0


def _fields(info: FileInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "size": info.size,
        "modified": None if info.modified is None else info.modified.isoformat(),
        "etag": info.etag,
        "content_type": info.content_type,
        "metadata": dict(info.metadata),
    }


def list_files(
    invocation: Invocation,
    store: str,
    prefix: str,
    *,
    recursive: bool,
    limit: int | None,
    after: str | None,
    long: bool,
    as_json: bool,
) -> int:
    """Write names, one a line, a page at a time."""
    with connect(invocation) as client:
        left, table = limit, Table(_COLUMNS, whole=True)
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = client.file.list_files(store, prefix, recursive=recursive, limit=size, after=after)
            _show(page, table, long, as_json)
            if len(page) < size:
                break
            after = page[-1].name
            left = None if left is None else left - size
        else:
            if limit is not None and limit < 1:
                raise UsageError("--limit is a number ≥ 1")
    return 0


def _show(page: Sequence[FileInfo], table: Table, long: bool, as_json: bool) -> None:
    if not as_json and sys.stdout.isatty():
        rows(map(_fields, page), _COLUMNS, table)
    else:
        write(b"".join(_line(info, long, as_json) + b"\n" for info in page))


def _line(info: FileInfo, long: bool, as_json: bool) -> bytes:
    if as_json:
        return json.encode(_fields(info))
    if not long:
        return info.name.encode()
    time = "" if info.modified is None else info.modified.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{'' if info.size is None else info.size:>12} {time:20} {info.name}".encode()


def remove(invocation: Invocation, store: str, names: list[str]) -> int:
    """Delete files."""
    with connect(invocation) as client:
        for name in names:
            client.file.delete_file(store, name)
    return 0


def stat(invocation: Invocation, store: str, name: str) -> int:
    """Write what is known of a file."""
    with connect(invocation) as client:
        record(_fields(client.file.stat_file(store, name)))
    return 0


def url(invocation: Invocation, store: str, name: str, *, expires: float, method: UrlMethod) -> int:
    """Write a signed URL."""
    with connect(invocation) as client:
        write(client.file.url(store, name, expires=expires, method=method).encode() + b"\n")
    return 0
