"""The home folder, which the components without a server share: where it is, how it is made, and what may not hold it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..errors import InvalidArgumentError, UnsupportedError
from .config_discovery import HOME, elsewhere
from .config_formats import without_values
from .logs import logger
from .os_errors import explain_os_error
from .os_files import MOUNTS, file_system

MEMORY: Final = ":memory:"
_NETWORK: Final = frozenset(
    [
        "network",
        "nfs",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "afpfs",
        "webdav",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "ocfs2",
        "beegfs",
        "virtiofs",
        "ncpfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.gcsfuse",
        "fuse.juicefs",
        "fuse.davfs",
    ]
)


def is_memory(home: str) -> bool:
    """Return whether a home means "in the process": ``:memory:`` or ``:memory:NAME``."""
    return home.startswith(MEMORY)


@without_values
def home_folder(setting: object) -> str:
    """Return the home: the setting, ``CLOUD_RUNTIMES_HOME``, or ``.cloud_runtimes`` in the working directory. What needs a folder where the home is a server has the last one."""
    home = setting or os.environ.get("CLOUD_RUNTIMES_HOME") or HOME
    if not isinstance(home, str) or "://" in home:
        home = HOME
    if is_memory(home):
        return home
    if "\0" in home:
        raise InvalidArgumentError("the home folder's name holds a NUL byte")
    return os.path.abspath(os.path.expanduser(home))


def is_durable(setting: str | None) -> bool:
    """Return whether what is acknowledged is to survive a power cut: by the setting, ``CLOUD_RUNTIMES_DURABILITY``, or by default."""
    durability = setting or os.environ.get("CLOUD_RUNTIMES_DURABILITY") or "full"
    if durability not in ("full", "relaxed"):
        raise InvalidArgumentError("CLOUD_RUNTIMES_DURABILITY: give full or relaxed")
    return durability == "full"


def make_home(folder: Path) -> None:
    """Make a folder for a store: mode 0700 and a ``.gitignore`` of everything, if it is not there yet."""
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
        folder.mkdir(mode=0o700, parents=True)
        (folder / ".gitignore").write_text("*\n", encoding="ascii")
    except FileExistsError:
        if not folder.is_dir():
            raise InvalidArgumentError(f"{folder} is a file: set CLOUD_RUNTIMES_HOME to a folder") from None
    except OSError as error:
        raise explain_os_error(error, folder) from error


def make_private(path: str) -> None:
    """Make an empty file that its owner alone can use, whatever the mode of its folder; one that exists stays as it is."""
    try:
        # a file that is new is open nowhere, so that closing it here drops no lock of SQLite's
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return


def check_file_system(folder: Path, mounts: str = MOUNTS) -> None:
    """Refuse an existing folder on a network file system, as far as the system tells."""
    if (kind := file_system(str(folder), mounts)) in _NETWORK:
        raise UnsupportedError(
            f"{folder} is on a network file system ({kind}), where SQLite loses data: set CLOUD_RUNTIMES_HOME to a local disk"
        )
