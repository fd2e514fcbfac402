"""Listening, and a server of HTTP in a thread of its own with a loop of its own: what the sidecar and the viewer of telemetry have in common."""

from __future__ import annotations

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Self

from .._core.logs import logger
from .._core.threads import Background, Changes
from ..errors import CloudRuntimesError, InternalError, UnavailableError

INHERITED: Final = "fd://"


def listen(host: str, port: int, remedy: str) -> tuple[socket.socket, str]:
    """Listen and return the socket and its URL, e.g. ``"http://127.0.0.1:41231"``; `UnavailableError` ends with ``remedy``.

    A host such as ``fd://3`` is a socket that listens already, and that this process inherited.
    """
    try:
        if host.startswith(INHERITED):
            sock = socket.socket(fileno=int(host.removeprefix(INHERITED)))
            if sock.family not in (socket.AF_INET, socket.AF_INET6) or not sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                sock.detach()
                raise OSError(errno.EINVAL, "it is no socket of TCP that listens")
            return sock, _url(sock.getsockname())
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # the protocol by its name: with 0 asyncio leaves Nagle's algorithm on, at 40 ms a call
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(1024)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise UnavailableError(
            f"{host}:{port} cannot be listened on: {error.strerror}: {remedy}", retryable=False
        ) from error
    return sock, _url((host, sock.getsockname()[1]))


def _url(address: Sequence[Any]) -> str:
    host, port = address[:2]
    # on all addresses is also on loopback, where others of this machine reach it
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host) or (f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


class ThreadedServer(ABC):
    """``with`` begins and ends it. It serves once."""

    what: ClassVar[str]  # it is, for messages
    thread: ClassVar[str]

    def __init__(self) -> None:
        self.signal = 0  # that ended `wait`
        self._address = ""
        self._socket: socket.socket | None = None
        self._server: Any = None
        self._thread: Background | None = None
        self._changes = Changes()
        self._started = self._stopping = self._ended = False
        self._failure: BaseException | None = None

    @abstractmethod
    def _open(self) -> None:
        """Get ready to serve: `_listen`, at least."""

    @abstractmethod
    async def _serve(self) -> None:
        """Set ``_server``, with `_has_started` as what it calls once it serves, and serve until it ends."""

    def _listen(self, host: str, port: int, remedy: str) -> str:
        self._socket, self._address = listen(host, port, remedy)
        return self._address

    def _has_started(self) -> None:
        self._started = True
        self._changes.announce()
        if self._stopping:  # before there was anything to stop
            self._server.stop()

    def __enter__(self) -> Self:
        """Listen and serve, or raise `UnavailableError` where the port is taken, or what else keeps it from serving."""
        try:
            self._open()
            self._thread = Background(self._run, self.thread)
            self._thread.start()
            self._wait_for(lambda: self._started or self._ended)
            if not self._started:
                if isinstance(self._failure, CloudRuntimesError):
                    raise self._failure
                raise InternalError(f"the {self.what} did not start: {self._failure!r}") from self._failure
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait until a signal was `signalled`, it has ended, or ``until`` holds, which is looked at after each `wake`. A failure is `InternalError`."""
        self._wait_for(lambda: bool(self.signal or self._ended or until()))
        if self._failure is not None:
            raise InternalError(f"the {self.what} failed: {self._failure!r}") from self._failure

    def signalled(self, number: int) -> None:
        """Have `wait` end; the second signal interrupts."""
        again, self.signal = self.signal, number
        self._changes.announce()
        if again:
            raise KeyboardInterrupt

    def wake(self) -> None:
        """Have `wait` look again, from any thread."""
        self._changes.announce()

    def stop(self) -> None:
        """Stop the server: no more requests are taken, those under way have their grace. Thread-safe."""
        self._stopping = True
        if self._server is not None:
            self._server.stop()

    @abstractmethod
    def close(self) -> None:
        """End it, and let go of what it has."""

    def _leave(self, patience: float, late: str) -> None:
        """`stop`, and wait so many seconds for the end; ``late`` is told where it does not come."""
        self.stop()
        if self._thread is not None and not self._thread.join(patience) and self._thread.started:
            logger().warning("%s: %s when the %s was closed", self._address, late, self.what)
        if self._socket is not None:
            self._socket.close()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            ticket = self._changes.ticket()
            if not condition():
                self._changes.wait(ticket, None)

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        except BaseException as error:
            self._failure = error
            if self._started:  # else whoever starts it is told
                logger().error("the %s at %s failed: %r", self.what, self._address, error, exc_info=error)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            self._ended = True
            self._changes.announce()
