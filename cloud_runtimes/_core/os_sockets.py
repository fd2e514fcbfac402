"""Waiting for sockets, and what systems tell of them.

Where there is no poll(2), select() does it.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from ..errors import UnsupportedError

MSG_DONTWAIT: Final[int] = getattr(socket, "MSG_DONTWAIT", 0)
POLLIN: Final = 1
POLLOUT: Final = 4
_POLLNVAL: Final = 32


class _File(Protocol):
    def fileno(self) -> int:
        """Return the descriptor."""


class Poll(Protocol):
    """The part of `select.poll` that is used."""

    def register(self, file: int | _File, events: int, /) -> None:
        """Wait for a file too."""

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait, ``timeout`` milliseconds at most; return descriptors with what they are ready for."""


class _Select:
    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, file: int | _File, events: int, /) -> None:
        self._events[file if isinstance(file, int) else file.fileno()] = events

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        reads = [file for file, events in self._events.items() if events & POLLIN]
        writes = [file for file, events in self._events.items() if events & POLLOUT]
        try:
            # Windows tells there of a connection that was refused
            ready_lists = select.select(
                reads, writes, writes, None if timeout is None or timeout < 0 else timeout / 1000
            )
        except (OSError, ValueError):  # one was closed
            return [(file, _POLLNVAL) for file in self._events]
        ready = dict.fromkeys((file for each in ready_lists for file in each), 0)
        for files, event in zip(ready_lists, (POLLIN, POLLOUT, POLLOUT), strict=True):
            for file in files:
                ready[file] |= event
        return list(ready.items())


poll: Final[Callable[[], Poll]] = getattr(select, "poll", _Select)


def unix_socket(kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a new Unix socket.

    Raises:
        UnsupportedError: this system has none.
    """
    family: int | None = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise UnsupportedError("this system's Python has no Unix sockets: give a host and a port")
    return socket.socket(family, kind)


def bounds_waits(connection: socket.socket, seconds: float) -> bool:
    """Have a blocking socket wait no longer than that at once, and return whether it does.

    Such a wait is one call of the system; `poll` and a read are two, and a thread gives up its turn for each. A socket with TLS waits otherwise.
    """
    if sys.platform != "linux" or type(connection) is not socket.socket:
        return False
    whole = int(seconds)
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    )
    return True


def unsent(connection: socket.socket) -> int:
    """Return how many bytes the system has yet to send; 0 where it does not tell."""
    if sys.platform == "darwin":
        return connection.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE
    if sys.platform == "linux":
        with suppress(ImportError):
            import fcntl
            import termios

            return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0
