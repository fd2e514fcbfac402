"""Where the embedded store lives: the home folder, and what may not hold it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..._found import elsewhere
from ...errors import InvalidArgumentError, PermissionDeniedError, ResourceExhaustedError, UnsupportedError

__all__ = ["DATABASE", "check_file_system", "make_home"]

DATABASE: Final = "cloud_runtimes.db"

# SQLite's WAL index is shared memory and its locks are the kernel's: neither works between machines (sqlite.org/wal.html, "Overview", item 1)
_NETWORK: Final = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "ocfs2",
        "beegfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.gcsfuse",
        "fuse.juicefs",
        "fuse.davfs",
        "virtiofs",
        "ncpfs",
    ]
)


def make_home(folder: Path) -> None:
    """Make a folder for a store: mode 0700 and a ``.gitignore`` of everything, if it is not there yet.

    Raises:
        PermissionDeniedError, ResourceExhaustedError, InvalidArgumentError: it cannot be made; each names the remedy.
    """
    if folder.is_dir():
        return
    if (other := elsewhere(folder)) is not None:
        from ..._log import logger

        logger().warning(
            "the new home %s has nothing of what is in %s: to share one from all folders, put a cloud-runtimes.toml, which may be empty, "
            "beside the one that is meant, or set CLOUD_RUNTIMES_HOME",
            folder,
            other,
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise InvalidArgumentError(f"{folder} is a file: set CLOUD_RUNTIMES_HOME to a folder") from None
            return
        (folder / ".gitignore").write_text("*\n", encoding="ascii")
    except OSError as error:
        raise explain_os_error(error, folder) from error


def explain_os_error(error: OSError, path: Path) -> Exception:
    """Return our error for what the operating system said about a path."""
    import errno

    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDeniedError(
            f"{path} cannot be written ({error.strerror}): set CLOUD_RUNTIMES_HOME to a folder of yours, or to :memory:"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhaustedError(f"the disk of {path} is full ({error.strerror}): free space, then try again")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceExhaustedError(
            f"{path}: {error.strerror}: raise the limit on open files (ulimit -n)", retryable=True
        )
    return InvalidArgumentError(f"{path} cannot be used: {error.strerror}: set CLOUD_RUNTIMES_HOME to another folder")


def check_file_system(folder: Path, mounts: str = "/proc/self/mountinfo") -> None:
    """Refuse a folder on a network file system.

    Args:
        folder: exists.
        mounts: the kernel's list of mounts (proc(5)); where there is none, nothing is checked.

    Raises:
        UnsupportedError: it is on one; names its kind and the remedy.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return
    real = os.path.realpath(folder)
    best, kind = "", ""
    for line in lines:
        # ID parent major:minor root MOUNT-POINT options … - TYPE source options
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].encode("latin-1", "surrogateescape").decode("unicode_escape")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    if kind in _NETWORK:
        raise UnsupportedError(
            f"{folder} is on a network file system ({kind}), where SQLite loses data: set CLOUD_RUNTIMES_HOME to a local disk"
        )
