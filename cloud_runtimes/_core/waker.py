"""Waiting for a connection, or for another thread."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Protocol

from .os_sockets import POLLIN, POLLOUT, poll


class _Connection(Protocol):
    def fileno(self) -> int:
        """Return the descriptor to wait for."""


class Waker:
    """Ends a wait from any thread; has two descriptors."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def wake(self) -> None:
        """End the wait, or the next one that would be. Thread-safe."""
        with suppress(OSError):  # full: it is awake; closed: it is gone
            self._in.send(b"\0")

    def wait(self, connection: _Connection | None, seconds: float, writes: bool = False) -> bool | None:
        """Wait for something to read, or with ``writes`` until something can be sent; ``True``: it has come, ``False``: woken, ``None``: time is up."""
        poller = poll()
        poller.register(self._out, POLLIN)
        if connection is not None:
            poller.register(connection, POLLIN | (POLLOUT if writes else 0))
        ready = [file for file, _ in poller.poll(int(seconds * 1000) + 1 if seconds > 0 else 0)]
        if connection is not None and connection.fileno() in ready:
            return True
        if not ready:
            return None
        with suppress(BlockingIOError):
            self._out.recv(4096)
        return False

    def close(self) -> None:
        """Give back the descriptors."""
        self._in.close()
        self._out.close()
