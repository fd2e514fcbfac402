"""A real daprd for all tests of a module: the binary that the variable ``DAPRD`` names, with components in memory, and in Redis where there is a ``redis-server``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness

STORES = 800
"""Components of state: a test has one of its own, as in memory nothing empties them."""
_COMPONENT = (
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\n"
    "spec: {{type: {type}, version: v1, metadata: {metadata}}}\n"
)


class Daprd:
    """See the module."""

    def __init__(self, binary: str, folder: Path, redis: int | None) -> None:
        self.redis = redis
        resources = folder / "resources"
        resources.mkdir()
        found = [_component(f"state-{number}", "state.in-memory") for number in range(STORES)]
        found.append(_component("bus", "pubsub.in-memory"))
        (folder / "secrets.json").write_text(json.dumps({"db": "sesame", "odd / key.": "yes"}), encoding="utf-8")
        found.append(_component("vault", "secretstores.local.file", secretsFile=str(folder / "secrets.json")))
        if redis is not None:
            for name, kind in (("settings", "configuration.redis"), ("locks", "lock.redis"), ("redis", "state.redis")):
                found.append(_component(name, kind, redisHost=f"127.0.0.1:{redis}", redisPassword=""))
        (resources / "components.yaml").write_text("---\n".join(found), encoding="utf-8")
        self.http, self.grpc, inner = (free_port() for _ in range(3))
        self._log = (folder / "daprd.log").open("wb")
        command = [binary, "--app-id", "suite", "--resources-path", str(resources), "--enable-metrics=false"]
        command += ["--dapr-http-port", str(self.http), "--dapr-grpc-port", str(self.grpc)]
        command += ["--dapr-internal-grpc-port", str(inner), "--dapr-listen-addresses", "127.0.0.1"]
        command += ["--max-body-size", "64Mi", "--log-level", "warn"]
        environment = {name: value for name, value in os.environ.items() if name != "DAPR_API_TOKEN"}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=folder, env=environment)
        self._free = iter(range(STORES))
        try:
            self._wait(folder / "daprd.log")
        except BaseException:
            self.close()
            raise

    def _wait(self, log: Path) -> None:
        end = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self.http}/v1.0/healthz/outbound", timeout=5) as answer:
                    if answer.status == 204:
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"daprd does not answer: {log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def store(self) -> str:
        return f"state-{next(self._free)}"

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class DaprdHttp(Harness):
    """Clients of it over HTTP."""

    name = "daprd"
    address: ClassVar[str] = "http://127.0.0.1:{0.http}"
    bad_etag = "00000000-0000-0000-0000-0000000000aa"
    names: ClassVar[Mapping[str, str]] = {"configuration": "settings", "lock": "locks", "pubsub": "bus"}
    empty_settings = False

    def __init__(self, daprd: Daprd) -> None:
        self._daprd = daprd
        self._clients: list[CloudRuntimesClient] = []

    def store(self, kind: str = "store") -> str:
        return self.names.get(kind) or self._daprd.store()

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        config = {"dapr": {"max_message": 64 << 20}}
        client = CloudRuntimesClient(self.address.format(self._daprd), config=config, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


class DaprdGrpc(DaprdHttp):
    """Over gRPC."""

    name = "daprd over gRPC"
    address = "grpc://127.0.0.1:{0.grpc}"


DAPRD: dict[str, type[DaprdHttp]] = {harness.name: harness for harness in (DaprdHttp, DaprdGrpc)}


@contextmanager
def daprd_process(folder: Path) -> Iterator[Daprd]:
    """Run it."""
    binary = os.environ["DAPRD"]
    with redis_process(folder) as redis:
        made = Daprd(binary, folder, redis)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def redis_process(folder: Path) -> Iterator[int | None]:
    """Run a Redis, where it is installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                redis_call(port, "PING")
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def redis_call(port: int, *words: str) -> bytes:
    """Send one command of Redis (RESP), and return the answer as it comes."""
    encoded = [word.encode() for word in words]
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded))
        return connection.recv(65536)


def _component(name: str, type: str, **metadata: str) -> str:
    items = [{"name": key, "value": value} for key, value in metadata.items()]
    return _COMPONENT.format(name=name, type=type, metadata=json.dumps(items))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
