"""The schedule suite on every harness of the table; and what is refused where, as over Dapr, there are neither policies nor history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_runtimes.components.sqlite.schedule import SqliteSchedule
from cloud_runtimes.testing import Api, ScheduleSuite
from cloud_runtimes.testing.suites._base import Call
from cloud_runtimes.testing.suites.schedule import OPTIONAL
from tests.support.harnesses.dapr_jobs import DAPR_JOBS, Jobs
from tests.support.harnesses.embedded import HARNESSES, MemoryHarness
from tests.support.harnesses.etcd import EtcdClock
from tests.support.harnesses.nats import NatsClock
from tests.support.harnesses.postgres import POSTGRES_JOBS
from tests.support.harnesses.redis import VALKEY
from tests.support.harnesses.rows import rows


@pytest.fixture(scope="module")
def beside_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """A sidecar of ours with an application, for all tests of this module."""
    harness = Jobs(tmp_path_factory.mktemp("jobs"))
    yield harness
    harness.close()


@pytest.fixture
def jobs(beside_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """The sidecar beside, with the client under test as its application."""
    monkeypatch.setenv("APP_PORT", str(beside_jobs.port))
    return beside_jobs


class TestSchedule(ScheduleSuite):
    harness = rows(
        HARNESSES,
        second=(MemoryHarness.name,),
        short=(
            ScheduleSuite.test_store_get_list_delete,
            ScheduleSuite.test_every_argument_is_kept,
            ScheduleSuite.test_applications_are_apart,
            ScheduleSuite.test_once,
            ScheduleSuite.test_several_share,
            ScheduleSuite.test_a_jobs_runs_follow_one_another,
            ScheduleSuite.test_run_now,
            ScheduleSuite.test_missed_once,
            ScheduleSuite.test_retry,
        ),
        jobs=DAPR_JOBS,
        etcd_server={EtcdClock.name: EtcdClock},
        nats_server={NatsClock.name: NatsClock},
        postgres_url=POSTGRES_JOBS,
        valkey_server=VALKEY,
    )


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
