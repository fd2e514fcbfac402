"""The folder of an embedded store: making it, and refusing one that cannot hold a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..._core.config_discovery import elsewhere
from ..._core.logs import logger
from ...errors import (
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnsupportedError,
)
from ...spi.operation import out_of_files

if TYPE_CHECKING:
    from .write_lock import WriteLock

__all__ = ["DATABASE", "check_emptied", "check_file_system", "explain_os_error", "make_home", "make_private", "prepare"]

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


def make_private(path: str) -> None:
    """Make an empty file with mode 0600, unless it exists."""
    try:
        # a new file is open nowhere else, so closing it here drops no lock of SQLite's
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def prepare(path: str, write_lock: WriteLock) -> None:
    """Ensure that SQLite opens a database with its own log, or makes one. The caller holds the write lock.

    Raises:
        InternalError: the database has lost what it held.
    """
    made = write_lock.database
    if not os.path.exists(path):
        write_lock.database = None
        make_private(path)
    elif made is not None:
        check_emptied(path)
        if made in (0, os.stat(path).st_ino):
            return
    else:
        return
    # the log that is left is of another file: SQLite would write it into this one
    try:
        os.replace(f"{path}-wal", f"{path}-wal.left")
        logger().warning("%s was replaced and its last log left behind: that is %s-wal.left now", path, path)
    except FileNotFoundError:
        pass
    try:
        os.unlink(f"{path}-shm")
    except FileNotFoundError:
        pass


def check_emptied(path: str) -> None:
    """Refuse a database that was emptied. SQLite would take it as new, and delete its log.

    Raises:
        InternalError: it has lost what it held.
    """
    # the file ``gate`` is empty until the database has been made
    if os.stat(path).st_size == 0 and os.path.exists(f"{path}-gate") and os.stat(f"{path}-gate").st_size > 0:
        raise InternalError(
            f"{path} has 0 bytes, but held a database before: restore it from a copy, or delete it to start anew",
            code="DATA_LOSS",
        )


def explain_os_error(error: OSError, path: Path) -> Exception:
    """Return our error for one of the operating system about a path."""
    import errno

    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDeniedError(
            f"{path} cannot be written ({error.strerror}): set CLOUD_RUNTIMES_HOME to a folder of yours, or to :memory:"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhaustedError(f"the disk of {path} is full ({error.strerror}): free space, then try again")
    if (exhausted := out_of_files(error)) is not None:
        return exhausted
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
