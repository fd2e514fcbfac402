"""Linux without what other systems lack: importing this takes it away, before cloud_runtimes is imported.

Locks are those of `msvcrt`, a fake over real ones of Linux that belong to an opening of a file, as those of Windows do. There are no directory descriptors, no Unix sockets, no ``/proc``, no forks, no attributes of files, no calls that read or copy at a place, no poll(2) and no clock that counts sleep.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import getpass  # noqa: F401  takes a module msvcrt for a sign of Windows, as does the next
import io
import os
import select
import socket
import struct
import subprocess  # noqa: F401
import sys
import time
from types import ModuleType
from typing import Any

_TAKEN = {
    os: (
        "O_TMPFILE", "O_PATH", "O_NOFOLLOW", "O_DIRECTORY", "setxattr", "getxattr", "copy_file_range", "sendfile", "pread", "pwrite",
        "fork", "register_at_fork", "waitid",
    ),
    select: ("poll",),
    socket: ("AF_UNIX",),
    time: ("CLOCK_BOOTTIME",),
}  # fmt: skip


def _without_proc(module: Any, name: str) -> None:
    real = getattr(module, name)

    def call(path: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(path, str) and path.startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return real(path, *arguments, **named)

    setattr(module, name, call)


def _socketpair(*_: Any) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = socket.create_connection(server.getsockname())
        its, _ = server.accept()
    for each in (mine, its):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return mine, its


def _fake_msvcrt() -> ModuleType:
    module: Any = ModuleType("msvcrt")
    module.LK_UNLCK, module.LK_NBLCK = 0, 2

    def locking(file: int, mode: int, count: int) -> None:
        kind = fcntl.F_UNLCK if mode == module.LK_UNLCK else fcntl.F_WRLCK
        offset = os.lseek(file, 0, os.SEEK_CUR)
        try:
            fcntl.fcntl(file, _OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, offset, count, 0))
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    module.locking = locking
    return module  # type: ignore[no-any-return]


_OFD_SETLK = 37  # F_OFD_SETLK of fcntl(2)

for _module, _names in _TAKEN.items():
    for _name in _names:
        delattr(_module, _name)
        if _name in getattr(_module, "__all__", ()):
            _module.__all__.remove(_name)
os.supports_dir_fd.clear()
for _module, _name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "listdir"), (os, "readlink")):
    _without_proc(_module, _name)
socket.socketpair = _socketpair  # type: ignore[assignment]
sys.modules["msvcrt"] = _fake_msvcrt()
sys.modules["fcntl"] = None  # type: ignore[assignment]
