"""Peers over plain sockets, which send anything."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from tests.support.listening import Listener


class Raw:
    """A socket to a server; what is sent is anybody's guess."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=10)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def everything(self) -> bytes:
        """Receive until the server closes."""
        parts = []
        try:
            while data := self.socket.recv(65536):
                parts.append(data)
        except ConnectionResetError:
            parts.append(b"")
        return b"".join(parts)

    def some(self) -> bytes:
        return self.socket.recv(65536)


class Hostile:
    """A server that sends what it is told to, once for each connection, whatever is asked; `received` has what was sent to it, and `served` counts the connections on which all was said."""

    def __init__(self, answers: list[bytes], *, close: bool = True, read: int = 1) -> None:
        self._answers = answers
        self._close = close
        self._read = read
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[bytes] = []
        self.connections = self.served = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            connection.settimeout(10)
            try:
                for answer in self._answers:
                    if self._read:
                        self.received.append(connection.recv(65536))
                    connection.sendall(answer)
                if self._close:
                    connection.close()
            except OSError:
                connection.close()
            self.served += 1

    def has_left(self) -> bool:
        """Receive what comes on all connections; returns whether each has been ended by its caller, in time."""
        for each in self._open:
            try:
                while each.recv(1 << 20):
                    pass
            except ConnectionResetError:
                pass
            except TimeoutError:
                return False
        return True

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            each.close()
        self._thread.join(5)


class Relay(Listener):
    """A process that took over a port and passes on what comes, in `received`, to the real server; it may change ``Host``."""

    def __init__(self, target: str, *, host: str = "127.0.0.1", port: int = 0, rewrite: bool = False) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._rewrite = f"host: {parts.netloc}".encode() if rewrite else None
        self.received = b""
        super().__init__(self._relay, host, port)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _relay(self, near: socket.socket) -> None:
        far = self.keep(socket.create_connection(self._target))
        back = self.run(self._pass, far, near, False)
        self._pass(near, far, True)
        back.join()

    def _pass(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if asks:
                    self.received += data
                    if self._rewrite is not None:
                        data = re.sub(rb"host: [^\r]*", self._rewrite, data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
