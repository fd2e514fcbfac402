"""A real daprd: the binary that the variable ``DAPRD`` names, with components in memory and in files, in Redis where there is a ``redis-server``, in PostgreSQL where there is one, and with the scheduler that lies beside it."""

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
from urllib.request import urlopen

import pytest

from tests.support.ports import free_port

STORES = 800
"""Components of state: a test has one of its own, as in memory nothing empties them."""
FILES = 700
IN_REDIS = 600
"""Components of each kind that are in Redis, each in a database of its own there."""
KINDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "configuration": ("configuration.redis", {}),
    "lock": ("lock.redis", {}),
    # what was fetched and not answered for comes again soon
    "pubsub": ("pubsub.redis", {"consumerID": "suite", "processingTimeout": "2000", "redeliverInterval": "500"}),
    "redis": ("state.redis", {}),
}
"""Beginning of a component's name → its type and settings; the rest of the name is its number."""
IN_ORDER = {"concurrency": "1"}
"""Settings of every other component of events: by default ten events of a component are under way at once, in no order."""
PATIENT = {"processingTimeout": "60000"}
"""Settings of the rest: many events wait for their answers there, on a busy machine for seconds."""
_COMPONENT = (
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\n"
    "spec: {{type: {type}, version: v1, metadata: {metadata}}}\n"
)
_TRIED_AGAIN = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {{name: tried-again-{times}}}
spec:
  policies: {{retries: {{again{times}: {{policy: constant, duration: 100ms, maxRetries: {times}}}}}}}
  targets: {{components: {{{targets}}}}}
