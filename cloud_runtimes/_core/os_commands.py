"""Commands that a program starts: the groups that signals reach, and how one waits for their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from ..errors import UnsupportedError

KILL: Final[signal.Signals] = getattr(signal, "SIGKILL", signal.SIGTERM)
"""What ends a process at once."""

if sys.platform == "win32":

    def start_group(
        command: Sequence[str], environment: Mapping[str, str] | None, stdin: int | None
    ) -> subprocess.Popen[bytes]:
        """Start a command in a group of its own, which `send_to_group` reaches."""
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(list(command), env=environment, stdin=stdin, creationflags=flags)

    def send_to_group(process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to all of a group that was started by `start_group`; what asks for the end is Ctrl-Break."""
        with suppress(OSError):
            if number == KILL and process.poll() is None:
                process.kill()
            else:
                process.send_signal(signal.CTRL_BREAK_EVENT)

    def start(command: Sequence[str], inherited: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Start a command, which `send` reaches, and whose standard input ends with this process; it cannot be given sockets."""
        if inherited:
            raise UnsupportedError(
                "workers of one port need a system whose processes inherit sockets: "
                "leave --port and APP_PORT out, so that each takes a free one, and callers find them all"
            )
        return start_group(command, None, subprocess.PIPE)

    send = send_to_group

    def others_in_group(process: subprocess.Popen[bytes]) -> bool:
        """Return whether others of a group are left, once its first process has ended; the system cannot say."""
        return False

    def in_foreground() -> bool:
        """Return whether the terminal's interrupt key reaches what this process starts by itself."""
        return True

else:

    def start_group(
        command: Sequence[str], environment: Mapping[str, str] | None, stdin: int | None
    ) -> subprocess.Popen[bytes]:
        """Start a command in a group of its own, which `send_to_group` reaches."""
        return subprocess.Popen(list(command), env=environment, stdin=stdin, process_group=0)

    def send_to_group(process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to all of a group that was started by `start_group`."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def start(command: Sequence[str], inherited: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Start a command, which `send` reaches, and whose standard input ends with this process, with descriptors that it inherits."""
        return subprocess.Popen(list(command), stdin=subprocess.PIPE, pass_fds=inherited)

    def send(process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to a process that was started by `start`."""
        process.send_signal(number)

    def others_in_group(process: subprocess.Popen[bytes]) -> bool:
        """Return whether others of a group are left, once `wait_for_end` has seen the end of its first process."""
        if process.returncode is not None:  # nobody else has its number while one of them lives
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
            return True
        group = str(process.pid)
        for name in os.listdir("/proc"):
            if name.isdecimal() and name != group:
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        fields = file.read().rpartition(b") ")[2].split()
                except OSError:
                    continue  # it has just ended
                if fields[2].decode() == group and fields[0] != b"Z":
                    return True
        return False

    def in_foreground() -> bool:
        """Return whether the terminal's interrupt key reaches what this process starts by itself."""
        try:
            terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        except OSError:
            return False
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:
            return False
        finally:
            os.close(terminal)


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended. Where the system can, leave it to be reaped: while it is there nobody else can have its number."""
    if sys.platform == "linux" and hasattr(os, "waitid") and os.path.exists("/proc/self/stat"):
        with suppress(ChildProcessError):  # another thread has reaped it
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()
