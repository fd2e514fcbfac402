"""Clients under policies, over a fake."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.resiliency import interceptor
from cloud_runtimes.spi import operation
from tests.support.policies_fakes import Answers, Clock, Fake, under


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of operations, policies and waits."""
    fake_clock = Clock()

    async def sleep(seconds: float) -> None:
        fake_clock.sleep(seconds)

    monkeypatch.setattr(operation, "monotonic", fake_clock)
    monkeypatch.setattr(interceptor, "time", types.SimpleNamespace(sleep=fake_clock.sleep))
    monkeypatch.setattr(interceptor, "asyncio", types.SimpleNamespace(sleep=sleep))
    return fake_clock


@pytest.fixture
def ruled(answers: Answers, clock: Clock) -> Iterator[Callable[..., CloudRuntimesClient]]:
    """Make clients over the fake: ``ruled({"state.orders": {…}})``."""
    opened: list[CloudRuntimesClient] = []

    def make(targets: Mapping[str, Any]) -> CloudRuntimesClient:
        client = CloudRuntimesClient(runtime=Fake(answers), app_id="test", config={"resiliency": {"targets": targets}})
        under(client, targets, clock)
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()
