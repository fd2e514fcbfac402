"""The turnstile before every write of a file, between processes.

SQLite lets waiting writers poll, so that of two busy processes one gets nothing. Here they queue on two ``flock`` files: whoever holds *turn* is next, whoever holds *gate* writes. The kernel lets go of both when a process dies.
"""

from __future__ import annotations

import errno
import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

__all__ = ["Gate", "NoGate"]


class Gate:
    """The two files beside a database. One thread of a process uses it at a time: the engine's mutex sees to that."""

    def __init__(self, database: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(f"{database}-turn", flags, 0o600)
        try:
            self._gate = os.open(f"{database}-gate", flags, 0o600)
        except BaseException:
            os.close(self._turn)
            raise

    def try_enter(self) -> bool:
        """Enter if nobody is inside or waiting; never waits."""
        try:
            flock(self._turn, LOCK_EX | LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        try:
            flock(self._gate, LOCK_EX | LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        finally:
            flock(self._turn, LOCK_UN)
        return True

    def enter(self) -> None:
        """Wait for the turn, then for the gate. Cannot be given up; only threads of ours wait here."""
        flock(self._turn, LOCK_EX)
        try:
            flock(self._gate, LOCK_EX)
        finally:
            flock(self._turn, LOCK_UN)

    def leave(self) -> None:
        """Let the next one in; does nothing outside."""
        flock(self._gate, LOCK_UN)

    def reset(self) -> None:
        """Let go of both, wherever an interrupt came."""
        flock(self._turn, LOCK_UN)
        flock(self._gate, LOCK_UN)

    def close(self) -> None:
        """Close the descriptors. In a forked child this does not unlock: the parent has them open too."""
        os.close(self._turn)
        os.close(self._gate)


class NoGate:
    """For a database that no other process can reach."""

    def try_enter(self) -> bool:
        return True

    def enter(self) -> None:
        return

    def leave(self) -> None:
        return

    def reset(self) -> None:
        return

    def close(self) -> None:
        return
