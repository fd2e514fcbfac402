"""Open folders: what is beneath one is reached entry by entry, and no link is followed on the way.

They are directory descriptors (openat(2)), so that what happens to the names above does not matter. A system without them has resolved paths: each is looked at again before it is used, and must still be the folder that it was.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

from .os_files import BINARY, PLAIN, name_new
from .os_locks import try_lock, unlock

LOCK: Final = "%%lock"
"""What is locked in place of a folder that is no descriptor."""
NO_NAME: Final = re.compile(
    r"""[\x00-\x1f<>:"/\\|?*]|[ .]$|^(?:con|conin\$|conout\$|prn|aux|nul|(?:com|lpt)[0-9\xb9\xb2\xb3])[ ]*(?:\.|$)""",
    re.IGNORECASE,
)
"""What Windows takes for a path, a stream or a device, or silently for another name."""
_STANDS_FOR_ANOTHER: Final = 0x20000000
"""The bit of a reparse tag of Windows that says so."""


class Folder(Protocol):
    """An open folder. What fails is an `OSError`."""

    def enter(self, entry: str) -> Folder:
        """Open a folder in this one; anything else, a link too, is an error."""

    def again(self) -> Folder:
        """Open the same once more."""

    def close(self) -> None:
        """Let go of it, and of a lock on it. It can be closed again."""

    def status(self) -> os.stat_result:
        """Return the status of the folder itself."""

    def stat(self, entry: str) -> os.stat_result:
        """Return the status of an entry, of a link its own."""

    def scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """Give the entries."""

    def open(self, entry: str, flags: int = os.O_RDONLY) -> int:
        """Open or make a file."""

    def make(self, entry: str) -> None:
        """Make a folder."""

    def rename(self, entry: str, folder: Folder, other: str) -> None:
        """Give an entry another name, in place of what has it."""

    def name_new(self, entry: str, folder: Folder, other: str) -> None:
        """Give a file another name; the one that it had may stay.

        Raises:
            FileExistsError: something has it.
        """

    def unlink(self, entry: str) -> None:
        """Remove a file.

        Raises:
            IsADirectoryError: it is a folder.
        """

    def remove(self, entry: str) -> None:
        """Remove an empty folder."""

    def flush(self) -> None:
        """Have what changed in it survive a power cut."""

    def try_lock(self) -> bool:
        """Lock it against other openings of it, unless it is locked."""

    def unlock(self) -> None:
        """Unlock it; does nothing where it is not locked."""


_FOLDER: Final[int] = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_NO_LINK: Final[int] = getattr(os, "O_NOFOLLOW", 0)


class _Descriptor:
    """A directory descriptor."""

    def __init__(self, number: int) -> None:
        self.number = number

    def enter(self, entry: str) -> Folder:
        return _Descriptor(os.open(entry, _FOLDER | _NO_LINK, dir_fd=self.number))

    def again(self) -> Folder:
        return _Descriptor(os.dup(self.number))

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def status(self) -> os.stat_result:
        return os.fstat(self.number)

    def stat(self, entry: str) -> os.stat_result:
        return os.stat(entry, dir_fd=self.number, follow_symlinks=False)

    def scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        return os.scandir(self.number)

    def open(self, entry: str, flags: int = os.O_RDONLY) -> int:
        return os.open(entry, flags | PLAIN, 0o666, dir_fd=self.number)

    def make(self, entry: str) -> None:
        os.mkdir(entry, 0o777, dir_fd=self.number)

    def rename(self, entry: str, folder: Any, other: str) -> None:
        os.rename(entry, other, src_dir_fd=self.number, dst_dir_fd=folder.number)

    def name_new(self, entry: str, folder: Any, other: str) -> None:
        os.link(entry, other, src_dir_fd=self.number, dst_dir_fd=folder.number, follow_symlinks=False)

    def unlink(self, entry: str) -> None:
        with _a_folder_is_none(self, entry):
            os.unlink(entry, dir_fd=self.number)

    def remove(self, entry: str) -> None:
        os.rmdir(entry, dir_fd=self.number)

    def flush(self) -> None:
        os.fsync(self.number)

    def try_lock(self) -> bool:
        return try_lock(self.number)

    def unlock(self) -> None:
        unlock(self.number)


