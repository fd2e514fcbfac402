"""RabbitMQ servers for tests: a folder, free ports, an epmd of their own; alone, shared by all workers of a run, or a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.ports import reserved_port
from tests.support.servers import Missing, Server, stopped

__all__ = ["USERS", "Missing", "RabbitServer", "management_of", "serve", "serve_cluster", "serve_managed", "stopped"]

USERS: Mapping[str, tuple[str, str, str]] = {
    "nobody": ("^$", "^$", "^$"), "user": ("^$", ".*", ".*"), "reader": ("^$", "^$", ".*"),
}  # fmt: skip
"""Further users, whose password is their name: what they may make, write and read."""
_TAGS: Mapping[str, str] = {"guest": "administrator", "reader": "management"}
_ERLANG = "+S 1:1 +SDcpu 1:1 +SDio 1 +A 2"


def _program() -> str:
    """Return the path of the server; ``RABBITMQ_SERVER`` names another, such as one of a later version."""
    if "RABBITMQ_SERVER" in os.environ:
        return os.environ["RABBITMQ_SERVER"]
    for path in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server")):
        if path is not None and Path(path).exists() and shutil.which("erl"):
            return path
    raise Missing("RabbitMQ is not installed: apt-get install rabbitmq-server")


class RabbitServer(Server):
    """A server that runs.

    Attributes:
        url: of it.
    """

    def __init__(
        self, resources: ExitStack, options: Mapping[str, Any], ports: Sequence[int], epmd: int, cookie: str
    ) -> None:
        super().__init__(resources, "rabbitmq")
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self.node = f"t{self.port}@localhost"
        self._epmd = epmd
        self._starts = 0
        (self.folder / "home").mkdir()
        (self.folder / "home" / ".erlang.cookie").write_text(cookie)
        (self.folder / "home" / ".erlang.cookie").chmod(0o400)
        (self.folder / "enabled_plugins").write_text("[].")
        everything = {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        limited = [
            {**everything, "user": name, "configure": may[0], "write": may[1], "read": may[2]}
            for name, may in USERS.items()
        ]
        definitions = {
            "users": [{"name": name, "password": name, "tags": _TAGS.get(name, "")} for name in ("guest", *USERS)],
            "vhosts": [{"name": "/"}],
            "permissions": [everything, *limited],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        settings = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}", "loopback_users": "none", "log.console": "true",
            "log.console.level": "info", "log.file": "false", "load_definitions": self.folder / "definitions.json",
            "vm_memory_high_watermark.absolute": "1GB", "disk_free_limit.absolute": "1MB", **options,
        }  # fmt: skip
        (self.folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        self._environment = {
            **os.environ, "HOME": str(self.folder / "home"), "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"), "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder), "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(ports[0]), "ERL_EPMD_PORT": str(epmd), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG, "ERL_MAX_ETS_TABLES": "5000", "ERL_MAX_PORTS": "4096",
            "RABBITMQ_MAX_NUMBER_OF_PROCESSES": "65536", "RABBITMQ_ALLOW_INPUT": "1",
        }  # fmt: skip
        resources.callback(self._end_epmd)

    def start(self) -> None:
        """Start it, on the data that is there."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it without waiting."""
        # a node that is killed early leaves a file where it was started
        self.spawn(
            _program(),
            "-noinput",
            env=self._environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._starts += 1

    def wait(self) -> None:
        """Wait until it is ready."""
        self.wait_until(lambda: self.log().count("Server startup complete") >= self._starts, 120)

    def stop(self) -> None:
        """End it at once: its data goes too."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def call(self, module: str, function: str, arguments: str = "[]") -> str:
        """Call a function in the server; ``arguments`` is an Erlang list."""
        command = ["erl_call", "-n", self.node, "-c", self._cookie(), "-a", f"{module} {function} {arguments}"]
        result = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30, check=True)
        return result.stdout

    def _cookie(self) -> str:
        return (self.folder / "home" / ".erlang.cookie").read_text()

    def _end_epmd(self) -> None:
        """End the name server that the first node started, and that outlives it."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "environ").read_bytes().split(b"\0")
                if b"ERL_EPMD_PORT=%d" % self._epmd in words and b"epmd" in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)


@contextmanager
def serve(**options: Any) -> Iterator[RabbitServer]:
    """Run a server until the block ends; ``options`` are those of its configuration, with ``__`` for dots."""
    with ExitStack() as resources:
        (server,) = _create_servers(resources, 1, options)
        server.start()
        yield server


@contextmanager
def serve_managed(**options: Any) -> Iterator[RabbitServer]:
    """Run a server with the management interface, where `management_of` says."""
    with ExitStack() as resources:
        (server,) = _create_servers(resources, 1, options)
        port = urlsplit(management_of(server.url)).port
        (server.folder / "enabled_plugins").write_text("[rabbitmq_management].")
        with open(server.folder / "rabbitmq.conf", "a") as file:
            file.write(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n")
        server.start()
        yield server


def management_of(url: str) -> str:
    """Return where a server's management interface is: its port is one that the system gives to no client."""
    return f"http://127.0.0.1:{10_000 + (urlsplit(url).port or 0) % 20_000}"


@contextmanager
def serve_cluster(count: int = 3, **options: Any) -> Iterator[list[RabbitServer]]:
    """Run servers of one cluster until the block ends."""
    with ExitStack() as resources:
        servers = _create_servers(resources, count, options)
        for server in servers:
            server.begin()
        for server in servers:
            server.wait()
        yield servers


def _create_servers(resources: ExitStack, count: int, options: Mapping[str, Any]) -> list[RabbitServer]:
    settings = {name.replace("__", "."): value for name, value in options.items()}
    epmd, cookie = resources.enter_context(reserved_port()), os.urandom(8).hex()
    ports = [[resources.enter_context(reserved_port())] for _ in range(count)]
    servers = [RabbitServer(resources, dict(settings), ports[number], epmd, cookie) for number in range(count)]
    if count > 1:
        nodes = {
            f"cluster_formation.classic_config.nodes.{index}": server.node for index, server in enumerate(servers, 1)
        }
        for server in servers:
            with open(server.folder / "rabbitmq.conf", "a") as file:
                peers = {"cluster_formation.peer_discovery_backend": "classic_config", **nodes}
                file.writelines(f"{name} = {value}\n" for name, value in peers.items())
    return servers
