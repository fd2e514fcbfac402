"""Names of processes, by which a lease ends with its holder."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_alive", "process_name"]


def process_name(pid: int) -> str | None:
    """Return a process's name, unique on this machine: its id, start time (proc(5), field 22) and pid namespace. ``None`` where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        # the second field, in brackets, may hold anything
        started = stat.rpartition(b")")[2].split()[19].decode()
        return f"{pid}:{started}:{os.readlink('/proc/self/ns/pid')}"
    except (FileNotFoundError, ProcessLookupError):
        return None
    except (OSError, IndexError):  # no /proc: only the lease tells
        return f"{pid}::"


def is_alive(process: str) -> bool:
    """Tell whether a process may still run. Of another namespace only the lease tells."""
    pid, _, rest = process.partition(":")
    mine = process_name(os.getpid()) or "::"
    if not pid.isdigit() or rest.startswith(":") or rest.rpartition(":")[2] != mine.rpartition(":")[2]:
        return True
    return process_name(int(pid)) == process
