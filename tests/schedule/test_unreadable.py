"""Jobs that this process cannot read, or cannot move on: each is named once, and none stops another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes.components import _jobs
from cloud_runtimes.errors import AlreadyExistsError, InvalidArgumentError, PayloadError
from cloud_runtimes.schedule import times
from cloud_runtimes.testing import Api
from tests.support.entries import ENGINES, Entries, make_entries

RUN = b'{"id": 1, "job": 1, "run": "r", "fire": 0, "last": 0, "count": 1, "attempt": "1"}'
ODD = (
    b"",
    b"{}",
    b"\xff\xfe{",
    b"[1, 2]",
    b'{"job": 7, "target": 3, "failure": "drop"}',
    b"[" * 100_000,
    b'{"job": null, "runs": [' + RUN + b'], "last": 0, "noted": 0}',
)


@pytest.fixture(params=ENGINES)
def entries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Entries]:
    made = make_entries(request, request.param, tmp_path)
    yield made
    made.harness.close()


@pytest.fixture
def about(caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """Count the warnings that name something."""
    caplog.set_level(logging.WARNING, "cloud_runtimes")
    return lambda name: sum(repr(name) in record.getMessage() for record in caplog.records)


def test_an_entry_that_cannot_be_read(
    entries: Entries, api: Api, about: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, seen = entries.client.schedule, []
    read, reads = _jobs.read_spec, []
    schedule.job("good")(lambda data: seen.append("good"))
    schedule.job("odd")(lambda data: seen.append(data))
    for number, data in enumerate(ODD):
        api.call(schedule, "schedule_job", f"odd{number}", due_time=0, target=schedule._handlers["odd"].function)
        entries.job(f"odd{number}", data)
    api.call(schedule, "schedule_job", "good", schedule="@every 50ms", due_time=0)
    monkeypatch.setattr(_jobs, "read_spec", lambda *row: reads.append(row[0]) or read(*row))  # type: ignore[func-returns-value]

    with api.opened(schedule.running()):
        assert api.until(lambda: len(seen) > 4), "the others run"
        reads.clear()
        api.pause(0.5)
        assert reads.count("odd1") <= 2, "it is not read again and again"
        jobs = {job.name: job for job in api.call(schedule, "list_jobs")}
        assert sorted(jobs) == sorted(["good", *(f"odd{number}" for number in range(len(ODD)))])
        for number in range(len(ODD)):
            name = f"odd{number}"
            assert jobs[name].error, f"{name} is listed as unreadable"
            assert about(name) == 1, "it is named once"
            error = api.fails(PayloadError, match=name)(schedule, "get_job", name)
            assert "overwrite=True" in str(error)
            api.fails(AlreadyExistsError)(schedule, "schedule_job", name, due_time=0)
        assert jobs["good"].error is None
        handler = schedule._handlers["odd"].function
        api.call(schedule, "schedule_job", "odd0", due_time=0, data="mended", target=handler, overwrite=True)
        assert api.until(lambda: "mended" in seen), "overwrite=True replaces it"
        for number in range(1, len(ODD)):
            api.call(schedule, "delete_job", f"odd{number}")
        assert [job.name for job in api.call(schedule, "list_jobs") if job.error] == []


def test_a_time_zone_that_this_machine_does_not_know(
    entries: Entries, api: Api, about: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without tzdata. Its jobs wait for another process, or for a later look."""
    schedule, seen = entries.client.schedule, []
    for name in ("zoned", "good"):
        schedule.job(name)(lambda data, run: seen.append(run.name))
    api.call(schedule, "schedule_job", "zoned", schedule="* * * * * *", timezone="Europe/Paris")
    api.call(schedule, "schedule_job", "good", schedule="@every 50ms", due_time=0)
    asked: list[str] = []
    find = times.find_zone

    def unknown(name: str) -> Any:
        if name == "UTC":
            return find(name)
        asked.append(name)
        raise InvalidArgumentError(f"timezone {name!r} is not known here")

    with monkeypatch.context() as patched:
        patched.setattr(times, "find_zone", unknown)
        times.occurrences.cache_clear()
        with api.opened(schedule.running()) as runner:
            assert api.until(lambda: about("zoned") == 1), "it is due, and named"
            asked.clear()
            before = len(seen)
            assert api.until(lambda: len(seen) > before + 4), "the others run"
            assert len(asked) <= 1, "it is not tried again and again"
            assert about("zoned") == 1, "it is named once"
            assert {job.name: job.error for job in api.call(schedule, "list_jobs")} == {"zoned": None, "good": None}
            assert set(seen) == {"good"}
            patched.undo()
            runner._source._aside_until = 0.0  # a minute later
            assert api.until(lambda: "zoned" in seen), "known by now, it runs"
            assert runner.error is None


def test_a_record_that_cannot_be_read(entries: Entries, api: Api, about: Callable[[str], int]) -> None:
    schedule, seen = entries.client.schedule, []
    schedule.job("j")(lambda data: seen.append(data))
    for _ in range(2):
        api.call(schedule, "schedule_job", "j", due_time=0)
        with api.opened(schedule.running()):
            assert api.until(lambda: not api.call(schedule, "list_jobs"))
        if len(seen) == 1:
            entries.history("j")
    assert [record.status for record in api.call(schedule, "list_runs", "j")] == ["succeeded"]
    assert about("j") == 1
