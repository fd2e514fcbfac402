"""A folder whose files are the values, as Kubernetes mounts a ConfigMap or a Secret, and Docker its secrets.

Kubernetes writes all values of a change into a new folder and swaps the link ``..data`` to it. So they are read out of the folder that the link leads to, all from the same one. Names that begin with two dots are its own.
"""

from __future__ import annotations

import os
import stat
import traceback
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from ..._core.os_files import WITHOUT_WAITING
from ...errors import CloudRuntimesError, InvalidArgumentError, ResourceExhaustedError
from .watched import MAX_BYTES, Signature, Watched, bytes_of, signature_of, too_large

T = TypeVar("T")

LINK: Final = "..data"
_MOST: Final = 10_000
"""Files of one folder."""
_TRIES: Final = 5


class _Seen(NamedTuple):
    base: str
    files: dict[str, os.stat_result]
    signature: Signature


class WatchedFolder(Watched[T]):
    """Watches one folder. ``parse`` gets name → bytes of its files. Folders in it are not looked into."""

    def _status(self) -> tuple[Signature, CloudRuntimesError | None]:
        status = os.stat(self.path)
        if not stat.S_ISDIR(status.st_mode):
            return signature_of(status), InvalidArgumentError(f"{self.path} is no folder: give the path of one")
        seen = _seen(self.path)
        refused: CloudRuntimesError | None = None
        size = sum(each.st_size for each in seen.files.values())
        if len(seen.files) > _MOST:
            refused = ResourceExhaustedError(f"{self.path} has more than {_MOST:,} files")
        elif size > MAX_BYTES:
            refused = too_large(self.path, size)
        return seen.signature, refused

    def _read(self, signature: Signature) -> tuple[T | CloudRuntimesError, int] | None:
        try:
            return _read(self.path, signature, self._parse)
        except FileNotFoundError:  # changed meanwhile
            return None
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold the values
            raise


def _seen(path: str) -> _Seen:
    """Look at the files; those of a folder that is being swapped away are gone while one looks."""
    for _ in range(_TRIES):
        try:
            return _seen_once(path)
        except FileNotFoundError:
            continue
    return _seen_once(path)


def _seen_once(path: str) -> _Seen:
    link = os.path.join(path, LINK)
    base = os.path.realpath(link) if os.path.islink(link) else path
    files = {}
    for name in sorted(os.listdir(base)):
        if not name.startswith(".."):
            status = os.stat(os.path.join(base, name))
            if stat.S_ISREG(status.st_mode):
                files[name] = status
    folder = os.stat(base)
    changed = max(folder.st_ctime_ns, *[status.st_ctime_ns for status in files.values()], 0)
    contents = hash(tuple((name, signature_of(status)) for name, status in files.items()))
    return _Seen(base, files, (folder.st_dev, folder.st_ino, contents, folder.st_mtime_ns, changed))


def _read(
    path: str, signature: Signature, parse: Callable[[Any], T | CloudRuntimesError]
) -> tuple[T | CloudRuntimesError, int] | None:
    seen = _seen(path)
    files: dict[str, bytes] = {}
    mode = 0
    for name, status in seen.files.items():
        data = _contents(os.path.join(seen.base, name), status)
        if data is None:
            return None
        files[name] = data
        mode |= status.st_mode
    if seen.signature != signature or _seen(path).signature != signature:
        return None
    return parse(files), mode


def _contents(path: str, status: os.stat_result) -> bytes | None:
    """Return what a file holds; ``None``: it is another one by now."""
    descriptor = os.open(path, os.O_RDONLY | WITHOUT_WAITING)
    try:
        if signature_of(os.fstat(descriptor)) != signature_of(status):
            return None
        data = bytes_of(descriptor, status.st_size)
        return data if len(data) == status.st_size else None
    finally:
        os.close(descriptor)
