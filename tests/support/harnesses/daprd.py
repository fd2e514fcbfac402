"""The runtime dapr, over a real daprd: HTTP and gRPC."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar
from urllib.request import urlopen

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.runtimes.dapr.http_transport import HttpTransport
from cloud_runtimes.testing import SecretHarness
from cloud_runtimes.testing.suites import rpc_methods
from tests.support.daprd import Beneath, Daprd, component, redis_call
from tests.support.harnesses.clients import Clients
from tests.support.harnesses.rpc import HereRpc

MAX_MESSAGE = 64 << 20
_SOONER = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
end
return 'OK'
"""
"""Of Redis, whose clock nobody sets: what expires does so that much sooner."""


class DaprdHttp(Clients):
    """Clients of it over HTTP.

    Attributes:
        in_order: events of a topic come as they were published, one after another; else several are under way at once.
    """

    name = "daprd"
    address: ClassVar[str] = "http://127.0.0.1:{0.http}"
    bad_etag = "00000000-0000-0000-0000-0000000000aa"
    empty_settings = False
    event_metadata = False
    tells_dead = False
    raw_types = False
    applications = False
    refuses_rowless = True
    prefetch = 100
    bulk_order = False  # daprd publishes its events side by side
    in_order = True

    def __init__(self, daprd: Beneath) -> None:
        self.daprd = daprd
        self._databases = list(daprd.databases)
        self._in_redis: list[int] = []

    def store(self, kind: str = "store") -> str:
        if kind == "pubsub":
            return self.in_redis(kind, in_order=self.in_order)
        if kind in ("configuration", "lock"):
            return self.in_redis(kind)
        if kind == "file":
            return self.daprd.store("files")
        if kind == "database":
            if not self._databases:
                pytest.skip("there is no PostgreSQL")
            return self._emptied(self._databases.pop(0))
        return self.daprd.store("state")

    def in_redis(self, kind: str, *, in_order: bool = False) -> str:
        """Return a component's name that no other test has; its database is empty."""
        if self.daprd.redis is None:
            pytest.skip("there is no redis-server")
        name = self.daprd.store(kind, in_order=in_order)
        if kind != "pubsub":  # whose expiry is not Redis's
            self._in_redis.append(self.daprd.database_of(name))
        return name

    def _emptied(self, name: str) -> str:
        import psycopg

        with psycopg.connect(self.daprd.databases[name], autocommit=True) as connection:
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return name

    def configure(self, client: CloudRuntimesClient, store: str, values: Mapping[str, str | None]) -> None:
        """In Redis itself, since Dapr has no way to write."""
        saved = [word for key, value in values.items() if value is not None for word in (key, value)]
        deleted = [key for key, value in values.items() if value is None]
        for command in (["MSET", *saved], ["DEL", *deleted]):
            if len(command) > 1:
                assert self.daprd.redis is not None
                redis_call(self.daprd.redis, *command, database=self.daprd.database_of(store))

    def advance(self, seconds: float) -> None:
        if not self._in_redis:
            super().advance(seconds)
        for database in self._in_redis:
            assert self.daprd.redis is not None
            redis_call(self.daprd.redis, "EVAL", _SOONER, "0", str(int(seconds * 1000)), database=database)

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        config = {"dapr": {"max_message": MAX_MESSAGE}}
        return CloudRuntimesClient(self.address.format(self.daprd), config=config, **arguments)

    def close(self) -> None:
        super().close()
        if self.daprd.scheduler:
            with CloudRuntimesClient(f"grpc://127.0.0.1:{self.daprd.grpc}") as client:
                for job in client.schedule.list_jobs():
                    client.schedule.delete_job(job.name)


class DaprdGrpc(DaprdHttp):
    """Over gRPC."""

    name = "daprd over gRPC"
    address = "grpc://127.0.0.1:{0.grpc}"


DAPRD: dict[str, type[DaprdHttp]] = {harness.name: harness for harness in (DaprdHttp, DaprdGrpc)}


class InRedis(DaprdHttp):
    """State in Redis."""

    bad_etag = "999999999"
    tells_expiry = False

    def store(self, kind: str = "store") -> str:
        return self.in_redis("redis")


class InRedisGrpc(InRedis, DaprdGrpc):
    """State in Redis, over gRPC."""

    name = DaprdGrpc.name


IN_REDIS: dict[str, type[InRedis]] = {harness.name: harness for harness in (InRedis, InRedisGrpc)}


