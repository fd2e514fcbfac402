"""The schedule suite on every harness of the table; and what is refused where, as over Dapr, there are neither policies nor history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.components.sqlite.schedule import SqliteSchedule
from cloud_runtimes.testing import Api, Harness, ScheduleSuite
from cloud_runtimes.testing.suites._base import Call
from cloud_runtimes.testing.suites.schedule import OPTIONAL
from tests.support.harnesses.dapr_jobs import DAPR_JOBS, Jobs
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.etcd import ETCD, EtcdClock
from tests.support.harnesses.nats import NATS, NatsClock
from tests.support.harnesses.postgres import POSTGRES_JOBS
from tests.support.harnesses.redis import VALKEY


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """A sidecar of ours with an application, for all tests of this module."""
    made = Jobs(tmp_path_factory.mktemp("jobs"))
    yield made
    made.close()


class TestSchedule(ScheduleSuite):
    @pytest.fixture(params=sorted({**HARNESSES, **DAPR_JOBS, **ETCD, **NATS, **POSTGRES_JOBS, **VALKEY}))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness
        if request.param in DAPR_JOBS:
            made: Jobs = request.getfixturevalue("jobs")
            monkeypatch.setenv("APP_PORT", str(made.port))
            harness = DAPR_JOBS[request.param](made)
        elif request.param == EtcdClock.name:
            harness = EtcdClock(request.getfixturevalue("etcd_server"))
        elif request.param == NatsClock.name:
            harness = NatsClock(request.getfixturevalue("nats_server"))
        elif request.param in POSTGRES_JOBS:
            harness = POSTGRES_JOBS[request.param](request.getfixturevalue("postgres_url"))
        elif request.param in VALKEY:
            harness = VALKEY[request.param](request.getfixturevalue("valkey_server"))
        else:
            harness = HARNESSES[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()


def test_a_driver_that_declares_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: Api, subtests: pytest.Subtests
) -> None:
    monkeypatch.setattr(SqliteSchedule, "features", frozenset())
    harness = MemoryHarness(monkeypatch, tmp_path)
    call = Call(api, harness.client(), "schedule")
    assert all(call.lacks(feature) for feature, _, _ in OPTIONAL)
    ScheduleSuite().test_undeclared(call, subtests)
    monkeypatch.undo()
    assert harness.client().schedule.list_jobs() == []
    harness.close()
