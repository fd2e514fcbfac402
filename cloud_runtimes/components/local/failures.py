"""Error table of this component: maps the operating system's errors (errno(3)) to ours."""

from __future__ import annotations

import errno
import os
from typing import Final

from ..._core.os_errors import resource_exhausted
from ...errors import (
    CloudRuntimesError,
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)

_KINDS: Final = {
    0o120000: "a symbolic link",
    0o010000: "a pipe",
    0o140000: "a socket",
    0o020000: "a device",
    0o060000: "a device",
    0o040000: "a folder",
}


def refusal(path: str, mode: int) -> PermissionDeniedError:
    """Return the error for an entry that is no plain file or folder."""
    kind = _KINDS.get(mode & 0o170000, "no plain file")
    return PermissionDeniedError(f"{path} is {kind}: a store has plain files and folders only; remove or rename it")


def explain(error: OSError, path: str, *, maybe_applied: bool = False) -> CloudRuntimesError:
    """Return our error for one of the operating system's; the caller raises it ``from`` the native one."""
    number, text = error.errno, error.strerror or os.strerror(error.errno or 0)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDeniedError(
            f"{path} cannot be used ({text}): check owner, mode and mount, or give the store another path",
            maybe_applied=maybe_applied,
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhaustedError(
            f"the disk of {path} is full ({text}): free space, then try again", maybe_applied=maybe_applied
        )
    if number == errno.EFBIG:
        return ResourceExhaustedError(f"{path}: larger than a file may be here (ulimit -f, or the file system's limit)")
    if (exhausted := resource_exhausted(error)) is not None:
        return exhausted
    if number in (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG):
        return InvalidArgumentError(f"{path}: the file system cannot hold this name ({text}): use plain letters")
    if number == errno.EXDEV:
        return UnsupportedError(f"{path} is on another file system than the store's root: make it a store of its own")
    if number in (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO):
        return UnavailableError(f"{path}: the disk failed ({text})", retryable=False, maybe_applied=maybe_applied)
    return InternalError(f"{path}: {text}", maybe_applied=maybe_applied)
