"""etcd servers for tests: a folder, free ports; alone, or a cluster. ``ETCD_SERVER`` names another program than ``etcd``."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cloud_runtimes.components.etcd import EtcdSettings
from cloud_runtimes.components.etcd.connection import parse_url
from cloud_runtimes.components.etcd.engine import EtcdEngine, Flow, Request
from cloud_runtimes.components.etcd.messages import pack, put, read_fields
from cloud_runtimes.errors import CloudRuntimesError, UnauthenticatedError
from cloud_runtimes.spi.operation import Method, Operation
from tests.support.ports import reserved_port
from tests.support.servers import Missing, Server, stopped
from tests.support.waiting import until

__all__ = ["EtcdServer", "Missing", "Serve", "asked", "compact", "leases", "serve", "serve_cluster", "stopped"]

_ASK = Method("etcd", "test", repeatable=True)


def _program() -> str:
    wanted = os.environ.get("ETCD_SERVER", "etcd")
    executable = shutil.which(wanted)
    if executable is None:
        raise Missing(f"{wanted} is not installed: apt-get install etcd-server")
    return executable


class EtcdServer(Server):
    """A server that runs.

    Attributes:
        url: of it.
    """

    def __init__(self, resources: ExitStack, name: str, options: Sequence[str], peer: int = 0) -> None:
        super().__init__(resources, "etcd")
        self.url = f"etcd://127.0.0.1:{self.port}"
        self.name = name
        self._options = options
        self._peer = peer or resources.enter_context(reserved_port())

    def start(self) -> None:
        """Start it, on the data that is there."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it without waiting."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.port, self._peer))
        client = client.replace("http:", "https:") if "cert-file" in self._options else client
        options = {
            "name": self.name, "data-dir": self.folder / "data", "listen-client-urls": client,
            "advertise-client-urls": client, "listen-peer-urls": peer, "initial-advertise-peer-urls": peer,
            "initial-cluster": f"{self.name}={peer}", "logger": "zap", "log-level": "warn",
            # leases of one second, and elections in half a second
            "heartbeat-interval": 50, "election-timeout": 500, **dict(zip(self._options[::2], self._options[1::2], strict=True)),
        }  # fmt: skip
        given = [f"--{name}={value}" for name, value in options.items()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        self.spawn(_program(), *given, env=environment)

    def wait(self) -> None:
        """Wait until it and those of its cluster have a leader."""
        if "cert-file" in self._options:
            self.wait_until(lambda: _listens(self.port))
        else:
            self.wait_until(lambda: _answers(self.url))


Serve = Callable[..., EtcdServer]
"""A fixture that starts servers of the test's own."""


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    try:
        asked(url, "/etcdserverpb.KV/Range", pack((1, b"ready")), timeout=0.5)
    except UnauthenticatedError:  # it asks who one is
        return True
    except CloudRuntimesError:
        return False
    return True


def asked(url: str, method: str, message: bytes, *, timeout: float = 5.0) -> bytes:
    """Ask a server something, as whom the URL says."""
    assert parse_url(url)
    engine = EtcdEngine.acquire(EtcdSettings(url=url, prefix="test-asks"))

    def ask() -> Flow[bytes]:
        request = Request(put, b"", b"")
        request.method, request.message = method, message
        return (yield request)

    try:
        return engine.run(Operation(_ASK, "test", timeout), ask())
    finally:
        engine.release()


def compact(url: str) -> None:
    """Have a server forget all revisions but the last."""
    header = dict(read_fields(dict(read_fields(asked(url, "/etcdserverpb.KV/Range", pack((1, b"x")))))[1]))
    asked(url, "/etcdserverpb.KV/Compact", pack((1, header[3]), (2, 1)))


def leases(url: str) -> dict[int, int]:
    """Return the leases that there are, with the seconds that each lasts; 0: it is over, and not yet removed."""
    remaining = {}
    for number, value in read_fields(asked(url, "/etcdserverpb.Lease/LeaseLeases", b"")):
        if number == 2:
            id = dict(read_fields(value))[1]
            seconds = dict(read_fields(asked(url, "/etcdserverpb.Lease/LeaseTimeToLive", pack((1, id))))).get(3, 0)
            if seconds < 1 << 62:
                remaining[id] = seconds
    return remaining


@contextmanager
def serve(*options: str) -> Iterator[EtcdServer]:
    """Run a server until the block ends; ``options`` are those of its command line."""
    with ExitStack() as resources:
        server = EtcdServer(resources, "alone", options)
        server.start()
        yield server


@contextmanager
def serve_cluster(count: int = 3) -> Iterator[list[EtcdServer]]:
    """Run servers of one cluster until the block ends."""
    with ExitStack() as resources:
        ports = [resources.enter_context(reserved_port()) for _ in range(count)]
        members = ",".join(f"s{number}=http://127.0.0.1:{port}" for number, port in enumerate(ports))
        servers = [
            EtcdServer(resources, f"s{number}", ("initial-cluster", members), port) for number, port in enumerate(ports)
        ]
        for server in servers:
            server.begin()
        for server in servers:
            server.wait()
        until(lambda: all(_answers(server.url) for server in servers))
        yield servers