class DaprdPublishing(DaprdGrpc):
    """Publishing over HTTP: what is published there is subscribed to over gRPC."""

    name = "daprd, publishing over HTTP"

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        table = {"max_message": MAX_MESSAGE, "http_endpoint": f"http://127.0.0.1:{self.daprd.http}"}
        client = CloudRuntimesClient(self.address.format(self.daprd), config={"dapr": table}, **arguments)
        transport: Any = client._context.runtime().transport  # type: ignore[attr-defined]
        transport.publish_bulk = MethodType(HttpTransport.publish_bulk, transport)
        return client


PUBSUB: dict[str, type[DaprdHttp]] = {harness.name: harness for harness in (DaprdGrpc, DaprdPublishing)}


class DaprdRpc(HereRpc):
    """Methods of the application beside it, in this process; calls go by daprd, over HTTP."""

    name = "daprd"
    service = "suite"
    address: ClassVar[str] = DaprdHttp.address

    def __init__(self, daprd: Daprd, folder: Path) -> None:
        self._daprd = daprd
        super().__init__(folder)

    def _start(self) -> None:
        app = self.client(app_id=self.service)
        rpc_methods.register(app)
        self._serving = app.rpc.serving(port=self._daprd.port)
        self._serving.__enter__()

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        config = {"dapr": {"max_message": MAX_MESSAGE}}
        return CloudRuntimesClient(self.address.format(self._daprd), config=config, **arguments)

    def close(self) -> None:
        self._serving.__exit__(None, None, None)
        super().close()


class DaprdRpcGrpc(DaprdRpc):
    """Calls go by daprd over gRPC."""

    name = "daprd over gRPC"
    address = DaprdGrpc.address
    any_http_method = False


RPC: dict[str, type[DaprdRpc]] = {harness.name: harness for harness in (DaprdRpc, DaprdRpcGrpc)}


class Secrets(Daprd):
    """Instance of daprd with two file-based secret stores, which it reloads when their components change."""

    names = ("secret-1", "secret-2")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changes = 0
        super().__init__(os.environ["DAPRD"], folder, {name: self._written(name, {}) for name in self.names})

    def _written(self, name: str, secrets: Mapping[str, Any]) -> str:
        """Write the secrets of a store; returns its component."""
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(secrets), encoding="utf-8")
        self._changes += 1
        more = {"secretsFile": str(path), "multiValued": "true", "changes": str(self._changes)}
        return component(name, "secretstores.local.file", **more)

    def hold(self, name: str, secrets: Mapping[str, Any]) -> None:
        """Have a store hold secrets, and wait until it does."""
        text = self._written(name, secrets)
        (self.resources / "new").write_text(text, encoding="utf-8")
        (self.resources / "new").rename(self.resources / f"{name}.yaml")
        wanted = {key: value if isinstance(value, dict) else {key: value} for key, value in secrets.items()}
        end = time.monotonic() + 30
        while self._held(name) != wanted:
            assert time.monotonic() < end, f"{name} is not read anew"
            time.sleep(0.005)

    def _held(self, name: str) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{self.http}/v1.0/secrets/{name}/bulk", timeout=5) as answer:
                return json.loads(answer.read())
        except OSError:
            return None  # just now there is no such component


class DaprdSecrets(Clients, SecretHarness):
    """Clients of that one over HTTP."""

    name = "daprd"
    address: ClassVar[str] = DaprdHttp.address
    multiple = True
    keys = ("a_b", "a.b", "a b", "*", "%", "ключ", "a\tb")

    def __init__(self, daprd: Secrets) -> None:
        self._daprd = daprd
        self._stores: dict[str, dict[str, Any]] = {}
        for name in daprd.names:
            daprd.hold(name, {})

    def store(self, kind: str = "store") -> str:
        name = self._daprd.names[len(self._stores)]
        self._stores[name] = {}
        return name

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return CloudRuntimesClient(self.address.format(self._daprd), **arguments)

    def put(self, store: str, key: str, value: str) -> None:
        self._stores[store][key] = value
        self._daprd.hold(store, self._stores[store])

    def put_entries(self, store: str, key: str, entries: Mapping[str, str]) -> None:
        self._stores[store][key] = dict(entries)
        self._daprd.hold(store, self._stores[store])

    def remove(self, store: str, key: str) -> None:
        del self._stores[store][key]
        self._daprd.hold(store, self._stores[store])


class DaprdSecretsGrpc(DaprdSecrets):
    """Over gRPC."""

    name = "daprd over gRPC"
    address = DaprdGrpc.address


SECRETS: dict[str, type[DaprdSecrets]] = {harness.name: harness for harness in (DaprdSecrets, DaprdSecretsGrpc)}
