"""Background work reports each kind of failure once, backs off, and appears in the health check."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._service import Health
from cloud_runtimes.components.sqlite.member import Member
from cloud_runtimes.components.sqlite.schedule_runs import SqliteRuns
from cloud_runtimes.errors import (
    ClosedError,
    InternalError,
    InvalidArgumentError,
    PayloadError,
    PermissionDeniedError,
    UnavailableError,
)
from tests.support.waiting import until


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": str(home)}}) as app_client:
        yield app_client


class Failing:
    """Stands before a method and fails as told: a fake, named so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.error: Exception | None = None
        self.calls = 0
        inner = getattr(owner, method)

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.error is not None:
                raise self.error
            return inner(*arguments)

        monkeypatch.setattr(owner, method, call)


def status(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def doctor(home: Path) -> str:
    command = [sys.executable, "-m", "cloud_runtimes", "--app-id", "suite", "doctor"]
    environment = {**os.environ, "CLOUD_RUNTIMES_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.process
def test_the_health_check_says_what_does_not_work(
    client: CloudRuntimesClient, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    polls = Failing(monkeypatch, Member, "poll")
    seen: list[int] = []
    client.pubsub.subscribe("bus", "t", lambda event: seen.append(event.data))
    with client.rpc.serving() as server:
        client.pubsub.publish("bus", "t", 1)
        until(lambda: seen == [1])
        assert status(server.address) == (204, b"")
        polls.error = PermissionDeniedError("somebody has taken the rights away")
        client.pubsub.publish("bus", "t", 2)
        until(lambda: status(server.address) == (503, b'{"not_working":1}'))
        assert "workers         not working: a subscription" in doctor(home)
        polls.error = None
        until(lambda: seen == [1, 2])
        until(lambda: status(server.address)[0] == 204)
        assert "workers         working\n" in doctor(home)
    assert caplog.text.count("somebody has taken the rights away; trying again") == 1


def test_a_runner_backs_off(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Failing(monkeypatch, SqliteRuns, "exchange")
    ran = threading.Event()
    client.schedule.job("job")(ran.set)
    with client.schedule.running() as runner:
        until(lambda: exchange.calls)
        exchange.error = RuntimeError("no such table")
        before = exchange.calls
        time.sleep(1.0)
        assert exchange.calls - before < 12
        assert isinstance(runner.health.problem, InternalError)
        exchange.error = None
        client.schedule.schedule_job("job", due_time=0.0, target=ran.set)
        assert ran.wait(40)


def test_each_kind_of_failure_is_told(client: CloudRuntimesClient, caplog: pytest.LogCaptureFixture) -> None:
    handled: list[int] = []

    def handler(event: Any) -> None:
        handled.append(event.data)
        if event.data % 2:
            raise ValueError("odd")
        raise KeyError("even")

    client.pubsub.subscribe("bus", "t", handler, max_deliveries=1)
    client.pubsub.publish_bulk("bus", "t", [1, 2, 3, 4])
    until(lambda: len(handled) == 4)
    until(lambda: "events are lost, since the last delivery failed" in caplog.text)
    failures = [record.getMessage() for record in caplog.records if "the handler of" in record.getMessage()]
    assert len(failures) == 2
    assert {"KeyError('even')" in each for each in failures} == {True, False}


def test_pauses_grow_and_end() -> None:
    health = Health("a consumer", "pubsub")
    health.works()
    pauses = [health.failed(InternalError("odd")) or 0.0 for _ in range(14)]
    assert 0.02 < pauses[0] <= 0.05
    assert 15.0 <= pauses[-1] <= 30.0
    assert (health.failed(UnavailableError("away")) or 0.0) <= 2.0
    health.works()
    assert health.problem is None
    assert (health.failed(InternalError("odd")) or 1.0) <= 0.05


def test_what_ends_it() -> None:
    assert Health("a consumer", "pubsub").failed(InvalidArgumentError("no such group type")) is None
    assert Health("a consumer", "pubsub").failed(PayloadError("bad data")) is not None
    worked = Health("a consumer", "pubsub")
    worked.works()
    assert worked.failed(InvalidArgumentError("the SQL is wrong")) is not None
    assert worked.failed(ClosedError("this client is closed")) is None
