"""Keys of a terminal, one by one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TypeAlias

Keys: TypeAlias = Callable[[float], str]
"""Waits so many seconds at most for a key, and returns it; ``""``: none came."""

if sys.platform == "win32":
    import msvcrt

    _STEP = 0.05

    @contextmanager
    def reading_keys() -> Iterator[Keys]:
        """Give what reads keys of the terminal, until the block ends."""

        def read(seconds: float) -> str:
            end = monotonic() + seconds
            while not msvcrt.kbhit():
                if (left := end - monotonic()) <= 0:
                    return ""
                sleep(min(_STEP, left))
            return msvcrt.getwch()

        yield read

else:
    import os
    import select
    import termios
    import tty

    @contextmanager
    def reading_keys() -> Iterator[Keys]:
        """Give what reads keys of the terminal, without their echo, until the block ends. Ctrl-C stays a signal."""
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)

        def read(seconds: float) -> str:
            ready, _, _ = select.select([descriptor], [], [], seconds)
            return os.read(descriptor, 1).decode(errors="replace") if ready else ""

        tty.setcbreak(descriptor)
        try:
            yield read
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
