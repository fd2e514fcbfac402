"""Fakes of a state store with one API only, which prove the bridges."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient, config
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.client import SERVICES
from cloud_runtimes.errors import CloudRuntimesError, ConflictError, UnsupportedError
from cloud_runtimes.spi.component import Runtime
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.state import StateDriver, StateWrite, StoredValue
from cloud_runtimes.testing import Clock
from tests.support.harnesses.clients import Clients


class DictStore:
    """A fake: one store in a dict. What the two fake drivers have in common; knows of no API."""

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


class DictStateHarness(Clients):
    """A fake in the process whose driver has no async methods of its own."""

    name = "dict in threads"
    kind: ClassVar[type[Any]] = DictStateInThreads

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.clocks = Clock()
        self._stores: dict[str, DictStore] = {}

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return CloudRuntimesClient(runtime=DictStateRuntime(self.kind, self._stores, self.clocks), **arguments)

    def advance(self, seconds: float) -> None:
        self.clocks.ahead_ms += round(seconds * 1000)


# not among the harnesses that docs/features.toml pins: what it proves is the threads of the default, not a component
FAKE_STATE = {DictStateHarness.name: DictStateHarness}
