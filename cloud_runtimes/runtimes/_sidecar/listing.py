"""A page of a listing of files, which sidecars do not cut themselves."""

from __future__ import annotations

from ...spi.file import FileInfo

__all__ = ["page"]


def page(found: list[FileInfo], prefix: str, recursive: bool, limit: int | None, after: str | None) -> list[FileInfo]:
    """Return what `FileDriver.list_files` was asked for, out of the files that begin with the prefix."""
    names: dict[str, FileInfo] = {}
    for info in found:
        head, slash, _ = info.name.removeprefix(prefix).partition("/")
        if slash and not recursive:
            names.setdefault(f"{prefix}{head}/", FileInfo(f"{prefix}{head}/", 0))
        else:
            names[info.name] = info
    ordered = sorted(names, key=str.encode)
    return [names[name] for name in ordered if after is None or name.encode() > after.encode()][:limit]
