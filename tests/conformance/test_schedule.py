"""The schedule suite on every harness of the table; and what is refused where, as over Dapr, there are neither policies nor history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harnesses import HARNESSES, MemoryHarness

from cloud_runtimes.components.sqlite.schedule import SqliteSchedule
from cloud_runtimes.testing import AsyncFace, Harness, ScheduleSuite, SyncFace


class TestSchedule(ScheduleSuite):
    @pytest.fixture(params=sorted(HARNESSES))
    def harness(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Harness]:
        harness: Harness = HARNESSES[request.param](monkeypatch, tmp_path)
        yield harness
        harness.close()


@pytest.mark.parametrize("face", [SyncFace, AsyncFace])
@pytest.mark.parametrize(
    ("feature", "method", "arguments"),
    [
        ("schedule.run_now", "run_now", {}),
        ("schedule.list_runs", "list_runs", {}),
        ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "skip"}),
        ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "all"}),
    ],
)
def test_a_driver_that_declares_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    face: type[SyncFace] | type[AsyncFace],
    feature: str,
    method: str,
    arguments: dict[str, str],
) -> None:
    monkeypatch.setattr(SqliteSchedule, "features", frozenset())
    harness, made = MemoryHarness(monkeypatch, tmp_path), face()
    client = harness.client()
    assert ScheduleSuite.lacks(client, feature, "default")
    ScheduleSuite().test_undeclared(client, made, "default", feature, method, arguments)
    assert client.schedule.list_jobs() == []
    made.close()
    harness.close()
