"""Jobs that several machines share on an engine: what holders and servers leave when they die. A subclass names the durable settings of the engine's server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from cloud_runtimes.components._schedule.runs import LeasedRuns
from cloud_runtimes.schedule import JobRun, Retry
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.schedule import Outcome
from cloud_runtimes.testing import Api
from tests.support import Make, Rounds
from tests.support.waiting import until

__all__ = ["ClaimedJobs", "LeasedJobs", "Member", "driver_of", "members"]

Member = Callable[[], Any]

_RUNNER = """
import os, sys, time
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components._schedule.runs import LeasedRuns
url, prefix, seconds, lease = sys.argv[1:]
LeasedRuns.lease_ms = int(lease)
told = []
client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": url, "prefix": prefix}}})
@client.schedule.job("j")
def job(data, run):
    client.state.save("begun", f"{run.run_id} {run.attempt} {os.getpid()} {time.time_ns()}", run.name)
    if not told:
        told.append(run)
        print(run.run_id, flush=True)
    time.sleep(float(seconds))
client.schedule.run()
"""


@contextmanager
def runner(home: Any, seconds: float, lease_ms: int = 15_000) -> Iterator[subprocess.Popen[str]]:
    """A process that runs jobs, each for so long; it prints the id of the first."""
    command = [sys.executable, "-c", _RUNNER, home.server.url, home.prefix, str(seconds), str(lease_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def driver_of(home: Any) -> Any:
    """Return the engine's own driver."""
    return home.client()._context.runtime().driver("schedule", "default")


@pytest.fixture(name="member")
def members(clock: Any) -> Iterator[Member]:
    """Make members of the runners of the application ``suite``, which have the handler ``j``."""
    sources: list[LeasedRuns] = []
    driver = driver_of(clock)
    op = Operation(Method("schedule", "run", repeatable=True), "schedule", 5.0)

    def make() -> LeasedRuns:
        source = driver.join(op, lambda: frozenset({"j"}))
        assert isinstance(source, LeasedRuns)
        sources.append(source)
        return source

    yield make
    for each in sources:
        each.close(())


