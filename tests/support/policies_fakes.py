"""A fake whose answers and time a test decides, and one that has no choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.client import SERVICES
from cloud_runtimes.errors import CloudRuntimesError, UnsupportedError
from cloud_runtimes.resiliency.interceptor import PolicyInterceptor
from cloud_runtimes.resiliency.policies import Resiliency
from cloud_runtimes.resiliency.settings import load
from cloud_runtimes.spi import rpc as rpc_spi
from cloud_runtimes.spi import state as state_spi
from cloud_runtimes.spi.component import Runtime
from cloud_runtimes.spi.driver import Driver
from cloud_runtimes.spi.executor import Executor
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.spi.rpc import RpcCall, RpcDriver, RpcReply
from cloud_runtimes.spi.state import StateDriver, StateWrite, StoredValue

STORED = StoredValue(b"1", "application/json", "e1", None)


class Clock:
    """Time that passes when somebody sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Answers:
    """Scripted driver answers: first `script`, then `always`; exceptions are raised, functions get the operation."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.always: Any = None
        self.operations: list[Operation] = []

    def give(self, op: Operation, otherwise: Any) -> Any:
        self.operations.append(op)
        answer = self.script.pop(0) if self.script else self.always
        if callable(answer):
            answer = answer(op)
        if isinstance(answer, BaseException):
            raise answer
        return otherwise if answer is None else answer


CONSTANT = StoredValue(b"\x00", "application/octet-stream", None, None)


class ConstantState(StateDriver):
    """A store that has the answer: what is left is what a call itself costs."""

    def __init__(self, *_: Any) -> None: ...

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return CONSTANT

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return CONSTANT

    def get_bulk(self, op: Operation, keys: Sequence[str], consistency: str | None, /) -> dict[str, StoredValue]:
        return {}

    async def get_bulk_async(
        self, op: Operation, keys: Sequence[str], consistency: str | None, /
    ) -> dict[str, StoredValue]:
        return {}

    def list_keys(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return []

    async def list_keys_async(self, op: Operation, prefix: str, limit: int | None, after: str | None, /) -> list[str]:
        return []

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        return {}

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        return {}


class FakeState(ConstantState):
    """A store that answers as a test says."""

    features = frozenset({state_spi.ETAG, state_spi.FIRST_WRITE})

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def get(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        stored: StoredValue | None = self._answers.give(op, STORED)
        return stored

    async def get_async(self, op: Operation, key: str, consistency: str | None, /) -> StoredValue | None:
        return self.get(op, key, consistency)

    def write(self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /) -> Mapping[int, CloudRuntimesError]:
        failed: Mapping[int, CloudRuntimesError] = self._answers.give(op, {})
        return failed

    async def write_async(
        self, op: Operation, writes: Sequence[StateWrite], atomic: bool, /
    ) -> Mapping[int, CloudRuntimesError]:
        return self.write(op, writes, atomic)


class FakeRpc(RpcDriver):
    features = frozenset({rpc_spi.STATUS, rpc_spi.HEADERS, rpc_spi.HTTP_METHOD})

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        reply: RpcReply = self._answers.give(op, RpcReply(200, {}, "application/json", b"1"))
        return reply

    async def invoke_async(self, op: Operation, call: RpcCall, /) -> RpcReply:
        return self.invoke(op, call)

    def announce(self, *_: Any) -> Any:
        raise UnsupportedError("it serves nothing")

    async def announce_async(self, *_: Any) -> Any:
        raise UnsupportedError("it serves nothing")

    def guard(self, *_: Any) -> Any:
        raise UnsupportedError("it serves nothing")

    async def guard_async(self, *_: Any) -> Any:
        raise UnsupportedError("it serves nothing")


class Fake(Runtime):
    """A fake runtime with state and RPC."""

    name = "fake"

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.executor = Executor()

    def attach(self, *_: Any) -> None: ...

    def driver(self, service: str, name: str) -> Driver:
        kinds: dict[str, Any] = {"state": FakeState, "rpc": FakeRpc}
        if service not in kinds:
            raise UnsupportedError(f"no {service}")
        fake: Driver = kinds[service](self._answers)
        return fake

    def declared(self) -> Mapping[tuple[str, str], str]:
        return {}

    def ready(self) -> None: ...

    def close(self, timeout: float | None) -> None:
        self.executor.close(timeout)


def no_file(path: str, where: str) -> Resiliency:
    """Read no documents."""
    raise AssertionError(f"{where}: {path}")


def under(client: CloudRuntimesClient, targets: Mapping[str, Any], now: Callable[[], float]) -> PolicyInterceptor:
    """Put a client under policies whose time is the test's."""
    client._context.policies = PolicyInterceptor(load({"targets": targets}, "the test", SERVICES, no_file), now)
    return client._context.policies
