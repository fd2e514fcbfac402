"""Servers for tests: each in a folder of its own, on a port that stays its own while it is down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import reserved_port

__all__ = ["Missing", "Server", "shared", "stopped"]


class Missing(Exception):
    """There is no server to start."""


class Server:
    """A server; it ends with the resources.

    Attributes:
        kind: which program.
        port: it listens on.
        folder: of its data, its configuration and its log.
    """

    def __init__(self, resources: ExitStack, kind: str) -> None:
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix=f"cloud-runtimes-{kind}-"))
        resources.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.port: int = resources.enter_context(reserved_port())
        self.process: subprocess.Popen[bytes] | None = None
        resources.callback(self.stop)

    def spawn(self, *command: object, **options: Any) -> None:
        """Start it without waiting."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, **options)

    def wait_until(self, ready: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until it is ready."""
        assert self.process is not None
        end = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.kind} did not start: {self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        """Return what it has said."""
        return (self.folder / "log").read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Have a server stand still."""
    assert server.process is not None
    server.signal(signal.SIGSTOP)
    os.waitpid(server.process.pid, os.WUNTRACED)  # it has all its threads stopped
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@contextmanager
def shared(folder: Path, name: str, serve: Callable[[], AbstractContextManager[Any]]) -> Iterator[str]:
    """Give the URL of a server that takes long to start: the first process that asks in a folder starts it, and ends it once the last has left."""
    import fcntl  # which a run without Linux's extras does not have, nor these servers

    told = folder / f"{name}.url"
    with ExitStack() as resources:
        starting = resources.enter_context(open(folder / f"{name}.starting", "w"))
        users = resources.enter_context(open(folder / f"{name}.users", "w"))
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # one that is being ended has been, then
        mine = not told.exists()
        if mine:
            told.write_text(resources.enter_context(serve()).url)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield told.read_text()
        if mine:
            fcntl.flock(users, fcntl.LOCK_EX)  # a process that dies gives its lock up
            told.unlink()
