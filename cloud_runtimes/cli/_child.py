"""The command that ``serve`` runs: a process group that signals reach and that nothing of stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

from .._core.os_commands import KILL, others_in_group, send_to_group, start_group, wait_for_end
from .._core.threads import Background, Changes

_LOOK: Final = 0.05
"""Seconds between looks at whether others of the group are left."""


class Child:
    """A command in a process group of its own.

    Attributes:
        ended: whether the command itself has ended.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], ended: Callable[[], None]) -> None:
        """Start it.

        A command in a group of its own that reads from a terminal is stopped by the kernel, so such an input is not handed on.

        Raises:
            OSError: it cannot be run.
        """
        stdin = subprocess.DEVNULL if sys.stdin is None or _is_terminal() else None
        self._process = start_group(command, environment, stdin)
        self.ended = False
        self._ended = ended
        self._changes = Changes()
        self._watcher = Background(self._watch, "cloud-runtimes-command")
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Of the command, and of its group."""
        return self._process.pid

    def _watch(self) -> None:
        wait_for_end(self._process)
        self.ended = True
        self._changes.announce()
        self._ended()

    def send(self, number: int) -> None:
        """Send a signal to the whole group."""
        send_to_group(self._process, number)

    def end(self, number: int, grace: float, kill_now: Callable[[], bool]) -> int:
        """End it and all of its group, and return its exit code (128 + the signal that ended it).

        Args:
            number: the signal that it gets first.
            grace: seconds from that to SIGTERM if it is another one, and then to SIGKILL.
            kill_now: tells that SIGKILL is wanted at once.
        """
        for each in dict.fromkeys((number, signal.SIGTERM)):
            if not self._is_there():
                break
            self.send(each)
            end = monotonic() + grace
            while self._is_there() and not kill_now() and (remaining := end - monotonic()) > 0:
                ticket = self._changes.ticket()
                self._changes.wait(ticket, min(remaining, _LOOK))
            if kill_now():
                break
        self.send(KILL)
        self._watcher.join(None)
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def _is_there(self) -> bool:
        return not self.ended or others_in_group(self._process)


def _is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
