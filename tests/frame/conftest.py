"""Clients over fakes, and over an embedded store of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError, UnsupportedError
from cloud_runtimes.spi import state as spi
from cloud_runtimes.spi.component import Runtime
from cloud_runtimes.spi.driver import Driver
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.state import StateDriver, StateWrite, StoredValue

STORED = StoredValue(b"1", "application/json", "e1", None)


class ScriptedState(StateDriver):
    """A fake that answers each call with the next of `script` (raised where it is an exception), then with a constant."""

    features = frozenset({spi.ETAG, spi.FIRST_WRITE, spi.TTL, spi.TRANSACTION, spi.TRANSACTION_ETAG, spi.FENCE})

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.operations: list[Operation] = []
        self.attempts: list[int] = []

    def _next(self, op: Operation, otherwise: Any) -> Any:
        self.operations.append(op)
        self.attempts.append(op.attempt)
        answer = self.script.pop(0) if self.script else otherwise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        stored: StoredValue | None = self._next(op, STORED)
        return stored

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self.get(op, key, consistency)

    def get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> dict[str, StoredValue]:
        values: dict[str, StoredValue] = self._next(op, dict.fromkeys(keys, STORED))
        return values

    async def get_bulk_async(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue]:
        return self.get_bulk(op, keys, consistency)

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        keys: list[str] = self._next(op, [])
        return keys

    async def list_keys_async(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return self.list_keys(op, prefix, limit, after)

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        failed: Mapping[int, CloudRuntimesError] = self._next(op, {})
        return failed

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        return self.write(op, writes, atomic)


class ScriptedRuntime(Runtime):
    """A fake, given ready made; `readiness` is raised by `ready` one after the other."""

    name = "scripted"

    def __init__(self) -> None:
        self.state = ScriptedState()
        self.readiness: list[Exception] = []
        self.closed: list[float | None] = []

    def driver(self, service: str, name: str) -> Driver:
        if service != "state":
            raise UnsupportedError(f"no {service}")
        return self.state

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}

    def ready(self) -> None:
        if self.readiness:
            raise self.readiness.pop(0)

    def close(self, timeout: float | None) -> None:
        self.closed.append(timeout)


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime()


@pytest.fixture
def scripted(runtime: ScriptedRuntime) -> Iterator[CloudRuntimesClient]:
    """A client over the scripted fake."""
    with CloudRuntimesClient(runtime=runtime, app_id="test") as instance:
        yield instance


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    """A client on an embedded store."""
    with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="test") as instance:
        yield instance


@pytest.fixture
def closing() -> Iterator[Callable[[CloudRuntimesClient], CloudRuntimesClient]]:
    """Have clients closed at the end."""
    clients: list[CloudRuntimesClient] = []

    def keep(client: CloudRuntimesClient) -> CloudRuntimesClient:
        clients.append(client)
        return client

    yield keep
    for client in clients:
        client.close()
