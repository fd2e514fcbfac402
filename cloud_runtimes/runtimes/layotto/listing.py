"""Listings of files, whose sidecar has two ways: ``local`` lists a folder, object stores what begins with a prefix."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ...protocols.layotto.messages import messages
from ...spi.file import FileInfo
from .._sidecar.listing import page
from .._sidecar.transport import Flow
from .failures import LayottoSidecarError

if TYPE_CHECKING:
    from .file import LayottoFiles

__all__ = ["is_folder", "listed", "moment"]

_PAGE: Final = 1000


def listed(
    files: LayottoFiles, root: str, prefix: str, recursive: bool, limit: int | None, after: str | None
) -> Flow[list[FileInfo]]:
    """Return a listing as `FileDriver.list_files` has it."""
    found: list[FileInfo] = []
    top = root.rstrip("/") or "."
    try:
        known = yield from files.meta(top)
    except LayottoSidecarError as refused:
        if refused.status != "INTERNAL":
            raise
        known = None  # a bucket is no name of a file to object stores
    if known is not None and is_folder(known):
        folder = prefix.rpartition("/")[0]
        yield from _walk(files, root, folder, prefix, recursive, found)
    else:
        yield from _prefixed(files, root, prefix, found)
    return page(found, prefix, recursive, limit, after)


def _walk(
    files: LayottoFiles, root: str, folder: str, prefix: str, recursive: bool, found: list[FileInfo]
) -> Flow[None]:
    """Add the files of a folder and, where they can be meant, of those in it."""
    try:
        entries = yield from _entries(files, (root + folder).rstrip("/") or ".")
    except LayottoSidecarError as refused:
        if refused.status != "INTERNAL" or (yield from files.meta(root + folder)) is not None:
            raise
        return  # there is no such folder
    for entry in entries:
        name = f"{folder}/{entry.file_name}" if folder else str(entry.file_name)
        if not (name.startswith(prefix) or prefix.startswith(f"{name}/")):
            continue
        known = yield from files.meta(root + name)
        if known is None:
            continue
        if not is_folder(known):
            found.append(FileInfo(name, known.size, moment(known.last_modified)))
        else:
            yield from _walk(files, root, name, prefix, recursive, found)


def _prefixed(files: LayottoFiles, root: str, prefix: str, found: list[FileInfo]) -> Flow[None]:
    """Add the objects whose names begin with a prefix. The first segment of the root is the bucket, which their names do not have."""
    inside = root.partition("/")[2]
    for entry in (yield from _entries(files, root + prefix)):
        name = str(entry.file_name)
        if name.startswith(inside + prefix):
            found.append(FileInfo(name[len(inside) :], entry.size, moment(entry.last_modified)))


def _entries(files: LayottoFiles, place: str) -> Generator[Any, Any, list[Any]]:
    """Return all entries of a listing, page by page."""
    pb = messages()
    entries: list[Any] = []
    marker = ""
    while True:
        request = pb.ListFileRequest(
            request=pb.FileRequest(store_name=files.store, name=place), page_size=_PAGE, marker=marker
        )
        answer = yield from files.transport.ask("ListFile", request, "ListFileResp")
        entries += answer.files
        if not answer.is_truncated or not answer.files or answer.marker == marker:
            return entries
        marker = answer.marker


def is_folder(found: Any) -> bool:
    """Tell whether what is known of a name is that of a folder of ``local``."""
    return "IsDir" in found.response.metadata and list(found.response.metadata["IsDir"].value) == ["true"]


def moment(text: str) -> datetime | None:
    """Return a time as the components write it, in Go's way or as RFC 3339; ``None``: in another."""
    day, _, rest = text.partition(" ")
    time, _, zone = rest.partition(" ")
    if zone:  # 2025-01-15 09:30:12.123456789 +0000 UTC
        zone = zone.partition(" ")[0]
        text = f"{day}T{time[:15]}{zone[:3]}:{zone[3:]}"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
