"""Servers of tests, over HTTP and over plain sockets: a function or a method says what they answer."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = tuple[int, bytes, Iterable[tuple[str, str]]]


class HttpServer:
    """Answers HTTP requests in threads, from when it is made or ``start`` was called, until it is closed.

    Attributes:
        port: on 127.0.0.1.
        url: the same.
        connections: that were made.
        ahead: seconds of its clock.
    """

    ahead = 0.0

    def __init__(self, port: int = 0, *, start: bool = True) -> None:
        outer = self
        self.connections = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                answer = outer.answered(self.command, self.path, self.headers, body)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                for name, value in answer[2]:
                    self.send_header(name, value)
                if answer[0] != 204:
                    self.send_header("content-length", str(len(answer[1])))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer[1])

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_LIST = handle_any

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + outer.ahead)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request: Any, client_address: Any) -> None:
                outer.connections += 1
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exception(), OSError):  # else whoever asked is gone
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        if start:
            self._thread.start()

    def answered(self, method: str, path: str, headers: Any, body: bytes) -> Answer | None:
        """Return a status, a body and headers; `None` ends the connection."""
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        if not self._thread.ident:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Listener:
    """Listens, and has each connection served by a thread of its own, until it is closed with all connections.

    Attributes:
        port: where.
        connections: that were made.
    """

    def __init__(self, serve: Callable[[socket.socket], object], host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._serve = serve
        self._listener = socket.create_server((host, port), family=family, backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.run(self._accept)

    def run(self, target: Callable[..., object], *arguments: Any) -> threading.Thread:
        """Run something in a thread, until it or the connections end."""

        def guarded() -> None:
            with suppress(OSError, EOFError):
                target(*arguments)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def keep(self, connection: socket.socket) -> socket.socket:
        """Have a connection closed at the end."""
        self._open.append(connection)
        return connection

    def _accept(self) -> None:
        while True:
            connection = self.keep(self._listener.accept()[0])
            self.connections += 1
            self.run(self._served, connection)

    def _served(self, connection: socket.socket) -> None:
        with connection:
            self._serve(connection)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):  # which has gone already
                each.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits on it
            each.close()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
