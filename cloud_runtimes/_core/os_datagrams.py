"""Sockets by which processes wake each other, each known by an entry of one folder.

They are Unix datagram sockets, whose entries nobody else can use. A system without them has sockets of the loopback network, whose ports stand in the names of the entries; a datagram counts if it has what only those know who can read the folder's secret.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from .os_processes import started
from .threads import Mutex

_MAX_PATH: Final = 100  # sun_path holds 108 bytes on Linux, 104 elsewhere (unix(7))
_LOOPBACK: Final = "127.0.0.1"


class Datagrams(Protocol):
    """The sockets of one folder."""

    def bind(self, name: str) -> tuple[socket.socket, str]:
        """Return a new socket that `send` reaches, and its path in the folder."""

    def send(self, path: str) -> None:
        """Send to a socket, without waiting.

        Raises:
            ConnectionRefusedError, FileNotFoundError: its owner has ended.
            BlockingIOError: it has much to read already.
        """

    def counts(self, data: bytes) -> bool:
        """Return whether what was received is from one of us."""

    def close(self) -> None:
        """Let go of what sends."""


class _Sender:
    """A socket for all datagrams that are sent; the first use makes it."""

    def __init__(self, family: int) -> None:
        self._family = family
        self._lock = Mutex()
        self._socket: socket.socket | None = None
        self._closed = False

    def send(self, data: bytes, address: str | tuple[str, int]) -> None:
        sender = self._socket
        if sender is None:
            with self._lock:  # several threads may come first; after the close nobody sends
                if self._closed:
                    return
                if self._socket is None:
                    self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
                    self._socket.setblocking(False)
                sender = self._socket
        sender.sendto(data, address)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                self._socket.close()
            self._socket = None


class _UnixDatagrams:
    def __init__(self, folder: Path, family: int) -> None:
        self._folder = folder
        self._family = family
        self._sender = _Sender(family)
        self._descriptor: int | None = None

    def bind(self, name: str) -> tuple[socket.socket, str]:
        path = str(self._folder / name)
        bound = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            address = self._address(path)
            bound.bind(address)
            os.chmod(address, 0o600)
        except BaseException:
            bound.close()
            raise
        return bound, path

    def send(self, path: str) -> None:
        self._sender.send(b"!", self._address(path))

    def counts(self, data: bytes) -> bool:
        return True

    def _address(self, path: str) -> str:
        """Return a name for a socket's path that fits into ``sun_path``."""
        if len(os.fsencode(path)) <= _MAX_PATH:
            return path
        if self._descriptor is None:
            self._descriptor = os.open(self._folder, os.O_RDONLY)
        return f"/proc/self/fd/{self._descriptor}/{os.path.basename(path)}"

    def close(self) -> None:
        self._sender.close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class _LoopbackDatagrams:
    def __init__(self, folder: Path, secret: Callable[[], bytes]) -> None:
        self._folder = folder
        self._secret = secret
        self._known: bytes | None = None
        self._sender = _Sender(socket.AF_INET)

    def _word(self) -> bytes:
        if self._known is None:
            self._known = sha256(b"wake" + self._secret()).digest()
        return self._known

    def bind(self, name: str) -> tuple[socket.socket, str]:
        self._word()
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            bound.bind((_LOOPBACK, 0))
            path = self._folder / f"{name}-{bound.getsockname()[1]}"
            path.touch(0o600, exist_ok=False)
        except BaseException:
            bound.close()
            raise
        return bound, str(path)

    def send(self, path: str) -> None:
        pid, _, port = os.path.basename(path).rpartition(".")[2].split("-")
        if started(int(pid)) is None:
            raise ConnectionRefusedError
        self._sender.send(self._word(), (_LOOPBACK, int(port)))

    def counts(self, data: bytes) -> bool:
        return data == self._known

    def close(self) -> None:
        self._sender.close()


def datagrams(folder: Path, secret: Callable[[], bytes]) -> Datagrams:
    """Return the sockets of a folder; names are ``CHANNEL.PID-NUMBER``. The secret is read only where it is needed."""
    family: int | None = getattr(socket, "AF_UNIX", None)
    # a long path is reached by /proc
    if family is None or (len(os.fsencode(folder)) > _MAX_PATH and not os.path.isdir("/proc/self/fd")):
        return _LoopbackDatagrams(folder, secret)
    return _UnixDatagrams(folder, family)
