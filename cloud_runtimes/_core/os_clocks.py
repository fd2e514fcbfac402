"""The clock that all processes of a machine share and that no step of the wall clock moves, and the name of a boot."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Final

_ROUGH: Final = 600
"""Seconds to which a boot's time is known by the wall clock."""

if sys.platform == "win32":
    since_boot = time.monotonic
    """Seconds since boot."""
    since_boot_ns = time.monotonic_ns

    def _system_boot_id() -> str | None:
        import winreg

        memory = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, memory) as key:
                return f"boot-{winreg.QueryValueEx(key, 'BootId')[0]}"
        except OSError:
            return None

else:
    # that of Linux counts sleep only by this name, that of macOS always
    _CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def since_boot() -> float:
        """Seconds since boot."""
        return time.clock_gettime(_CLOCK)

    def since_boot_ns() -> int:
        """Nanoseconds since boot."""
        return time.clock_gettime_ns(_CLOCK)

    def _system_boot_id() -> str | None:
        if sys.platform == "darwin":
            with suppress(AttributeError, ImportError, OSError):
                import ctypes

                buffer, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
                if not ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0):
                    return buffer.value.decode()
            return None
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return None


def find_boot_id() -> str:
    """Return what names this boot; where the system has no name, the time of the boot, to ten minutes."""
    return _system_boot_id() or f"since-{round((time.time() - since_boot()) / _ROUGH)}"
