"""Differences of systems with files: flags, owners, attributes, copies, and which file systems there are."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Any, Final

BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""A flag for `os.open`: bytes as they are."""
WITHOUT_WAITING: Final[int] = BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Flags for `os.open`: bytes as they are, and of a pipe or a terminal the call returns too."""
PLAIN: Final[int] = WITHOUT_WAITING | getattr(os, "O_NOFOLLOW", 0)
"""The same for what must be no link. Where a system has not this flag, look before and afterwards."""

# -- owners and modes ---------------------------------------------------------

MODES_COUNT: Final = sys.platform != "win32"
"""Whether a file's mode tells who can use it; Windows has lists of access, which new files have from their folder."""


def user_id() -> int:
    """Return the id that files of this process's user have; Windows has none."""
    if sys.platform == "win32":
        return 0
    return os.geteuid()


def is_private(status: os.stat_result) -> bool:
    """Return whether a file is the user's, or root's, and nobody else can use it."""
    return not MODES_COUNT or (not status.st_mode & 0o077 and status.st_uid in (user_id(), 0))


# -- content ------------------------------------------------------------------

if sys.platform != "win32" and hasattr(os, "pread"):
    pread, pwrite = os.pread, os.pwrite
else:

    def pread(file: int, size: int, offset: int, /) -> bytes:
        """Read at a place. One thread at a time."""
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, size)

    def pwrite(file: int, data: Any, offset: int, /) -> int:
        """Write at a place. One thread at a time."""
        os.lseek(file, offset, os.SEEK_SET)
        return os.write(file, data)


_PIECE: Final = 1 << 20


def copy_range(source: int, target: int, size: int, offset: int) -> int:
    """Append bytes of a file that begin at ``offset``, ``size`` at most; inside the kernel where it can. Returns how many: 0 at the end."""
    if sys.platform == "linux" and hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, size, offset)
        except OSError:  # they are of two file systems, say
            return os.sendfile(target, source, offset, size)
    data = pread(source, min(size, _PIECE), offset)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
    return len(data)


# -- names --------------------------------------------------------------------


def real_path(path: str) -> str:
    """Return a path without links, as others write it; Windows sometimes puts a prefix before it."""
    return os.path.realpath(path).removeprefix("\\\\?\\")


