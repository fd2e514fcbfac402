"""Mapping of errors of the operating system to errors for a caller."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import InvalidArgumentError, PermissionDeniedError, ResourceExhaustedError


def explain_os_error(error: OSError, path: Path) -> Exception:
    """Return our error for what the operating system said about a path."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDeniedError(
            f"{path} cannot be written ({error.strerror}): set CLOUD_RUNTIMES_HOME to a folder of yours, or to :memory:"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhaustedError(f"the disk of {path} is full ({error.strerror}): free space, then try again")
    if (exhausted := resource_exhausted(error)) is not None:
        return exhausted
    return InvalidArgumentError(f"{path} cannot be used: {error.strerror}: set CLOUD_RUNTIMES_HOME to another folder")


def resource_exhausted(error: BaseException) -> ResourceExhaustedError | None:
    """Return our error where the process has too many files open, or no memory; an import that fails for the former says so only in its message."""
    if isinstance(error, MemoryError):
        return ResourceExhaustedError("out of memory: give less at once, or the process more")
    if isinstance(error, OSError):
        too_many = error.errno in (errno.EMFILE, errno.ENFILE)
    else:
        too_many = isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error)
    if not too_many:
        return None
    return ResourceExhaustedError(f"{error}: close some, or raise the limit on open files (ulimit -n)", retryable=True)
