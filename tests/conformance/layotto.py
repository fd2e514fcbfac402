"""A real Layotto for all tests of a module: the binary that the variable ``LAYOTTO`` names, over a ``redis-server`` that must be installed too."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from daprd import free_port, redis_call, redis_process

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness

SERVICE = "beside"
"""The application that a route leads to, at the port `Layotto.app`."""
STORES = 8
"""Components of each kind: a test has some of its own, and all are emptied between two tests."""


class Layotto:
    """See the module."""

    def __init__(self, binary: str, folder: Path, redis: int) -> None:
        self.redis = redis
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
            made = {"type": "redis", "metadata": {**redis, **more}}
            return {f"{kind}-{number}": made for number in range(STORES)}

        runtime = {
            "hellos": {"helloworld": {"type": "helloworld", "hello": "hi"}},
            "config_store": {"settings": {"type": "in-memory"}},
            "state": stores("state", keyPrefix="name"),
            "lock": stores("lock", keyPrefix="name"),
            "sequencer": {"numbers": {"type": "in-memory", "metadata": {}}},
            "pub_subs": stores("pubsub", consumerID="suite"),
            "file": {"files": {"type": "local", "metadata": {}}},
            "secret_store": {"vault": {"type": "local.file", "metadata": {"secretsFile": str(secrets)}}},
            "app": {"app_id": "suite", "grpc_callback_port": 0},
            "rpcs": {
                "mosn": {"config": {"channel": [{"size": 16, "protocol": "http", "listener": "egress_runtime_http"}]}}
            },
        }
        grpc = {"type": "grpc", "config": {"server_name": "runtime", "grpc_config": runtime}}
        proxy = {"downstream_protocol": "Http1", "upstream_protocol": "Http1", "router_config_name": "none"}
        egress = {**proxy, "name": "proxy_config", "router_config_name": "services"}
        match = {"headers": [{"name": "id", "value": SERVICE}]}
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


class LayottoProcess(Harness):
    """Clients of it."""

    name = "a real layotto"
    bad_etag = "999999999"
    event_metadata = False
    tells_expiry = False
    prefetch = 256

    def __init__(self, layotto: Layotto) -> None:
        self._layotto = layotto
        self._clients: list[CloudRuntimesClient] = []
        self._free = {kind: [f"{kind}-{number}" for number in range(STORES)] for kind in ("state", "lock", "pubsub")}
        redis_call(layotto.redis, "FLUSHALL")

    def store(self, kind: str = "store") -> str:
        names = {"configuration": "settings", "file": "files", "secret": "vault"}
        return names.get(kind) or self._free[kind].pop(0)

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        table = {"actuator": self._layotto.actuator, "file_roots": {"files": str(self._layotto.files)}}
        endpoint = f"grpc://127.0.0.1:{self._layotto.grpc}"
        client = CloudRuntimesClient(endpoint, runtime="layotto", config={"layotto": table}, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def layotto_process(folder: Path) -> Iterator[Layotto | None]:
    """Run it, where there is a Redis for it."""
    with redis_process(folder) as redis:
        if redis is None:
            yield None
            return
        made = Layotto(os.environ["LAYOTTO"], folder, redis)
        try:
            yield made
        finally:
            made.close()
