"""The clocks that rules about time are written in; tests replace them.

Three kinds, never mixed: *monotonic* for what happens inside one process, *boot* for leases that several processes of one machine share and that no clock step moves, *wall* for what a person or another machine wrote down.
"""

from __future__ import annotations

import time

__all__ = ["Clocks", "boot_id", "since_boot"]

_boot_id: str | None = None


def boot_id() -> str:
    """Return what names this boot of the machine; leases of another boot have ended."""
    global _boot_id
    if _boot_id is None:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                _boot_id = file.read().strip()
        except OSError:
            # without one (not Linux) the start of the monotonic clock tells boots apart, to ten minutes
            _boot_id = f"since-{round((time.time() - time.monotonic()) / 600)}"
    return _boot_id


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot() -> float:
    """Seconds since boot, suspend included: monotonic, and as long as others see."""
    return time.clock_gettime(_BOOTTIME)


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
        return time.clock_gettime_ns(_BOOTTIME) // 1_000_000

    def boot_id(self) -> str:
        """What names this boot."""
        return boot_id()
