"""A due job whose handler no process has: one warning with the near match, and a history that says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_runtimes.schedule import _unhandled
from cloud_runtimes.testing import Api
from tests.support.entries import ENGINES, Entries, make_entries


@pytest.fixture(params=ENGINES)
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    made = make_entries(request, request.param, tmp_path)
    yield made
    made.harness.close()


def test_a_job_that_waits_for_a_handler(
    entries: Entries, api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    monkeypatch.setattr(_unhandled, "AFTER", 0.5)
    monkeypatch.setattr(_unhandled, "_EVERY", 0.1)
    other, schedule = entries.harness.client().schedule, entries.client.schedule
    rport = other.job("rport")(lambda: None)
    seen: list[str] = []
    schedule.job("report")(lambda data, run: seen.append(run.name))
    past = datetime.now(UTC) - timedelta(minutes=1)
    api.call(other, "schedule_job", "nightly", schedule="@daily", due_time=past, target=rport)
    api.call(other, "schedule_job", "later", schedule="@daily", target=rport)
    api.call(schedule, "schedule_job", "report", due_time=past)
    with api.opened(schedule.running()):
        assert api.until(lambda: bool(caplog.records))
        assert api.until(lambda: bool(seen))
        api.pause(0.5)
    (record,) = caplog.records
    assert "'nightly'" in record.getMessage()
    assert "'rport'; did you mean 'report'?" in record.getMessage()
    (run,) = api.call(schedule, "list_runs", "nightly")
    assert (run.status, run.error, run.attempt) == ("waiting", "no process has 'rport'", 0)
    assert abs(run.fire_time - past) < timedelta(milliseconds=1)
    assert api.call(schedule, "list_runs", "later") == []
    with api.opened(other.running()):
        assert api.until(lambda: [each.status for each in api.call(schedule, "list_runs", "nightly")] == ["succeeded"])