class _Path:
    """A resolved path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)
        self._lock = -1

    def _within(self, entry: str) -> str:
        """Return the path of an entry, if the folder is still the one that was opened."""
        if sys.platform == "win32" and NO_NAME.search(entry):
            raise OSError(errno.EINVAL, "Windows has no such name")
        if _identity(self._path) != self._identity:
            raise FileNotFoundError(errno.ENOENT, "the folder was removed or replaced", self._path)
        return os.path.join(self._path, entry)

    def enter(self, entry: str) -> Folder:
        return _Path(self._within(entry))

    def again(self) -> Folder:
        self._within("")
        return _Path(self._path)

    def close(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def status(self) -> os.stat_result:
        return os.stat(self._within(""))

    def stat(self, entry: str) -> os.stat_result:
        return os.lstat(self._within(entry))

    def scan(self) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        return os.scandir(self._within(""))

    def open(self, entry: str, flags: int = os.O_RDONLY) -> int:
        path = self._within(entry)
        file = _open(path, flags | PLAIN)
        if not os.path.samestat(os.fstat(file), os.lstat(path)):  # a link came between
            os.close(file)
            raise FileNotFoundError(errno.ENOENT, "it was replaced", path)
        return file

    def make(self, entry: str) -> None:
        os.mkdir(self._within(entry))

    def rename(self, entry: str, folder: Any, other: str) -> None:
        _replace(self._within(entry), folder._within(other))

    def name_new(self, entry: str, folder: Any, other: str) -> None:
        name_new(self._within(entry), folder._within(other))

    def unlink(self, entry: str) -> None:
        with _a_folder_is_none(self, entry):
            os.unlink(self._within(entry))

    def remove(self, entry: str) -> None:
        os.rmdir(self._within(entry))

    def flush(self) -> None:
        if sys.platform != "win32":
            descriptor = os.open(self._within(""), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def try_lock(self) -> bool:
        if self._lock < 0:
            self._lock = os.open(self._within(LOCK), os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        return try_lock(self._lock)

    def unlock(self) -> None:
        if self._lock >= 0:
            unlock(self._lock)


@contextmanager
def _a_folder_is_none(folder: Folder, entry: str) -> Iterator[None]:
    """Have all systems say of a folder that it is none of what can be unlinked; some say that it is not permitted."""
    try:
        yield
    except PermissionError:
        if stat.S_ISDIR(folder.stat(entry).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), entry) from None
        raise


def _identity(path: str) -> tuple[int, int]:
    """Return what a folder is known by; a link to one is none."""
    status = os.lstat(path)
    # a junction of Windows is a folder by its mode
    if not stat.S_ISDIR(status.st_mode) or getattr(status, "st_reparse_tag", 0) & _STANDS_FOR_ANOTHER:
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder, or a link", path)
    return status.st_dev, status.st_ino


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.CreateFileW.restype = wintypes.HANDLE
    _kernel.CreateFileW.argtypes = (
        wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE
    )  # fmt: skip
    _kernel.SetFileInformationByHandle.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    _READ, _WRITE, _DELETE, _SYNCHRONIZE, _SHARED = 0x80000000, 0x40000000, 0x10000, 0x100000, 7
    _CREATE_NEW, _OPEN_EXISTING, _BACKUP_SEMANTICS = 1, 3, 0x02000000
    # FileRenameInfoEx: replace, as POSIX does; FileRenameInfo: replace, for systems that do not know the first
    _RENAMING = ((22, 3), (3, 1))

    def _handle(path: str, access: int, disposition: int, flags: int = 0) -> int:
        handle = _kernel.CreateFileW(path, access, _SHARED, None, disposition, flags, None)
        if handle == ctypes.c_void_p(-1).value:
            raise ctypes.WinError(ctypes.get_last_error())
        return int(handle)

    def _open(path: str, flags: int) -> int:
        """Open a file so that it can be renamed and removed meanwhile, as everywhere else."""
        access = _READ | _WRITE if flags & os.O_RDWR else _READ
        handle = _handle(path, access, _CREATE_NEW if flags & os.O_CREAT else _OPEN_EXISTING)
        return msvcrt.open_osfhandle(handle, flags & (os.O_RDWR | os.O_BINARY) | os.O_NOINHERIT)

    def _replace(path: str, other: str) -> None:
        """Rename, also in place of a file that is open."""
        name = os.path.abspath(other)

        class Info(ctypes.Structure):  # FILE_RENAME_INFO
            _fields_ = [
                ("flags", wintypes.DWORD), ("root", wintypes.HANDLE), ("length", wintypes.DWORD), ("name", ctypes.c_wchar * (len(name) + 1)),
            ]  # fmt: skip

        handle = _handle(path, _DELETE | _SYNCHRONIZE, _OPEN_EXISTING, _BACKUP_SEMANTICS)
        try:
            for way, flags in _RENAMING:
                info = Info(flags, None, 2 * len(name), name)
                if _kernel.SetFileInformationByHandle(handle, way, ctypes.byref(info), ctypes.sizeof(info)):
                    return
            raise ctypes.WinError(ctypes.get_last_error())
        finally:
            _kernel.CloseHandle(wintypes.HANDLE(handle))

else:

    def _open(path: str, flags: int) -> int:
        return os.open(path, flags, 0o666)

    _replace = os.replace


def open_folder(path: str, *, follow: bool = True) -> Folder:
    """Open a folder; the last part of its path may be a link if links are to be followed."""
    if os.open in os.supports_dir_fd:
        return _Descriptor(os.open(path, _FOLDER | (0 if follow else _NO_LINK)))
    return _Path(os.path.realpath(path, strict=True) if follow else path)