def name_new(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Give a file its final name, in one step. The name that it had may stay.

    Raises:
        FileExistsError: there is one.
    """
    if sys.platform == "win32":
        os.rename(source, path)
    else:
        os.link(source, path)


# -- attributes ---------------------------------------------------------------

# no attributes here, none of this name space, or no room for this one
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EPERM})

if sys.platform == "linux" and hasattr(os, "setxattr"):

    def set_attribute(file: int, name: str, data: bytes) -> bool:
        """Store an attribute of an open file; returns whether there is room for it."""
        try:
            os.setxattr(file, name, data)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            return False
        return True

    def attribute(file: int, name: str) -> bytes | None:
        """Return an attribute of an open file; ``None`` where it has none."""
        try:
            return os.getxattr(file, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
            return None

elif sys.platform == "win32":

    _NAMED_STREAMS: Final = 0x40000

    def _stream(file: int, name: str) -> str:
        """Return the path of a stream of an open file, which NTFS has beside the content."""
        import ctypes
        import msvcrt

        kernel, handle = ctypes.windll.kernel32, ctypes.c_void_p(msvcrt.get_osfhandle(file))
        path, flags = ctypes.create_unicode_buffer(1 << 15), ctypes.c_uint32()
        known = kernel.GetVolumeInformationByHandleW(handle, None, 0, None, None, ctypes.byref(flags), None, 0)
        if (
            not known
            or not flags.value & _NAMED_STREAMS
            or not kernel.GetFinalPathNameByHandleW(handle, path, len(path), 0)
        ):
            raise OSError(errno.EOPNOTSUPP, "its file system has no streams")
        return f"{path.value}:{name}"

    def set_attribute(file: int, name: str, data: bytes) -> bool:
        """Store an attribute of an open file; returns whether there is room for it."""
        try:
            with open(_stream(file, name), "wb") as stream:
                stream.write(data)
        except OSError:
            return False
        return True

    def attribute(file: int, name: str) -> bytes | None:
        """Return an attribute of an open file; ``None`` where it has none."""
        try:
            with open(_stream(file, name), "rb") as stream:
                return stream.read()
        except OSError:
            return None

elif sys.platform == "darwin":

    def set_attribute(file: int, name: str, data: bytes) -> bool:
        """Store an attribute of an open file; returns whether there is room for it."""
        with suppress(AttributeError, ImportError, OSError):
            import ctypes

            call = ctypes.CDLL(None).fsetxattr
            return not call(file, name.encode(), data, ctypes.c_size_t(len(data)), ctypes.c_uint32(0), 0)
        return False

    def attribute(file: int, name: str) -> bytes | None:
        """Return an attribute of an open file; ``None`` where it has none."""
        with suppress(AttributeError, ImportError, OSError):
            import ctypes

            call = ctypes.CDLL(None).fgetxattr
            call.restype = ctypes.c_ssize_t
            buffer = ctypes.create_string_buffer(1 << 17)
            size = call(file, name.encode(), buffer, ctypes.c_size_t(len(buffer)), ctypes.c_uint32(0), 0)
            return None if size < 0 else buffer.raw[:size]
        return None

else:

    def set_attribute(file: int, name: str, data: bytes) -> bool:
        """Store an attribute of an open file; returns whether there is room for it."""
        return False

    def attribute(file: int, name: str) -> bytes | None:
        """Return an attribute of an open file; ``None`` where it has none."""
        return None


# -- folders that change ------------------------------------------------------

_AT_FDCWD, _INO_AND_CTIME = -100, 0x180
# of struct statx (statx(2)): inode, seconds and nanoseconds of the last change, device
_STATX: Final = Struct("=32xQ56xqI28xII")


def changed_ns(status: os.stat_result) -> int:
    """Return when a folder or what is in it changed, in nanoseconds."""
    return status.st_mtime_ns if sys.platform == "win32" else status.st_ctime_ns


def stamper(folder: str) -> Callable[[], Any]:
    """Return a function that reads a folder's inode and time of change, ``None`` where it cannot.

    On Linux it keeps the GIL: getting it back from computing threads takes milliseconds, for a system call of one microsecond.
    """

    def stamp() -> Any:
        try:
            status = os.stat(folder)
        except OSError:
            return None
        return status.st_dev, status.st_ino, changed_ns(status)

    if sys.platform != "linux":
        return stamp
    try:
        import ctypes

        statx = ctypes.PyDLL(None).statx
        buffer = ctypes.create_string_buffer(256)
    except (AttributeError, ImportError, OSError):
        return stamp
    path, mask = ctypes.c_char_p(os.fsencode(folder)), ctypes.c_uint(_INO_AND_CTIME)
    arguments = (ctypes.c_int(_AT_FDCWD), path, ctypes.c_int(0), mask, ctypes.byref(buffer))

    def stamp_at_once() -> Any:
        return None if statx(*arguments) else _STATX.unpack_from(buffer)

    return stamp if stamp_at_once() is None else stamp_at_once


# -- file systems -------------------------------------------------------------


MOUNTS: Final = "/proc/self/mountinfo"


def file_system(folder: str, mounts: str = MOUNTS) -> str:
    """Return the type of the file system of a folder, ``network`` for those that Windows has over one; empty where it cannot be told."""
    if sys.platform == "win32":
        import ctypes

        root = os.path.splitdrive(os.path.realpath(folder))[0] + "\\"
        return "network" if ctypes.windll.kernel32.GetDriveTypeW(root) == 4 else ""
    if sys.platform == "darwin":
        with suppress(AttributeError, ImportError, OSError):
            import ctypes

            library, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(4096)
            call = getattr(library, "statfs$INODE64", library.statfs)
            if not call(os.fsencode(folder), buffer):
                return buffer.raw[72:88].partition(b"\0")[0].decode()  # struct statfs
        return ""
    best, kind = "", ""
    with suppress(OSError), open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        real = os.path.realpath(folder)
        for line in file:
            # ID parent major:minor root MOUNT-POINT options … - TYPE source options (proc(5))
            mount, _, right = line.partition(" - ")
            point = mount.split(" ")[4].encode("latin-1", "surrogateescape").decode("unicode_escape")
            if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                best, kind = point, right.split(" ")[0]
    return kind
