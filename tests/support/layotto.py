"""A real Layotto for all tests of a module: the binary that the variable ``LAYOTTO`` names, over a ``redis-server`` that must be installed too, and over ``etcd`` and ``moto_server`` (S3) where there are such (in the path, or named by the variables ``ETCD`` and ``MOTO_SERVER``)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing.suites import rpc_methods
from tests.support.daprd import redis_call, redis_process
from tests.support.harnesses.clients import Clients
from tests.support.harnesses.rpc import HereRpc
from tests.support.ports import free_port

SERVICE = "beside"
"""The application that a route leads to, at the port `Layotto.app`."""
STORES = 8
"""Components of each kind: a test has some of its own, and all are emptied between two tests."""
TOPICS = 150
"""Components of pub/sub, and as many that deliver one event at a time: what a test has subscribed stays subscribed, so each has its own, in a database of Redis of its own."""
REDELIVERED = 2.0
"""Seconds after which an event that is not answered for comes again, at the earliest."""


class Layotto:
    """See the module.

    Attributes:
        redis: its port.
        etcd: ports of those there are; each is a store of configuration of its own.
        s3: port of a store of objects, ``None``: there is none.
        app: port of the application that the route for ``service`` leads to.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        redis: int,
        etcd: Sequence[int] = (),
        s3: int | None = None,
        app_id: str = "suite",
        service: str = SERVICE,
    ) -> None:
        self.redis = redis
        self.etcd = etcd
        self.s3 = s3
        self.app_id = app_id
        self._service = service
        self.topics = {kind: iter(range(TOPICS)) for kind in ("pubsub", "ordered")}
        self.files = folder / "files"
        self.files.mkdir()
        self.grpc, self._actuator, self._egress, self.app = (free_port() for _ in range(4))
        secrets = folder / "secrets.json"
        secrets.write_text(json.dumps({"db": "sesame", "nested": {"user": "u"}}), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(self._configuration(secrets)), encoding="utf-8")
        self._folder = folder
        self._binary = binary
        self._start()

    def _start(self) -> None:
        self._log = (self._folder / "layotto.log").open("ab")
        command = [self._binary, "start", "-c", str(self._folder / "config.json")]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=self._folder)
        end = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"{self.actuator}/actuator/health/readiness", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                log = (self._folder / "layotto.log").read_text(errors="replace")
                raise RuntimeError(f"Layotto does not answer: {log[-3000:]}")
            time.sleep(0.05)

    @property
    def actuator(self) -> str:
        return f"http://127.0.0.1:{self._actuator}"

    def _configuration(self, secrets: Path) -> dict[str, Any]:
        redis = {"redisHost": f"127.0.0.1:{self.redis}", "redisPassword": ""}

        def stores(kind: str, **more: str) -> dict[str, Any]:
            component = {"type": "redis", "metadata": {**redis, **more}}
            return {f"{kind}-{number}": component for number in range(STORES)}

        def topics(kind: str, first: int, **more: str) -> dict[str, Any]:
            # each stream that ends leaves a reader behind, which holds a connection
            again = {
                "poolSize": "100",
                "processingTimeout": f"{REDELIVERED:g}s",
                "redeliverInterval": "1s",
                "consumerID": self.app_id,
            }
            return {
                f"{kind}-{number}": {
                    "type": "redis",
                    "metadata": {**redis, **again, "redisDB": str(first + number), **more},
                }
                for number in range(TOPICS)
            }

        settings: dict[str, Any] = {"settings": {"type": "in-memory"}}
        for number, port in enumerate(self.etcd):
            settings[f"etcd-{number}"] = {"type": "etcd", "address": [f"127.0.0.1:{port}"], "timeout": "10"}
        demo = secrets.with_name("demo.json")
        demo.write_text(json.dumps({"report-key": "a key of sixteen characters"}), encoding="utf-8")
        files: dict[str, Any] = {f"files{more}": {"type": "local", "metadata": {}} for more in ("", "-2")}
        if self.s3 is not None:
            known = {"accessKeyID": "key", "accessKeySecret": "secret", "SSL": False, "region": "us-east-1"}
            component = {"type": "minio", "metadata": [{"endpoint": f"127.0.0.1:{self.s3}", **known}]}
            files |= {f"objects{more}": component for more in ("", "-2")}
        runtime = {
            "hellos": {"helloworld": {"type": "helloworld", "hello": "hi"}},
            "config_store": settings,
            "state": stores("state", keyPrefix="name") | {"totals": {"type": "redis", "metadata": redis}},
            "lock": stores("lock", keyPrefix="name"),
            "sequencer": {"numbers": {"type": "in-memory", "metadata": {}}},
            "pub_subs": topics("pubsub", 1)
            | topics("ordered", 1 + TOPICS, concurrency="1", processingTimeout="60s")
            | {"bus": {"type": "redis", "metadata": {**redis, "consumerID": self.app_id}}},
            "file": files,
            "secret_store": {
                store: {"type": "local.file", "metadata": {"secretsFile": str(path)}}
                for store, path in {"vault": secrets, "demo": demo}.items()
            },
            "app": {"app_id": self.app_id, "grpc_callback_port": 0},
            "rpcs": {
                "mosn": {"config": {"channel": [{"size": 16, "protocol": "http", "listener": "egress_runtime_http"}]}}
            },
        }
        grpc = {"type": "grpc", "config": {"server_name": "runtime", "grpc_config": runtime}}
        proxy = {"downstream_protocol": "Http1", "upstream_protocol": "Http1", "router_config_name": "none"}
        egress = {**proxy, "name": "proxy_config", "router_config_name": "services"}
        match = {"headers": [{"name": "id", "value": self._service}]}
        hosts = {
            "name": "all",
            "domains": ["*"],
            "routers": [{"match": match, "route": {"cluster_name": "application"}}],
        }
        cluster = {
            "name": "application",
            "type": "SIMPLE",
            "lb_type": "LB_RANDOM",
            "hosts": [{"address": f"127.0.0.1:{self.app}", "hostname": "application", "weight": 1}],
        }
        listeners = [
            {
                "name": "grpc",
                "address": f"127.0.0.1:{self.grpc}",
                "bind_port": True,
                "filter_chains": [{"filters": [grpc]}],
            },
            {
                "name": "actuator",
                "address": f"127.0.0.1:{self._actuator}",
                "bind_port": True,
                "filter_chains": [{"filters": [{"type": "proxy", "config": proxy}]}],
                "stream_filters": [{"type": "actuator_filter"}],
            },
            {
                "name": "egress_runtime_http",
                "type": "egress",
                "address": f"127.0.0.1:{self._egress}",
                "bind_port": True,
                "network": "tcp",
                "filter_chains": [{"filters": [{"type": "proxy", "config": egress}]}],
            },
        ]
        server = {
            "default_log_path": "stdout",
            "default_log_level": "WARN",
            "routers": [{"router_config_name": "none"}, {"router_config_name": "services", "virtual_hosts": [hosts]}],
            "listeners": listeners,
        }
        return {"servers": [server], "cluster_manager": {"tls_context": {}, "clusters": [cluster]}}

    def restart(self) -> None:
        """End it and start it again in its place."""
        self._process.kill()  # asked to end it would wait half a minute for streams
        self.close()
        self._start()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class LayottoProcess(Clients):
    """Clients of it.

    Attributes:
        topics: ``"pubsub"``, whose events are ten at once, so in no order, or ``"ordered"``, one at a time.
    """

    name = "a real layotto"
    bad_etag = "999999999"
    event_metadata = False
    slashes = False
    tells_expiry = False
    prefetch = 256

    def __init__(self, layotto: Layotto, topics: str = "pubsub") -> None:
        self._layotto = layotto
        self.topics = topics
        self.bulk_order = topics == "ordered"
        self._free = {kind: [f"{kind}-{number}" for number in range(STORES)] for kind in ("state", "lock")}
        self._free["configuration"] = [f"etcd-{number}" for number in range(len(layotto.etcd))] or ["settings"]
        self._free |= {"file": ["files"], "secret": ["vault"]}
        self._roots: dict[str, str] = {"files": str(layotto.files)}
        redis_call(layotto.redis, "SELECT", "0")
        redis_call(layotto.redis, "FLUSHDB")
        for port in layotto.etcd:
            empty_etcd(port)

    def store(self, kind: str = "store") -> str:
        if kind == "pubsub":
            return f"{self.topics}-{next(self._layotto.topics[self.topics])}"
        return self._free[kind].pop(0)

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        table = {"actuator": self._layotto.actuator, "file_roots": self._roots, "max_message": 64 << 20}
        table |= arguments.pop("table", {})
        endpoint = arguments.pop("endpoint", f"grpc://127.0.0.1:{self._layotto.grpc}")
        return CloudRuntimesClient(endpoint, runtime="layotto", config={"layotto": table}, **arguments)


