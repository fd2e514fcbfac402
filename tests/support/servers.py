"""Servers for tests: each in a folder of its own, on a port that stays its own while it is down."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support.ports import reserved_port

__all__ = ["Address", "Missing", "Server", "new_folder", "own_server", "shared_server", "stopped"]


class Missing(Exception):
    """There is no server to start."""


def new_folder(kind: str) -> Path:
    """Make a folder for a server: in memory where there is much, so that no test waits for the disk when it syncs."""
    memory = "/dev/shm"
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 8 << 30
    return Path(tempfile.mkdtemp(prefix=f"cloud-runtimes-{kind}-", dir=memory if roomy else None))


class Server:
    """A server; it ends with the resources.

    Attributes:
        kind: which program.
        port: it listens on.
        folder: of its data, its configuration and its log.
    """

    def __init__(self, resources: ExitStack, kind: str) -> None:
        self.kind = kind
        self.folder = new_folder(kind)
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


class Address(NamedTuple):
    """A server that another process may have started."""

    url: str

    @property
    def port(self) -> int:
        """The port that it listens on."""
        number = urlsplit(self.url).port
        assert number is not None
        return number


def own_server(name: str, *arguments: str) -> Any:
    """Return the fixture of a server of this process.

    Args:
        name: ``MODULE:FUNCTION`` of what starts it, below ``tests.support``.
        arguments: of the function.
    """

    @pytest.fixture(scope="session")
    def server() -> Iterator[Any]:
        yield from _started(lambda: resolve_name(f"tests.support.{name}")(*arguments))

    return server


def shared_server(name: str, factory: Callable[[str], Any] = str, *, variable: str = "", workers: bool = True) -> Any:
    """Return the fixture of a server that the first test which needs it starts.

    Args:
        name: as of `own_server`.
        factory: returns what the fixture gives, from the server's URL.
        variable: of the environment, which may name a server that runs already.
        workers: whether all workers of the run share it.
    """

    @pytest.fixture(scope="session")
    def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        if variable in os.environ:
            yield factory(os.environ[variable])
            return
        folder, label = tmp_path_factory.getbasetemp(), name.replace(":", "-")
        if not workers:
            label = f"own-{label}"
        elif "PYTEST_XDIST_WORKER" in os.environ:
            folder = folder.parent
        for url in _started(lambda: _shared(folder, label, resolve_name(f"tests.support.{name}"))):
            yield factory(url)

    return server


def _started(serve: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """Start a server, or skip the test where it is not installed."""
    with ExitStack() as resources:
        try:
            server = resources.enter_context(serve())
        except Missing as error:
            pytest.skip(str(error))
        yield server


@contextmanager
def _shared(folder: Path, name: str, serve: Callable[[], AbstractContextManager[Any]]) -> Iterator[str]:
    """Give the URL of a server that takes long to start: the first process that asks in a folder starts it, and ends it once the last has left."""
    import fcntl  # which a run without Linux's extras does not have, nor these servers

    url_file = folder / f"{name}.url"
    with ExitStack() as resources:
        starting = resources.enter_context(open(folder / f"{name}.starting", "w"))
        users = resources.enter_context(open(folder / f"{name}.users", "w"))
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # one that is being ended has been, then
        mine = not url_file.exists()
        if mine:
            url_file.write_text(resources.enter_context(serve()).url)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield url_file.read_text()
        if mine:
            faulthandler.cancel_dump_traceback_later()  # others may have long tests to do yet
            fcntl.flock(users, fcntl.LOCK_EX)  # a process that dies gives its lock up
            url_file.unlink()
