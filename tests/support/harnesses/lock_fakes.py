"""A fake lock store in the process, beside the real one: what a sidecar can do, which is no renewal, no token, no line. It proves the service's own waiting and the executor."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient, config
from cloud_runtimes._core.clocks import Clocks
from cloud_runtimes.client import SERVICES
from cloud_runtimes.errors import UnsupportedError
from cloud_runtimes.lock import UnlockStatus
from cloud_runtimes.spi.component import Runtime
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.spi.lock import Grant, LockDriver, LockRequest
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.testing import Clock
from tests.support.harnesses.clients import Clients


class DictLocks:
    """Locks in a dict: resource → owner, claim, deadline."""

    def __init__(self, clocks: Clocks) -> None:
        self.clocks = clocks
        self.mutex = threading.Lock()
        self.held: dict[str, tuple[str, str, int]] = {}

    def living(self, resource: str) -> tuple[str, str, int] | None:
        entry = self.held.get(resource)
        return entry if entry is not None and entry[2] > self.clocks.boot_ms() else None


class DictLock(LockDriver):  # type: ignore[misc]
    """Its async API comes from the executor."""

    def __init__(self, locks: DictLocks, executor: Executor) -> None:
        self._locks = locks
        self.executor = executor

    def acquire(self, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        assert not wait
        asked = request.now()
        with self._locks.mutex:
            if self._locks.living(request.resource_id) is not None:
                return None
            deadline = self._locks.clocks.boot_ms() + request.expiry_ms + 1
            self._locks.held[request.resource_id] = (request.owner, request.claim, deadline)
            return Grant(None, asked)

    def renew(self, op: Operation, request: LockRequest, /) -> bool:
        raise AssertionError("not declared, so never called")

    def release(self, op: Operation, request: LockRequest, /) -> bool:
        with self._locks.mutex:
            living = self._locks.living(request.resource_id)
            if living is None or living[1] != request.claim:
                return False
            del self._locks.held[request.resource_id]
            return True

    def unlock(self, op: Operation, resource_id: str, owner: str, /) -> UnlockStatus:
        with self._locks.mutex:
            living = self._locks.living(resource_id)
            if living is None:
                return UnlockStatus.NOT_FOUND
            if living[0] != owner:
                return UnlockStatus.NOT_OWNER
            del self._locks.held[resource_id]
            return UnlockStatus.SUCCESS


class DictLockRuntime(Runtime):
    """Hands the fake to the service."""

    name = "dict-locks"

    def __init__(self, stores: dict[str, DictLocks], clocks: Clocks) -> None:
        plain = config.load(
            None, services=SERVICES, endpoint=None, timeout=None, runtime=self.name, app_id="fake", api_token=None
        )
        super().__init__(plain, Executor())
        self._stores = stores
        self._clocks = clocks

    def driver(self, service: str, name: str) -> Any:
        if service != "lock":
            raise UnsupportedError(f"the runtime {self.name!r} has no {service}", service=service, runtime=self.name)
        return DictLock(self._stores.setdefault(name, DictLocks(self._clocks)), self.executor)

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}

    def ready(self) -> None:
        pass

    def close(self, timeout: float | None) -> None:
        self.executor.close(timeout)


class DictLockHarness(Clients):
    """Clients over the fake."""

    name = "dict in threads"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.clocks = Clock()
        self._stores: dict[str, DictLocks] = {}

    def make(self, **arguments: Any) -> CloudRuntimesClient:
        return CloudRuntimesClient(runtime=DictLockRuntime(self._stores, self.clocks), **arguments)

    def advance(self, seconds: float) -> None:
        self.clocks.ahead_ms += round(seconds * 1000)