class LayottoFiles(LayottoProcess):
    """Two stores of files in folders of the machine, or of objects in buckets."""

    def __init__(self, layotto: Layotto, store: str, *roots: str) -> None:
        super().__init__(layotto)
        self._free["file"] = [store, f"{store}-2"]
        self._roots = dict(zip(self._free["file"], roots, strict=True))
        for root in roots if store == "objects" else ():
            with urlopen(Request(f"http://127.0.0.1:{layotto.s3}/{root}", method="PUT"), timeout=10) as answer:
                answer.read()


class LayottoRpc(HereRpc):
    """Methods of the application that the route leads to, in this process; calls go by Layotto."""

    name = "a real layotto"
    service = SERVICE
    any_http_method = False
    knows_services = False

    def __init__(self, layotto: Layotto, folder: Path) -> None:
        self._layotto = layotto
        super().__init__(folder)

    def _start(self) -> None:
        app = super().client(app_id=self.service)
        rpc_methods.register(app)
        self._serving = app.rpc.serving(port=self._layotto.app)
        self._serving.__enter__()

    def config(self) -> dict[str, Any]:
        return {"capa": {"home": ":memory:", "rpc_open": True}}  # the sidecar has no token to show

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return CloudRuntimesClient(
            f"grpc://127.0.0.1:{self._layotto.grpc}",
            runtime="layotto",
            config={"layotto": {"max_message": 64 << 20}},
            **arguments,
        )

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        super().close()


