"""Other processes: whether they run and since when; and how many files one may have open."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

# -- who runs -----------------------------------------------------------------

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _QUERY, _ACCESS_DENIED, _STILL_ACTIVE = 0x1000, 5, 259
    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.OpenProcess.restype = wintypes.HANDLE

    def started(pid: int) -> str | None:
        """Return when a process started, by the system's own count; empty where that cannot be told, ``None`` where it is gone."""
        if pid >> 32:
            return None
        handle = _kernel.OpenProcess(_QUERY, False, pid)
        if not handle:
            return "" if ctypes.get_last_error() == _ACCESS_DENIED else None
        process = wintypes.HANDLE(handle)
        try:
            code, times = wintypes.DWORD(), [wintypes.FILETIME() for _ in range(4)]
            if not _kernel.GetExitCodeProcess(process, ctypes.byref(code)) or code.value != _STILL_ACTIVE:
                return None
            if not _kernel.GetProcessTimes(process, *map(ctypes.byref, times)):
                return ""
            return f"{times[0].dwHighDateTime << 32 | times[0].dwLowDateTime}"
        finally:
            _kernel.CloseHandle(process)

else:

    def started(pid: int) -> str | None:
        """Return when a process started, by the system's own count; empty where that cannot be told, ``None`` where it is gone."""
        begun = _since_1970(pid) if sys.platform == "darwin" else _ticks(pid)
        return begun or ("" if _exists(pid) else None)

    def _exists(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # it is another user's
            return True
        return True

    def _ticks(pid: int) -> str:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # field 22 (proc(5)); the second, in brackets, may hold anything
                return file.read().rpartition(b")")[2].split()[19].decode()
        except (OSError, IndexError):
            return ""

    def _since_1970(pid: int) -> str:
        with suppress(AttributeError, ImportError, OSError, ArithmeticError):
            import ctypes
            import struct

            buffer = ctypes.create_string_buffer(136)  # struct proc_bsdinfo, which ends with seconds and microseconds
            if ctypes.CDLL(None).proc_pidinfo(pid, 3, ctypes.c_uint64(0), buffer, len(buffer)) == len(buffer):
                return "{}.{:06}".format(*struct.unpack_from("=QQ", buffer, 120))
        return ""


def namespace() -> str:
    """Return the name of the world that ids of processes are of; empty where there is one alone."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


# -- limits -------------------------------------------------------------------


def most_files() -> int:
    """Return how many files this process may have open."""
    if sys.platform != "win32":
        with suppress(ImportError):
            import resource

            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if files != resource.RLIM_INFINITY:
                return files
    return 1 << 20