class LeasedJobs:
    """Tests of jobs for every engine."""

    durable: ClassVar[dict[str, Any]]

    def test_processes_share(self, home: Any, rounds: Rounds) -> None:
        """No occurrence is run twice while its holder lives; none is lost, though processes are killed."""
        client = home.client()
        handler = client.schedule.job("j")(lambda: None)  # as the processes have it; this one runs none
        jobs, repeats = rounds(4, 20), rounds(5, 1000)
        for number in range(jobs):
            client.schedule.schedule_job(
                f"j{number}",
                schedule="@every 50ms",
                repeats=repeats,
                misfire="all",
                target=handler,
                failure_policy=Retry(0),
            )
        with runner(home, 0.02, 500) as first:
            assert first.stdout is not None
            first.stdout.readline()
            first.kill()
        with runner(home, 0), runner(home, 0):
            until(lambda: not client.schedule.list_jobs(), seconds=240)
        begun = [key.split() for key in client.state.list_keys("begun")]
        assert len({run for run, *_ in begun}) == jobs * repeats
        tries = Counter((run, attempt) for run, attempt, *_ in begun)
        assert set(tries.values()) == {1}
        again = {run for run, attempt, *_ in begun if attempt != "1"}
        assert not [
            run for run, attempt, process, _ in begun if run in again and attempt == "1" and int(process) != first.pid
        ]
        for number in range(jobs):
            runs = client.schedule.list_runs(f"j{number}")
            assert [each.status for each in runs] == ["succeeded"] * min(repeats, 1000)

    def test_a_holder_that_is_killed(self, home: Any, api: Api) -> None:
        client = home.client()
        api.call(client.schedule, "schedule_job", "j", due_time=0)
        with runner(home, 60, 500) as holder:
            assert holder.stdout is not None
            run = holder.stdout.readline().strip()
            holder.kill()
        (record,) = client.schedule.list_runs("j")
        assert record.started_at is not None
        seen: list[JobRun] = []
        client.schedule.job("j")(lambda data, run: seen.append(run))
        with api.opened(client.schedule.running()):
            api.pause(0.05)
            looked = list(seen)
            assert not looked or (datetime.now(UTC) - record.started_at).total_seconds() > 0.3, "its lease lasts"
            assert api.until(lambda: bool(seen))
            assert api.until(lambda: not api.call(client.schedule, "list_jobs"))
        assert [(each.run_id, each.attempt) for each in seen] == [(run, 2)]

    def test_a_clock_that_jumps_takes_nothing_from_a_member_that_looks_first(self, clock: Any, member: Member) -> None:
        client = clock.client()
        client.schedule.schedule_job("j", due_time=0)
        holder, other = member(), member()
        (run,) = holder.exchange((), 8)
        clock.advance(60)
        assert not holder.exchange((), 8)
        assert not other.exchange((), 8)
        assert holder.holds(run.token)
        clock.advance(60)
        (again,) = other.exchange((), 8)
        assert (again.run_id, again.attempt) == (run.run_id, 2)
        holder.exchange([Outcome(run.token)], 0)
        assert [each.status for each in client.schedule.list_runs("j")] == ["running"]
        other.exchange([Outcome(again.token), Outcome(again.token)], 0)
        (record,) = client.schedule.list_runs("j")
        assert (record.status, record.attempt) == ("succeeded", 2)
        assert not client.schedule.list_jobs()

    def test_leases_are_renewed(self, clock: Any, member: Member) -> None:
        clock.client().schedule.schedule_job("j", due_time=0)
        holder, other = member(), member()
        (run,) = holder.exchange((), 8)
        for _ in range(4):
            clock.advance(10)
            holder._renew_at = 0.0  # its own clock goes as fast
            holder.exchange((), 0)
            assert not other.exchange((), 8)
        assert holder.holds(run.token)

    def test_what_was_not_begun_goes_to_others_uncounted(self, clock: Any, member: Member) -> None:
        clock.client().schedule.schedule_job("j", due_time=0)
        one, other = member(), member()
        (run,) = one.exchange((), 1)
        one.exchange([Outcome(run.token, begun=False)], 0)
        (again,) = other.exchange((), 1)
        assert (again.run_id, again.attempt) == (run.run_id, 1)

    def test_a_job_that_one_member_cannot_move_on_goes_to_another(
        self, clock: Any, member: Member, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = clock.client()
        client.schedule.schedule_job("j", schedule="@every 10s", due_time=0)
        one, other = member(), member()
        monkeypatch.setattr(one, "_advance", lambda job, version, now: one._set_aside(job, version))
        assert not one.exchange((), 8)
        (run,) = other.exchange((), 8)
        other.exchange([Outcome(run.token)], 0)
        monkeypatch.undo()
        client.schedule.schedule_job("j", schedule="@every 5s", due_time=0, overwrite=True)
        assert len(one.exchange((), 8)) == 1, "another version is looked at"

    def test_a_job_gets_another_handler(self, clock: Any, member: Member) -> None:
        client = clock.client()
        mine, theirs = (client.schedule.job(name)(lambda: None) for name in ("j", "other"))
        client.schedule.schedule_job("one", due_time=0, target=theirs)
        runs = member()
        assert not runs.exchange((), 8)
        client.schedule.schedule_job("one", due_time=0, target=mine, overwrite=True)
        (run,) = runs.exchange((), 8)
        assert run.spec.target == "j"

    def test_a_job_that_was_deleted_is_cancelled_after_its_holder(self, clock: Any, member: Member) -> None:
        client = clock.client()
        client.schedule.schedule_job("j", due_time=0)
        assert len(member().exchange((), 8)) == 1
        client.schedule.delete_job("j")
        client.schedule.schedule_job("j", schedule="@daily")  # another of the name is not held up
        clock.advance(16)
        other = member()
        assert not other.exchange((), 8)
        (record,) = client.schedule.list_runs("j")
        assert record.status == "cancelled"
        assert client.schedule.get_job("j").occurrences == 0

    def test_saves_at_once_keep_one(self, home: Any, api: Api) -> None:
        """Applications that start together overwrite each other's job; it stays one, with where it stood."""
        client = home.client()
        calls = [
            (client.schedule, "schedule_job", ("j",), {"schedule": "@daily", "data": n, "overwrite": True})
            for n in range(8)
        ]
        assert api.together(calls) == [None] * 8
        (job,) = api.call(client.schedule, "list_jobs")
        assert job.data in range(8)
        assert api.call(client.schedule, "get_job", "j") == job

    def test_a_server_that_restarts_during_a_run(self, served: Callable[..., Any], client: Make, api: Api) -> None:
        """The outcome lands when it is back, and jobs go on."""
        server = served(**self.durable)
        instance = client(server.url)
        release, seen = threading.Event(), []

        def job(data: Any, run: JobRun) -> None:
            seen.append(run)
            if len(seen) == 1:
                release.wait(20)

        instance.schedule.job("j")(job)
        api.call(instance.schedule, "schedule_job", "j", schedule="@every 200ms", due_time=0)
        with api.opened(instance.schedule.running()):
            assert api.until(lambda: len(seen) == 1)
            server.kill()
            release.set()
            api.pause(0.3)
            server.start()
            assert api.until(lambda: len(seen) > 2, 20)
        assert [run.attempt for run in seen] == [1] * len(seen)
        assert len({run.run_id for run in seen}) == len(seen)
        assert {each.status for each in api.call(instance.schedule, "list_runs", "j")} <= {"succeeded", "skipped"}


class ClaimedJobs(LeasedJobs):
    """Tests for engines whose members claim a job by its revision; ``driver`` is the driver class of the members."""

    driver: ClassVar[type[Any]]

    @pytest.mark.parametrize("change", ["overwrite", "delete", "run_now", "claim"])
    def test_a_job_that_changes_before_it_is_claimed(
        self, clock: Any, member: Member, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between a member's look and its claim; the claim is refused, and an outcome lands at the second try."""
        client = clock.client()
        client.schedule.schedule_job("j", schedule="@every 10s", due_time=0, data=1)
        client.schedule.schedule_job("k", schedule="@every 1h", due_time=0, target=client.schedule.job("j")(print))
        one, other = member(), member()
        held = {run.spec.name: run for run in one.exchange((), 8)}
        one.exchange([Outcome(held["j"].token)], 0)
        clock.advance(10)
        look = self.driver.since

        def since(driver: Any, revision: int) -> Any:
            result = yield from look(driver, revision)
            monkeypatch.setattr(self.driver, "since", look)
            if change == "overwrite":
                client.schedule.schedule_job("j", schedule="@every 2h", due_time=0, data=2, overwrite=True)
            elif change == "delete":
                client.schedule.delete_job("j")
            elif change == "run_now":
                client.schedule.run_now("j")
            else:
                assert [run.spec.name for run in other.exchange((), 1)] == ["j"]
            client.schedule.schedule_job("k", schedule="@every 1h", due_time=0, data=3, overwrite=True)
            return result

        monkeypatch.setattr(self.driver, "since", since)
        assert not one.exchange([Outcome(held["k"].token)], 8)
        assert [each.status for each in client.schedule.list_runs("k")] == ["succeeded"]
        runs = [run.spec.data for run in one.exchange((), 8) if run.spec.name == "j"]
        assert runs == {"overwrite": [b"2"], "delete": [], "run_now": [b"1"], "claim": []}[change]