@contextmanager
def layotto_process(folder: Path, **arguments: Any) -> Iterator[Layotto | None]:
    """Run it, where there is a Redis for it, with arguments of its own."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_process(folder, databases=1 + 2 * TOPICS))
        if redis is None:
            yield None
            return
        etcd = [stack.enter_context(each) for each in etcd_processes(folder, 2)]
        s3 = stack.enter_context(_s3())
        layotto = Layotto(os.environ["LAYOTTO"], folder, redis=redis, etcd=etcd, s3=s3, **arguments)
        try:
            yield layotto
        finally:
            layotto.close()


def etcd_processes(folder: Path, count: int) -> list[Any]:
    """Return what runs so many, none where it is not there."""
    binary = os.environ.get("ETCD") or shutil.which("etcd")
    return [] if binary is None else [_etcd(binary, folder / f"etcd-{number}") for number in range(count)]


@contextmanager
def _etcd(binary: str, folder: Path) -> Iterator[int]:
    port, peer = free_port(), free_port()
    urls = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    command = [binary, "--data-dir", str(folder)]
    command += ["--listen-client-urls", urls[0], "--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1]]
    command += ["--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                empty_etcd(port)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _s3() -> Iterator[int | None]:
    binary = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if binary is None:
        yield None
        return
    port = free_port()
    process = subprocess.Popen(
        [binary, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=10):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def empty_etcd(port: int) -> None:
    """Delete all of its keys."""
    every = base64.b64encode(b"\0").decode()
    request = Request(
        f"http://127.0.0.1:{port}/v3/kv/deleterange", json.dumps({"key": every, "range_end": every}).encode()
    )
    with urlopen(request, timeout=10) as answer:
        answer.read()
