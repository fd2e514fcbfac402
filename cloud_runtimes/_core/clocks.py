"""The clocks that rules about time are written in, which tests replace, and the names by which leases end: of a boot and of a process.

Three kinds, never mixed: *monotonic* for what happens inside one process, *boot* for leases that several processes of one machine share and that no clock step moves, *wall* for what a person or another machine wrote down.
"""

from __future__ import annotations

import os
import time

from .os_clocks import find_boot_id, since_boot, since_boot_ns
from .os_processes import namespace, started

__all__ = ["Clocks", "boot_id", "is_alive", "process_name", "since_boot"]

_boot_id: str | None = None


def boot_id() -> str:
    """Return what names this boot of the machine; leases of another boot have ended."""
    global _boot_id
    if _boot_id is None:
        _boot_id = find_boot_id()
    return _boot_id


def process_name(pid: int) -> str | None:
    """Return a process's name, unique on this machine: its id, start time and pid namespace. ``None`` where it is gone."""
    begun = started(pid)
    if not begun:  # only the lease tells
        return None if begun is None else f"{pid}::"
    return f"{pid}:{begun}:{namespace()}"


def is_alive(process: str) -> bool:
    """Return whether a process may still run. Of another namespace only the lease tells."""
    pid, _, rest = process.partition(":")
    mine = process_name(os.getpid()) or "::"
    if not pid.isdigit() or rest.startswith(":") or rest.rpartition(":")[2] != mine.rpartition(":")[2]:
        return True
    return process_name(int(pid)) == process


class Clocks:
    """The real clocks. A test passes an object with the same methods."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Seconds, of this process only."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC; may step."""
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        """Milliseconds since boot, suspend included; shared by all processes, never steps (CLOCK_BOOTTIME)."""
        return since_boot_ns() // 1_000_000

    def boot_id(self) -> str:
        """Identifier of this boot."""
        return boot_id()
