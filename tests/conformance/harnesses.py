"""The harness table: every runtime and component of ours that the suites run on."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from cloud_runtimes import CloudRuntimesClient, config, registry
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.client import SERVICES
from cloud_runtimes.components.sqlite import SqliteComponent
from cloud_runtimes.errors import CloudRuntimesError, ConflictError, UnsupportedError
from cloud_runtimes.spi.component import Runtime
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.state import StateDriver, StateWrite, StoredValue
from cloud_runtimes.testing import Harness, RpcHarness
from cloud_runtimes.testing.suites import rpc_methods

_numbers = itertools.count()


class ShiftedClocks(Clocks):
    """The real clocks, some time ahead."""

    __slots__ = ("ahead_ms",)

    def __init__(self) -> None:
        self.ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms

    def boot_ms(self) -> int:
        return super().boot_ms() + self.ahead_ms


class SqliteHarness(Harness):
    """SQLite in a file."""

    name = "sqlite"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.home = self._home(folder)
        self.clocks = ShiftedClocks()
        self._clients: list[CloudRuntimesClient] = []
        # the real component, with a clock that can be set forward
        clocked = type("ClockedSqlite", (SqliteComponent,), {"clocks": self.clocks})
        monkeypatch.setitem(registry._found, (registry.COMPONENTS, "sqlite"), clocked)

    def _home(self, folder: Path) -> str:
        return str(folder / "home")

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(config={"capa": {"home": self.home}}, **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        self.clocks.ahead_ms += round(seconds * 1000)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class MemoryHarness(SqliteHarness):
    """SQLite in the process."""

    name = "sqlite :memory:"

    def _home(self, folder: Path) -> str:
        return f":memory:suite-{next(_numbers)}"


class UrlHarness(Harness):
    """A database by its URL; two store names are declared."""

    stores: ClassVar[tuple[str, ...]] = ("first", "second")

    def __init__(self, urls: Sequence[str]) -> None:
        tables = {name: {"component": "sqlalchemy", "url": url} for name, url in zip(self.stores, urls, strict=True)}
        self._config = {"database": tables}
        self._free = list(self.stores)
        self._clients: list[CloudRuntimesClient] = []

    def store(self, kind: str = "store") -> str:
        return self._free.pop(0)

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        client = CloudRuntimesClient(config=self._config, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


class AiosqliteHarness(UrlHarness):
    """SQLite in a file, by an async driver."""

    name = "sqlite+aiosqlite"

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        pytest.importorskip("aiosqlite")
        super().__init__([f"sqlite+aiosqlite:///{folder / name}.db" for name in self.stores])


class PostgresHarness(UrlHarness):
    """PostgreSQL, by psycopg in both faces."""

    name = "postgresql"
    driver: ClassVar[str] = "psycopg"

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        psycopg = pytest.importorskip("psycopg")
        pytest.importorskip(self.driver)
        url: str = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in {*self.stores} - there:
                connection.execute(f"CREATE DATABASE {name}")
        urls = [url.rpartition("/")[0] + f"/{name}" for name in self.stores]
        for each in urls:
            with psycopg.connect(each, autocommit=True) as connection:
                # a lock that a test before left behind fails here
                connection.execute("SET lock_timeout = '10s'")
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
        super().__init__([each.replace("postgresql", self._scheme(), 1) for each in urls])

    def _scheme(self) -> str:
        return "postgresql+psycopg"


class AsyncpgHarness(PostgresHarness):
    """PostgreSQL, by an async driver."""

    name = "postgresql+asyncpg"
    driver = "asyncpg"

    def _scheme(self) -> str:
        return "postgresql+asyncpg"


# databases beside the embedded default, which is in HARNESSES
DATABASES: dict[str, type[Any]] = {
    harness.name: harness for harness in (AiosqliteHarness, AsyncpgHarness, PostgresHarness)
}

HARNESSES = {harness.name: harness for harness in (SqliteHarness, MemoryHarness)}


class HereRpc(RpcHarness):
    """Methods in the caller's own process."""

    name = "in the process"
    service = "here"

    def __init__(self, folder: Path) -> None:
        self.home = str(folder / "home")
        self._clients: list[CloudRuntimesClient] = []
        self._start()

    def _start(self) -> None:
        rpc_methods.register(self.client(app_id=self.service))

    def config(self) -> dict[str, Any]:
        return {"capa": {"home": self.home}}

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(config=self.config(), **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


class RegistryRpc(HereRpc):
    """Methods in another process with the same home; nothing is configured."""

    name = "another process, by the registry"
    service = "there"
    token = ""

    def _start(self) -> None:
        program = "from cloud_runtimes.testing.suites.rpc_methods import main; main()"
        command = [sys.executable, "-W", "error", "-c", program]
        self._process = subprocess.Popen(
            [*command, self.server_home(), self.service, self.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:")

    def server_home(self) -> str:
        return self.home

    def close(self) -> None:
        super().close()
        try:
            self._process.communicate("", timeout=20)
        finally:
            self._process.kill()
        assert self._process.returncode == 0


class ConfiguredRpc(RegistryRpc):
    """Methods in another process with a home of its own, at a configured address; the first address answers nobody."""

    name = "another process, by configuration"
    token = "a token of sixteen and more characters"

    def server_home(self) -> str:
        return f"{self.home}-of-the-other"

    def config(self) -> dict[str, Any]:
        addresses = ["http://127.0.0.1:1", self.address]
        return {**super().config(), "rpc": {self.service: {"address": addresses, "token": self.token}}}


RPC = {harness.name: harness for harness in (HereRpc, RegistryRpc, ConfiguredRpc)}


class DictStore:
    """A fake: one store in a dict. What the two fake drivers have in common; knows of no face."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._lock = threading.Lock()
        self._values: dict[str, StoredValue] = {}
        self._version = itertools.count(1)

    def _living(self, key: str) -> StoredValue | None:
        stored = self._values.get(key)
        if stored is not None and stored.expires_ms is not None and stored.expires_ms <= self._clocks.wall_ms():
            return None
        return stored

    def read(self, keys: Sequence[str]) -> dict[str, StoredValue]:
        with self._lock:
            return {key: stored for key in keys if (stored := self._living(key)) is not None}

    def keys(self, prefix: str, limit: int | None, after: str | None) -> list[str]:
        with self._lock:
            living = [key for key in self._values if self._living(key) is not None and key.startswith(prefix)]
        living = [key for key in living if after is None or key.encode() > after.encode()]
        return sorted(living, key=str.encode)[:limit]

    def write(self, writes: Sequence[StateWrite], atomic: bool) -> Mapping[int, CloudRuntimesError]:
        failed: dict[int, CloudRuntimesError] = {}
        with self._lock:
            before = dict(self._values)
            for index, write in enumerate(writes):
                try:
                    self._apply(write)
                except ConflictError as error:
                    if atomic:
                        self._values = before
                        raise
                    failed[index] = error
        return failed

    def _apply(self, write: StateWrite) -> None:
        current = self._living(write.key)
        if write.etag is not None and (current is None or current.etag != write.etag):
            raise ConflictError(f"key {write.key!r}: the etag is not its current one")
        if write.create and current is not None:
            raise ConflictError(f"key {write.key!r} exists")
        if write.data is None:
            self._values.pop(write.key, None)
            return
        expires = None if write.ttl_ms is None else self._clocks.wall_ms() + write.ttl_ms
        # memoryview and bytearray come too, and may be changed by the caller afterwards
        self._values[write.key] = StoredValue(bytes(write.data), write.content_type, f"v{next(self._version)}", expires)


_DICT_FEATURES = frozenset({"etag", "first_write", "ttl", "transaction", "transaction_etag", "list_keys"})


class DictStateInThreads(StateDriver):
    """A fake without async methods of its own."""

    features = _DICT_FEATURES

    def __init__(self, store: DictStore, executor: Executor) -> None:
        self.store = store
        self.executor = executor

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self.store.read([key]).get(key)

    def get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> dict[str, StoredValue]:
        return self.store.read(keys)

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return self.store.keys(prefix, limit, after)

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        return self.store.write(writes, atomic)


class DictStateRuntime(Runtime):
    """A fake runtime that has state only: an object passed as ``CloudRuntimesClient(runtime=…)``, with an executor of its own."""

    name = "dict"

    def __init__(self, kind: type[Any], stores: dict[str, DictStore], clocks: Clocks) -> None:
        plain = config.load(
            None, services=SERVICES, endpoint=None, timeout=None, runtime=self.name, app_id="fake", api_token=None
        )
        super().__init__(plain, Executor())
        self._kind = kind
        self._stores = stores
        self._clocks = clocks

    def driver(self, service: str, name: str) -> Any:
        if service != "state":
            raise UnsupportedError(f"the runtime {self.name!r} has no {service}", service=service, runtime=self.name)
        return self._kind(self._stores.setdefault(name, DictStore(self._clocks)), self.executor)

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}

    def ready(self) -> None:
        pass

    def close(self, timeout: float | None) -> None:
        self.executor.close(timeout)


class DictStateHarness(Harness):
    """A fake in the process whose driver has no async methods of its own."""

    name = "dict in threads"
    kind: ClassVar[type[Any]] = DictStateInThreads

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.clocks = ShiftedClocks()
        self._stores: dict[str, DictStore] = {}
        self._clients: list[CloudRuntimesClient] = []

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        client = CloudRuntimesClient(runtime=DictStateRuntime(self.kind, self._stores, self.clocks), **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        self.clocks.ahead_ms += round(seconds * 1000)

    def close(self) -> None:
        for client in self._clients:
            client.close()


# not in HARNESSES, which docs/features.toml pins: what it proves is the threads of the default, not a component
FAKE_STATE = {DictStateHarness.name: DictStateHarness}


class FileHarness(Harness):
    """A watched file per store, which the test writes as its owner would: whole, beside it, and renamed over it."""

    suffix: ClassVar[str]
    watch: ClassVar[str] = "poll"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._clients: list[CloudRuntimesClient] = []
        # the configuration declares them all before the first call
        self._names = [f"configuration-{next(_numbers)}" for _ in range(3)]
        self._unused = iter(self._names)
        self._folder = folder
        self._values: dict[str, dict[str, str]] = {name: {} for name in self._names}
        for name in self._names:
            self._write(name)

    def _path(self, store: str) -> Path:
        return self._folder / f"{store}{self.suffix}"

    def text(self, values: Mapping[str, str]) -> str:
        raise NotImplementedError

    def _write(self, store: str) -> None:
        beside = self._folder / "beside"
        beside.write_text(self.text(self._values[store]), encoding="utf-8")
        beside.replace(self._path(store))

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        # with notices it hardly ever looks by itself, so that they are what is tested
        interval = "20ms" if self.watch == "poll" else "10s"
        tables = {
            name: {
                "component": "config_file",
                "path": str(self._path(name)),
                "watch": self.watch,
                "poll_interval": interval,
            }
            for name in self._names
        }
        client = CloudRuntimesClient(config={"configuration": tables}, **arguments)
        self._clients.append(client)
        return client

    def store(self, kind: str = "store") -> str:
        return next(self._unused)

    def configure(self, client: CloudRuntimesClient, store: str, values: Mapping[str, str | None]) -> None:
        held = self._values[store]
        for key, value in values.items():
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        self._write(store)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class JsonFileHarness(FileHarness):
    """JSON, flat."""

    name = "file json"
    suffix = ".json"

    def text(self, values: Mapping[str, str]) -> str:
        return json.dumps(values)


class YamlFileHarness(FileHarness):
    """YAML, flat."""

    name = "file yaml"
    suffix = ".yaml"

    def text(self, values: Mapping[str, str]) -> str:
        return yaml.safe_dump(dict(values), allow_unicode=True)


class TomlFileHarness(FileHarness):
    """TOML, in nested tables, followed by notices."""

    name = "file toml notices"
    suffix = ".toml"
    watch = "watchfiles"

    def text(self, values: Mapping[str, str]) -> str:
        # JSON's escapes are TOML's too; a comment, since an empty file counts as unfinished
        lines = ["# values\n"]
        for key, value in values.items():
            parts = key.split(".")
            lines.append(f"{'.'.join(json.dumps(part) for part in parts)} = {json.dumps(value, ensure_ascii=False)}\n")
        return "".join(lines)


# for configuration only: each format once, and both ways to notice a change
FILES = {harness.name: harness for harness in (JsonFileHarness, TomlFileHarness, YamlFileHarness)}
