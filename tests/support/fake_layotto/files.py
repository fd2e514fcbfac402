"""Files: an object store with one bucket, or what ``local`` makes of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import NotFoundError
from cloud_runtimes.protocols.layotto.messages import messages

from .quirks import Quirks, Refuse, check_store

__all__ = ["BUCKET", "Files"]

BUCKET = "bucket"
_CHUNK = 102_400


class Files:
    """Files of the embedded runtime.

    Attributes:
        local: stores that are folders; the names of the others begin with `BUCKET`.
    """

    def __init__(self, client: CloudRuntimesClient, quirks: Quirks) -> None:
        self._files = client.file
        self._quirks = quirks
        self.local: set[str] = set()

    # -- content ------------------------------------------------------------

    def GetFile(self, request: Any, context: Any) -> Iterator[Any]:
        store, name = self._address(request)
        try:
            content = self._files.get_file(store, name)
        except NotFoundError:
            raise self._missing(name) from None
        for at in range(0, len(content), _CHUNK):
            yield messages().GetFileResponse(data=content[at : at + _CHUNK])

    def PutFile(self, requests: Iterator[Any], context: Any) -> Any:
        first = next(requests, None)
        if first is not None:
            store, name = self._address(first)
            if self._quirks.needs_mode and not {"FileMode", "FileFlag"} <= set(first.metadata):
                raise Refuse("INTERNAL", "fileMode is required for put file")
            sizes = {first.metadata.get(key, "") for key in ("fileSize", "filesize")}
            if self._quirks.needs_size and not (len(sizes) == 1 and sizes.pop().isdigit()):
                raise Refuse("INTERNAL", "filesize must be set")
            parts = [first.data]
            try:
                parts += [each.data for each in requests]
            except Exception:
                if store in self.local:  # what has come is there
                    self._files.put_file(store, name, b"".join(parts))
                raise
            self._files.put_file(store, name, b"".join(parts))
        return messages().Empty()

    def DelFile(self, request: Any, context: Any) -> Any:
        store, name = self._address(request.request)
        if store in self.local and not self._files.exists(store, name):
            raise self._missing(name)
        self._files.delete_file(store, name)
        return messages().Empty()

    # -- what is known ------------------------------------------------------

    def GetFileMeta(self, request: Any, context: Any) -> Any:
        kinds = messages()
        store, name = self._address(request.request)
        if not name:
            raise Refuse("INTERNAL", f"{request.request.name}: invalid fileName format")
        meta = kinds.FileMeta()
        size, modified = 0, ""
        try:
            info = self._files.stat_file(store, name) if name not in ("", ".") else None
        except NotFoundError:
            info = None
        if info is not None:
            size = info.size
            modified = f"{info.modified:%Y-%m-%d %H:%M:%S.%f} +0000 UTC" if info.modified else ""
        elif store not in self.local or not self._is_folder(store, name):
            raise Refuse("NOT_FOUND", "not exist")
        if store in self.local:
            meta.metadata["IsDir"].value.append("true" if info is None else "false")
        return kinds.GetFileMetaResponse(size=size, last_modified=modified, response=meta)

    def _is_folder(self, store: str, name: str) -> bool:
        return name in ("", ".") or bool(self._files.list_files(store, f"{name}/", limit=1))

    def ListFile(self, request: Any, context: Any) -> Any:
        kinds = messages()
        store, name = self._address(request.request)
        if store in self.local:
            if not self._is_folder(store, name):
                raise Refuse("INTERNAL", f"open {name}: no such file or directory")
            prefix = "" if name in ("", ".") else f"{name}/"
            listing = self._files.list_files(store, prefix, recursive=False)
            names = {info.name[len(prefix) :].rstrip("/"): info for info in listing}
        else:
            names = {info.name: info for info in self._files.list_files(store, name)}
        remaining = sorted(each for each in names if each > request.marker)
        page = remaining[: request.page_size]
        files = [kinds.FileInfo(file_name=each, size=names[each].size) for each in page]
        return kinds.ListFileResp(files=files, marker=page[-1] if page else "", is_truncated=len(page) < len(remaining))

    # -- names --------------------------------------------------------------

    def _address(self, request: Any) -> tuple[str, str]:
        store = check_store(request.store_name)
        name = request.name
        if store in self.local:
            return store, name
        bucket, _, key = name.partition("/")
        if bucket != BUCKET:
            raise Refuse("INTERNAL", f"there is no bucket {bucket}")
        return store, key

    def _missing(self, name: str) -> Refuse:
        return Refuse("INTERNAL" if self._quirks.missing_is_internal else "NOT_FOUND", f"{name}: no such file")