"""


class Daprd:
    """See the module.

    Attributes:
        http, grpc: its ports.
        port: where the application is to listen.
        scheduler: there is one, so that there are jobs.

    Args:
        resources: what its files of resources have, by their names.
        jobs: start the scheduler too.
    """

    def __init__(
        self, binary: str, folder: Path, resources: Mapping[str, str], *, port: int | None = None, jobs: bool = False
    ) -> None:
        self.folder = folder
        self._binary = binary
        self.resources = folder / "resources"
        self.resources.mkdir()
        for name, text in resources.items():
            (self.resources / f"{name}.yaml").write_text(text, encoding="utf-8")
        self.http, self.grpc, self._inner = (free_port() for _ in range(3))
        self.port = free_port() if port is None else port
        self._processes: list[subprocess.Popen[bytes]] = []
        self._scheduler: int | None = None
        scheduler = Path(binary).with_name("scheduler")
        self.scheduler = jobs and scheduler.exists()
        try:
            if self.scheduler:
                self._scheduler = self._start_scheduler(scheduler)
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it, where it is not running."""
        command = [self._binary, "--app-id", "suite", "--resources-path", str(self.resources), "--enable-metrics=false"]
        command += ["--app-port", str(self.port), "--max-body-size", "64Mi", "--log-level", "warn"]
        command += ["--dapr-http-port", str(self.http), "--dapr-grpc-port", str(self.grpc)]
        command += ["--dapr-internal-grpc-port", str(self._inner), "--dapr-listen-addresses", "127.0.0.1"]
        if self._scheduler is not None:
            command += ["--scheduler-host-address", f"127.0.0.1:{self._scheduler}"]
        self._run(command)
        self._wait(self.folder / "daprd.log")

    def kill(self) -> None:
        """End it, without asking."""
        process = self._processes.pop()
        process.kill()
        process.wait()

    def _run(self, command: list[str]) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("DAPR_API_TOKEN", "APP_PORT")}
        with (self.folder / f"{Path(command[0]).name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment)
        self._processes.append(process)

    def _start_scheduler(self, binary: Path) -> int:
        port, etcd, peers, health = (free_port() for _ in range(4))
        command = [str(binary), "--port", str(port), "--enable-metrics=false", "--listen-address", "127.0.0.1"]
        command += ["--etcd-client-port", str(etcd), "--etcd-data-dir", str(self.folder / "etcd")]
        command += ["--etcd-initial-cluster", f"dapr-scheduler-server-0=http://127.0.0.1:{peers}"]
        command += ["--healthz-port", str(health), "--healthz-listen-address", "127.0.0.1", "--log-level", "warn"]
        command += ["--override-broadcast-host-port", f"127.0.0.1:{port}"]
        self._run(command)
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

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Beneath(Daprd):
    """Instance of daprd with all components that the suites need, shared by the tests of a module.

    Attributes:
        redis: the port of a Redis.
        databases: name → URL.
    """

    def __init__(self, binary: str, folder: Path, redis: int | None, databases: Mapping[str, str]) -> None:
        self.redis = redis
        self.databases = databases
        self._free = {kind: iter(range(10_000)) for kind in ("state", "files", *KINDS)}
        # daprd reads the broker before it has registered a stream: what comes meanwhile fails, and must come again
        streamed = tried_again(*(f"pubsub-{number}" for number in range(IN_REDIS)), times=5)
        resources = {"components": "---\n".join(self._components(folder)), "streamed": streamed}
        resources["resiliency"] = tried_again("again")
        super().__init__(binary, folder, resources, jobs=True)

    def _components(self, folder: Path) -> Iterator[str]:
        for number in range(STORES):
            yield component(f"state-{number}", "state.in-memory")
        yield component("bus", "pubsub.in-memory")
        (folder / "secrets.json").write_text("{}", encoding="utf-8")
        yield component("vault", "secretstores.local.file", secretsFile=str(folder / "secrets.json"))
        for number in range(FILES):
            yield component(f"files-{number}", "bindings.localstorage", rootPath=str(folder / f"files-{number}"))
        for name, url in self.databases.items():
            yield component(name, "bindings.postgresql", connectionString=url)
        if self.redis is not None:
            yield redis_component("again", "pubsub.redis", self.redis, consumerID="suite")
            for kind, (type, more) in KINDS.items():
                for number in range(IN_REDIS):
                    name = f"{kind}-{number}"
                    some = {**more, **(IN_ORDER if number % 2 else PATIENT)} if kind == "pubsub" else more
                    yield redis_component(name, type, self.redis, self.database_of(name), **some)

    def store(self, kind: str, *, in_order: bool = False) -> str:
        """Return a component's name that no other test has."""
        number = next(self._free[kind])
        if kind == "pubsub":
            while (number % 2 == 1) is not in_order:
                number = next(self._free[kind])
        assert number < {"state": STORES, "files": FILES}.get(kind, IN_REDIS), f"there are no more of {kind}"
        return f"{kind}-{number}"

    def database_of(self, name: str) -> int:
        """Return the number of a component's database in Redis."""
        kind, _, number = name.rpartition("-")
        return 1 + list(KINDS).index(kind) * IN_REDIS + int(number)


def component(name: str, type: str, **metadata: str) -> str:
    """Return a component as Dapr reads it."""
    items = [{"name": key, "value": value} for key, value in metadata.items()]
    return _COMPONENT.format(name=name, type=type, metadata=json.dumps(items))


def tried_again(*names: str, times: int = -1) -> str:
    """Return a policy by which events of components come again that are to: else those in Redis acknowledge them.

    Args:
        names: the components.
        times: how often; -1: without end, where no stream of the component may go: daprd would try that too.
    """
    targets = ", ".join(f"{name}: {{inbound: {{retry: again{times}}}}}" for name in names)
    return _TRIED_AGAIN.format(targets=targets, times=times)


def redis_component(name: str, type: str, port: int, database: int = 0, **more: str) -> str:
    """Return a component in Redis."""
    return component(name, type, redisHost=f"127.0.0.1:{port}", redisPassword="", redisDB=str(database), **more)


@contextmanager
def daprd_process(folder: Path, databases: Mapping[str, str]) -> Iterator[Beneath]:
    """Run it, with bindings to databases by their URLs."""
    binary = os.environ["DAPRD"]
    with redis_process(folder, databases=1 + len(KINDS) * IN_REDIS) as redis:
        daprd = Beneath(binary, folder, redis, databases)
        try:
            yield daprd
        finally:
            daprd.close()


def databases(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return name → URL of databases of a PostgreSQL, ``{}`` where there is none."""
    psycopg = pytest.importorskip("psycopg")
    try:
        url: str = request.getfixturevalue("postgres_url")
    except pytest.skip.Exception:
        return {}
    names = [f"daprd_{os.getpid()}_{number}" for number in range(2)]
    with psycopg.connect(url, autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE IF EXISTS {name}")
            connection.execute(f"CREATE DATABASE {name}")
    return {name: url.rpartition("/")[0] + f"/{name}" for name in names}


@contextmanager
def redis_process(folder: Path, *, databases: int = 16) -> Iterator[int | None]:
    """Run a Redis, where it is installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--databases", str(databases)], stdout=subprocess.DEVNULL)
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


def redis_call(port: int, *words: str, database: int = 0) -> bytes:
    """Send one command of Redis (RESP), and return the answer as it comes."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        answer = b""
        for command in (("SELECT", str(database)), words):
            encoded = [word.encode() for word in command]
            connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded))
            answer = connection.recv(65536)
        assert not answer.startswith(b"-"), answer
        return answer
