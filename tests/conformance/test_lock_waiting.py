"""Waiting for a store without a line: no try is cut off by the end of the wait, since it might take the lock for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import DeadlineExceededError
from cloud_runtimes.spi.lock import Grant, LockRequest
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.testing.apis import Api
from tests.support.harnesses.lock_fakes import DictLock, DictLockHarness

Acquire = Callable[[DictLock, Operation, LockRequest, bool], Grant | None]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CloudRuntimesClient]:
    harness = DictLockHarness(monkeypatch, tmp_path)
    yield harness.client(timeout=20)
    harness.close()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each try of the store had."""
    seen: list[float] = []
    plain: Acquire = DictLock.acquire

    def acquire(driver: DictLock, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        assert op.timeout is not None
        seen.append(op.timeout)
        return plain(driver, op, request, wait)

    monkeypatch.setattr(DictLock, "acquire", acquire)
    return seen


def hold(client: CloudRuntimesClient, api: Api, wait: float, timeout: float | None = None) -> None:
    options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    with api.opened(client.lock.hold("locks", "r", wait=wait, **options)):
        pass


def test_each_try_has_a_second_and_the_last_comes_at_the_end(
    client: CloudRuntimesClient, api: Api, limits: list[float]
) -> None:
    lease = client.lock.try_lock("locks", "r")
    assert lease is not None
    limits.clear()
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"'r' of 'locks' was not free within 0\.1 s") as caught:
        hold(client, api, wait=0.1)
    assert time.monotonic() - begun >= 0.1
    assert not caught.value.maybe_applied
    assert len(limits) > 1
    assert set(limits) == {1.0}


def test_a_try_has_no_longer_than_the_wait_and_the_timeout(
    client: CloudRuntimesClient, api: Api, limits: list[float]
) -> None:
    hold(client, api, wait=7)
    hold(client, api, wait=50)
    hold(client, api, wait=50, timeout=0.5)
    assert limits == [pytest.approx(7, abs=1), 20, 0.5]


def test_a_slow_store_gives_the_lock_after_the_wait(
    client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Acquire = DictLock.acquire

    def acquire(driver: DictLock, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        time.sleep(0.2)
        return plain(driver, op, request, wait)

    monkeypatch.setattr(DictLock, "acquire", acquire)
    hold(client, api, wait=0.05)


@pytest.mark.parametrize(("timeout", "remedy"), [(None, "give a longer wait="), (0.2, "give a longer timeout=")])
def test_a_store_that_does_not_answer(
    client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch, timeout: float | None, remedy: str
) -> None:
    def acquire(driver: DictLock, op: Operation, request: LockRequest, wait: bool, /) -> Grant | None:
        raise op.timed_out("an answer", maybe_applied=True)

    monkeypatch.setattr(DictLock, "acquire", acquire)
    with pytest.raises(DeadlineExceededError, match=remedy) as caught:
        hold(client, api, wait=0.1, timeout=timeout)
    assert caught.value.maybe_applied
