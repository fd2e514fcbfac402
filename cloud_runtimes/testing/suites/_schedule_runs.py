"""Conformance of a `ScheduleDriver`: runs that are late or fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import NotFoundError
from ...schedule import JobRun, Retry, RunRecord
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite

HOUR = 3600.0


class Runs:
    """A handler of a job, for either API, that notes what it is given."""

    def __init__(self, call: Call, api: Api, name: str = "j", **options: Any) -> None:
        self.seen: list[tuple[Any, JobRun]] = []
        self.fails = 0
        self.hold: threading.Event | None = None

        def note(data: Any, run: JobRun) -> None:
            self.seen.append((data, run))
            if self.fails:
                self.fails -= 1
                raise ValueError(f"attempt {run.attempt}")

        async def note_async(data: Any, run: JobRun) -> None:
            await asyncio.sleep(0)
            note(data, run)
            while self.hold is not None and not self.hold.is_set():
                await asyncio.sleep(0.002)

        def note_plain(data: Any, run: JobRun) -> None:
            note(data, run)
            assert self.hold is None or self.hold.wait(120)

        self.function: Callable[..., Any] = note_plain if api.name == "sync" else note_async
        call.plain("job", name, **options)(self.function)

    @property
    def ids(self) -> list[str]:
        return [run.run_id for _, run in self.seen]

    @property
    def fires(self) -> list[datetime]:
        return [run.fire_time for _, run in self.seen]


def gone(call: Call, name: str = "j") -> bool:
    """Return whether there is no such job."""
    try:
        call("get_job", name)
    except NotFoundError:
        return True
    return False


def states(call: Call, name: str = "j") -> list[str]:
    """Return how the runs of a job stand."""
    return [each.status for each in call("list_runs", name)]


class PolicyTests(Suite):
    """Misfire and failure policies."""

    service = "schedule"

    @pytest.fixture
    def call(self, client: CloudRuntimesClient, api: Api) -> Call:
        """The service, whose methods take no name of a component."""
        return Call(api, client, "schedule")

    @pytest.fixture
    def runs(self, call: Call, api: Api) -> Runs:
        """The handler of the job ``j``."""
        return Runs(call, api)

    # -- missed ---------------------------------------------------------------

    @requires("schedule.list_runs")
    def test_missed_once(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        """However late: the latest is run, the others are skipped, counted and listed."""
        call("schedule_job", "j", schedule="@every 1h")
        first = call("get_job", "j").next_run
        harness.advance(30 * 24 * HOUR + 60)
        with call.opened("running"):
            assert api.until(lambda: states(call).count("succeeded") == 1)
        assert runs.fires == [first + timedelta(hours=719)]
        job = call("get_job", "j")
        assert (job.occurrences, job.skipped, job.next_run) == (720, 719, first + timedelta(hours=720))
        history = call("list_runs", "j")
        skipped = [each for each in history if each.status == "skipped"]
        assert sum(each.count for each in skipped) == 719
        assert (skipped[0].fire_time, skipped[-1].last_fire_time) == (first, first + timedelta(hours=718))
        for before, after in pairwise(skipped):
            assert after.fire_time - before.last_fire_time == timedelta(hours=1)
        assert all(each.last_fire_time - each.fire_time == timedelta(hours=each.count - 1) for each in skipped)

    @requires("schedule.list_runs")
    def test_very_many_missed(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        """Ten days of a cron of each second: counted exactly, and soon over."""
        call("schedule_job", "j", schedule="* * * * * *")
        first = call("get_job", "j").next_run
        harness.advance(10 * 24 * HOUR)
        with call.opened("running"):
            assert api.until(lambda: bool(runs.seen), 30)
        history = call("list_runs", "j")
        assert history[0].fire_time == first
        assert sum(each.count for each in history) >= 864_000
        for before, after in pairwise(history):
            assert after.fire_time - before.last_fire_time == timedelta(seconds=1)
            assert before.last_fire_time - before.fire_time == timedelta(seconds=before.count - 1)
        job = call("get_job", "j")
        assert job.occurrences == sum(each.count for each in history)
        assert job.skipped == sum(each.count for each in history if each.status == "skipped")

    @requires("schedule.list_runs", "schedule.misfire")
    @pytest.mark.parametrize(("late", "expected"), [(60, ["skipped"] * 3), (2, ["skipped", "skipped", "succeeded"])])
    def test_missed_skip(
        self, call: Call, api: Api, harness: Harness, runs: Runs, late: float, expected: list[str]
    ) -> None:
        call("schedule_job", "j", schedule="0 * * * *", misfire="skip")
        first = call("get_job", "j").next_run
        harness.advance((first - datetime.now(UTC)).total_seconds() + 2 * HOUR + late)
        with call.opened("running"):
            assert api.until(lambda: states(call) == expected)
            job = call("get_job", "j")
            assert (job.occurrences, job.skipped) == (3, expected.count("skipped"))
            harness.advance(HOUR - late + 1)
            assert api.until(lambda: states(call) == [*expected, "succeeded"])
        assert runs.fires[-1] == first + timedelta(hours=3)

    @requires("schedule.list_runs", "schedule.misfire")
    def test_missed_all(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        call("schedule_job", "j", schedule="*/10 * * * *", misfire="all", repeats=50)
        first = call("get_job", "j").next_run
        harness.advance(12 * HOUR)
        with call.opened("running"):
            assert api.until(lambda: not call("list_jobs"), 30)
        assert runs.fires == [first + timedelta(minutes=10 * n) for n in range(50)]
        assert states(call) == ["succeeded"] * 50

    @requires("schedule.list_runs", "schedule.misfire")
    def test_a_missed_last_one(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        """A job without another occurrence is gone, whether it ran or was skipped."""
        for misfire in ("once", "skip", "all"):
            call("schedule_job", misfire, due_time=60, misfire=misfire, target=runs.function)
        harness.advance(2 * HOUR)
        with call.opened("running"):
            assert api.until(lambda: not call("list_jobs"))
        assert sorted(run.name for _, run in runs.seen) == ["all", "once"]
        assert states(call, "skip") == ["skipped"]

    @requires("schedule.list_runs")
    def test_an_overwrite_with_the_same_schedule_forgets_nothing(
        self, call: Call, api: Api, harness: Harness, runs: Runs
    ) -> None:
        call("schedule_job", "j", schedule="@daily", data=1)
        due = call("get_job", "j").next_run
        harness.advance((due - datetime.now(UTC)).total_seconds() + 60)
        call("schedule_job", "j", schedule="@daily", data=2, overwrite=True)
        with call.opened("running"):
            assert api.until(lambda: len(runs.seen) == 1)
        assert runs.fires == [due]
        assert runs.seen[0][0] == 2

    # -- failures -------------------------------------------------------------

    @requires("schedule.list_runs")
    def test_retry(self, call: Call, api: Api, runs: Runs) -> None:
        runs.fails = 2
        with call.opened("running"):
            call("schedule_job", "j", due_time=0, failure_policy=Retry(3, 0.01))
            assert api.until(lambda: states(call) == ["succeeded"])
        assert [run.attempt for _, run in runs.seen] == [1, 2, 3]
        assert len(set(runs.ids)) == 1
        (record,) = call("list_runs", "j")
        assert isinstance(record, RunRecord)
        assert (record.run_id, record.attempt, record.error) == (runs.ids[0], 3, None)
        assert record.started_at is not None
        assert record.ended_at is not None
        assert record.fire_time <= record.started_at <= record.ended_at

    @requires("schedule.list_runs")
    def test_failed_for_good(self, call: Call, api: Api, subtests: pytest.Subtests) -> None:
        """The job goes on with its next occurrence."""
        policies: dict[str, tuple[Any, int]] = {"drop": ("drop", 1), "no retry": (Retry(0), 1), "two": (Retry(2, 0), 3)}
        every = {name: Runs(call, api, name) for name in policies}
        with call.opened("running"):
            for name, (policy, tries) in policies.items():
                every[name].fails = tries
                call("schedule_job", name, schedule="@every 300ms", due_time=0, failure_policy=policy)
            assert api.until(lambda: all("succeeded" in states(call, name) for name in policies))
        for name, (policy, tries) in policies.items():
            with subtests.test(policy=policy):
                # what a busy machine made late was skipped
                first, *_ = [each for each in call("list_runs", name) if each.status != "skipped"]
                assert (first.status, first.attempt, first.error) == ("failed", tries, f"ValueError: attempt {tries}")
                assert every[name].ids[:tries] == [first.run_id] * tries
                assert every[name].ids[tries] != first.run_id

    @requires("schedule.list_runs")
    def test_delete_cancels_what_waits(self, call: Call, api: Api, runs: Runs) -> None:
        runs.fails = 1
        with call.opened("running"):
            call("schedule_job", "j", schedule="@hourly", due_time=0, failure_policy=Retry(3, 600))
            assert api.until(lambda: states(call) == ["waiting"])
            call("delete_job", "j")
            assert states(call) == ["cancelled"]

    @requires("schedule.list_runs")
    def test_deleted_during_its_run(self, call: Call, api: Api, runs: Runs) -> None:
        runs.hold = threading.Event()
        with call.opened("running"):
            call("schedule_job", "j", schedule="@hourly", due_time=0)
            assert api.until(lambda: bool(runs.seen))
            call("delete_job", "j")
            runs.hold.set()
            assert api.until(lambda: states(call) == ["succeeded"])
        assert call("list_jobs") == []

    # -- ends -----------------------------------------------------------------

    def test_close_lets_a_handler_end(self, call: Call, api: Api) -> None:
        done: list[int] = []

        async def slow_async() -> None:
            begun.set()
            await asyncio.sleep(0.2)
            done.append(1)

        def slow() -> None:
            begun.set()
            release.wait(0.2)
            done.append(1)

        begun, release = threading.Event(), threading.Event()
        call.plain("job", "j")(slow if api.name == "sync" else slow_async)
        call("schedule_job", "j", schedule="@every 100ms", due_time=0)
        with call.opened("running"):
            assert api.until(begun.is_set)
        assert done
        count = len(done)
        api.pause(0.3)
        assert len(done) == count
