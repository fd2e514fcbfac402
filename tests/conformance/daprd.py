"""A real daprd for all tests of a module: the binary that the variable ``DAPRD`` names, with components in memory and in files, in Redis where there is a ``redis-server``, in PostgreSQL where there is one, and with the scheduler that lies beside it."""

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

import pytest
from harnesses import HereRpc

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness
from cloud_runtimes.testing.suites import rpc_methods

STORES = 800
"""Components of state: a test has one of its own, as in memory nothing empties them."""
FILES = 700
SETTINGS = 200
SECRETS = 60
_COMPONENT = (
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\n"
    "spec: {{type: {type}, version: v1, metadata: {metadata}}}\n"
)


class Daprd:
    """See the module.

    Attributes:
        port: where the application is to listen.
        scheduler: there is one, so that there are jobs.
    """

    def __init__(self, binary: str, folder: Path, redis: int | None, databases: Mapping[str, str]) -> None:
        self.redis = redis
        self.databases = databases
        self.folder = folder
        resources = folder / "resources"
        resources.mkdir()
        self.port = free_port()
        (resources / "components.yaml").write_text("---\n".join(self._components()), encoding="utf-8")
        self._processes: list[subprocess.Popen[bytes]] = []
        command = [binary, "--app-id", "suite", "--resources-path", str(resources), "--enable-metrics=false"]
        command += ["--app-port", str(self.port), "--max-body-size", "64Mi", "--log-level", "warn"]
        self.http, self.grpc, inner = (free_port() for _ in range(3))
        command += ["--dapr-http-port", str(self.http), "--dapr-grpc-port", str(self.grpc)]
        command += ["--dapr-internal-grpc-port", str(inner), "--dapr-listen-addresses", "127.0.0.1"]
        scheduler = Path(binary).with_name("scheduler")
        self.scheduler = scheduler.exists()
        self._free = {kind: iter(range(10_000)) for kind in ("state", "files", "settings", "secrets", "databases")}
        try:
            if self.scheduler:
                command += ["--scheduler-host-address", f"127.0.0.1:{self._start_scheduler(scheduler)}"]
            self._start(command)
            self._wait(folder / "daprd.log")
        except BaseException:
            self.close()
            raise

    def _components(self) -> list[str]:
        folder = self.folder
        found = [_component(f"state-{number}", "state.in-memory") for number in range(STORES)]
        found.append(_component("bus", "pubsub.in-memory"))
        found += [
            _component(f"files-{number}", "bindings.localstorage", rootPath=str(folder / f"files-{number}"))
            for number in range(FILES)
        ]
        for number in range(SECRETS):
            (folder / f"secrets-{number}.json").write_text("{}", encoding="utf-8")
        (folder / "secrets.json").write_text(json.dumps({"db": "sesame", "odd / key.": "yes"}), encoding="utf-8")
        found.append(_component("vault", "secretstores.local.file", secretsFile=str(folder / "secrets.json")))
        if self.redis is not None:
            at = {"redisHost": f"127.0.0.1:{self.redis}", "redisPassword": ""}
            for name, kind in (("settings", "configuration.redis"), ("locks", "lock.redis"), ("redis", "state.redis")):
                found.append(_component(name, kind, **at))
            found.append(_component("redis-bus", "pubsub.redis", consumerID="suite", **at))
        for name, url in self.databases.items():
            found.append(_component(name, "bindings.postgresql", connectionString=url))
        return found

    def _start(self, command: list[str]) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("DAPR_API_TOKEN", "APP_PORT")}
        with (self.folder / f"{Path(command[0]).name}.log").open("wb") as log:
            made = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment)
        self._processes.append(made)

    def _start_scheduler(self, binary: Path) -> int:
        port, etcd, peers, health = (free_port() for _ in range(4))
        command = [str(binary), "--port", str(port), "--enable-metrics=false", "--listen-address", "127.0.0.1"]
        command += ["--etcd-client-port", str(etcd), "--etcd-data-dir", str(self.folder / "etcd")]
        command += ["--etcd-initial-cluster", f"dapr-scheduler-server-0=http://127.0.0.1:{peers}"]
        command += ["--healthz-port", str(health), "--healthz-listen-address", "127.0.0.1", "--log-level", "warn"]
        command += ["--override-broadcast-host-port", f"127.0.0.1:{port}"]
        self._start(command)
        return port

    def _wait(self, log: Path) -> None:
        end = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self.http}/v1.0/healthz/outbound", timeout=5) as answer:
                    if answer.status == 204:
                        return
            except OSError:
                pass
            if self._processes[-1].poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"daprd does not answer: {log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def store(self, kind: str = "state") -> str:
        return f"{kind}-{next(self._free[kind])}"

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class DaprdHttp(Harness):
    """Clients of it over HTTP."""

    name = "daprd"
    address: ClassVar[str] = "http://127.0.0.1:{0.http}"
    bad_etag = "00000000-0000-0000-0000-0000000000aa"
    names: ClassVar[Mapping[str, str]] = {"configuration": "settings", "lock": "locks", "pubsub": "bus"}
    empty_settings = False
    applications = False
    refuses_rowless = True

    def __init__(self, daprd: Daprd) -> None:
        self._daprd = daprd
        self._databases = list(daprd.databases)
        self._clients: list[CloudRuntimesClient] = []

    def store(self, kind: str = "store") -> str:
        if kind == "file":
            return self._daprd.store("files")
        if kind == "database":
            if not self._databases:
                pytest.skip("there is no PostgreSQL")
            return self._emptied(self._databases.pop(0))
        return self.names.get(kind) or self._daprd.store()

    def _emptied(self, name: str) -> str:
        import psycopg

        with psycopg.connect(self._daprd.databases[name], autocommit=True) as connection:
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return name

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        config = {"dapr": {"max_message": 64 << 20}}
        client = CloudRuntimesClient(self.address.format(self._daprd), config=config, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self._daprd.scheduler:
            with CloudRuntimesClient(f"grpc://127.0.0.1:{self._daprd.grpc}") as client:
                for job in client.schedule.list_jobs():
                    client.schedule.delete_job(job.name)


class DaprdGrpc(DaprdHttp):
    """Over gRPC."""

    name = "daprd over gRPC"
    address = "grpc://127.0.0.1:{0.grpc}"


class DaprdRpc(HereRpc):
    """Methods of the application beside it, in this process; calls go by daprd, over HTTP."""

    name = "daprd"
    service = "suite"

    def __init__(self, daprd: Daprd, folder: Path) -> None:
        self._daprd = daprd
        super().__init__(folder)

    def _start(self) -> None:
        app = self.client(app_id=self.service)
        rpc_methods.register(app)
        self._serving = app.rpc.serving(port=self._daprd.port)
        self._serving.__enter__()

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(f"http://127.0.0.1:{self._daprd.http}", **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        super().close()


DAPRD: dict[str, type[DaprdHttp]] = {harness.name: harness for harness in (DaprdHttp, DaprdGrpc)}


@contextmanager
def daprd_process(folder: Path, databases: Mapping[str, str]) -> Iterator[Daprd]:
    """Run it, with bindings to databases by their URLs."""
    binary = os.environ["DAPRD"]
    with redis_process(folder) as redis:
        made = Daprd(binary, folder, redis, databases)
        try:
            yield made
        finally:
            made.close()


def databases(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return name → URL of databases of a PostgreSQL, ``{}`` where there is none."""
    psycopg = pytest.importorskip("psycopg")
    try:
        url: str = request.getfixturevalue("postgres_url")
    except pytest.skip.Exception:
        return {}
    names = [f"daprd_{number}" for number in range(2)]
    with psycopg.connect(url, autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE IF EXISTS {name}")
            connection.execute(f"CREATE DATABASE {name}")
    return {name: url.rpartition("/")[0] + f"/{name}" for name in names}


@contextmanager
def redis_process(folder: Path, databases: int = 16) -> Iterator[int | None]:
    """Run a Redis, where it is installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    command += ["--databases", str(databases)]
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
