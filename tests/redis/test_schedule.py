"""Jobs that several machines share: what holders, movers and servers leave when they die, and what stays of runs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.redis.schedule import RedisSchedule, _Runs
from cloud_runtimes.components.redis.schedule_scripts import MOVE
from cloud_runtimes.schedule import JobRun, Retry
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.schedule import Outcome
from cloud_runtimes.testing import Api
from tests.support.harnesses.redis import RedisHome
from tests.support.redis import RedisServer

Make = Callable[..., CloudRuntimesClient]
Serve = Callable[..., RedisServer]

_RUNNER = """
import os, sys, time
from cloud_runtimes import CloudRuntimesClient
url, prefix, seconds = sys.argv[1:]
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
def runner(home: RedisHome, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process that runs jobs, each for so long; it prints the id of the first."""
    command = [sys.executable, "-c", _RUNNER, home.server.url, home.prefix, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def member(home: RedisHome) -> Iterator[Callable[[], _Runs]]:
    """Return members of the runners of the application ``suite``, which have the handler ``j``."""
    made: list[_Runs] = []
    driver = _driver(home)
    op = Operation(Method("schedule", "run", repeatable=True), "schedule", 5.0)

    def make() -> _Runs:
        source = driver.join(op, lambda: frozenset({"j"}))
        assert isinstance(source, _Runs)
        made.append(source)
        return source

    yield make
    for each in made:
        each.close(())


def _driver(home: RedisHome) -> RedisSchedule:
    client = home.client()
    component: Any = client._context.runtime()
    driver = component.driver("schedule", "default")
    assert isinstance(driver, RedisSchedule)
    return driver


def test_processes_share(home: RedisHome, rounds: Callable[[int, int], int]) -> None:
    """No occurrence is run twice while its holder lives; none is lost, though processes are killed."""
    client = home.client()
    handler = client.schedule.job("j")(lambda: None)  # as the processes have it; this one runs none
    jobs, repeats = rounds(6, 20), rounds(5, 1000)
    for number in range(jobs):
        client.schedule.schedule_job(
            f"j{number}",
            schedule="@every 50ms",
            repeats=repeats,
            misfire="all",
            target=handler,
            failure_policy=Retry(0),
        )
    with runner(home, 0.02) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
    home.advance(16)  # past its leases
    with runner(home, 0), runner(home, 0):
        end = time.monotonic() + 120
        while client.schedule.list_jobs():
            assert time.monotonic() < end
            time.sleep(0.05)
    begun = [key.split() for key in client.state.list_keys("begun")]
    assert len({run for run, *_ in begun}) == jobs * repeats
    tries = Counter((run, attempt) for run, attempt, *_ in begun)
    assert set(tries.values()) == {1}
    again = {run for run, attempt, *_ in begun if attempt != "1"}
    assert not [
        run for run, attempt, process, _ in begun if run in again and attempt == "1" and int(process) != first.pid
    ]


def test_a_holder_that_is_killed(home: RedisHome, api: Api) -> None:
    client = home.client()
    api.call(client.schedule, "schedule_job", "j", due_time=0)
    with runner(home, 60) as holder:
        assert holder.stdout is not None
        run = holder.stdout.readline().strip()
        holder.kill()
    seen: list[JobRun] = []
    client.schedule.job("j")(lambda data, run: seen.append(run))
    with api.opened(client.schedule.running()):
        api.pause(0.2)
        assert not seen, "its lease lasts"
        home.advance(16)
        assert api.until(lambda: bool(seen))
        assert api.until(lambda: not api.call(client.schedule, "list_jobs"))
    assert [(each.run_id, each.attempt) for each in seen] == [(run, 2)]


def test_a_clock_that_jumps_takes_nothing_from_a_member_that_looks_first(
    home: RedisHome, member: Callable[[], _Runs]
) -> None:
    client = home.client()
    client.schedule.schedule_job("j", due_time=0)
    holder, other = member(), member()
    (run,) = holder.exchange((), 8)
    home.advance(60)
    assert not holder.exchange((), 8)
    assert not other.exchange((), 8)
    assert holder.holds(run.token)
    home.advance(60)
    (again,) = other.exchange((), 8)
    assert (again.run_id, again.attempt) == (run.run_id, 2)
    holder.exchange([Outcome(run.token)], 0)
    assert [each.status for each in client.schedule.list_runs("j")] == ["running"]
    other.exchange([Outcome(again.token), Outcome(again.token)], 0)
    (record,) = client.schedule.list_runs("j")
    assert (record.status, record.attempt) == ("succeeded", 2)
    assert not client.schedule.list_jobs()


def test_leases_are_renewed(home: RedisHome, member: Callable[[], _Runs], monkeypatch: pytest.MonkeyPatch) -> None:
    client = home.client()
    client.schedule.schedule_job("j", due_time=0)
    holder, other = member(), member()
    (run,) = holder.exchange((), 8)
    for _ in range(4):
        home.advance(10)
        holder._renew_at = 0.0  # its own clock goes as fast
        holder.exchange((), 0)
        assert not other.exchange((), 8)
    assert holder.holds(run.token)


def test_what_was_not_begun_goes_to_others_uncounted(home: RedisHome, member: Callable[[], _Runs]) -> None:
    client = home.client()
    client.schedule.schedule_job("j", due_time=0)
    one, other = member(), member()
    (run,) = one.exchange((), 1)
    one.exchange([Outcome(run.token, begun=False)], 0)
    (again,) = other.exchange((), 1)
    assert (again.run_id, again.attempt) == (run.run_id, 1)


def _reserve(runs: _Runs) -> tuple[Any, int]:
    """Have a member take the jobs that are due, and die before it moves them on."""
    flow = runs._exchange((), (), 8)
    replies: Any = None
    engine = runs._component.engine
    batch = next(flow)
    while True:
        op = runs._operation()
        connection = engine.servers.take(op, batch)
        try:
            replies = connection.exchange(batch.data, batch.count, op)
        finally:
            engine.servers.give(connection)
        sent = batch.data
        batch = flow.send(replies)
        if MOVE._sha.encode() in batch.data:
            assert MOVE._sha.encode() not in sent
            return flow, batch


def _go_on(runs: _Runs, flow: Any, batch: Any) -> Any:
    engine, op = runs._component.engine, runs._operation()
    while True:
        connection = engine.servers.take(op, batch)
        try:
            replies = connection.exchange(batch.data, batch.count, op)
        finally:
            engine.servers.give(connection)
        try:
            batch = flow.send(replies)
        except StopIteration as stop:
            return stop.value


def test_a_mover_that_dies(home: RedisHome, member: Callable[[], _Runs]) -> None:
    """Others move its jobs on after a moment, and what it does later changes nothing."""
    client = home.client()
    client.schedule.schedule_job("j", schedule="@every 1h", due_time=0)
    dead, other = member(), member()
    flow, batch = _reserve(dead)
    assert not other.exchange((), 8)
    home.advance(5.1)
    (run,) = other.exchange((), 8)
    assert _go_on(dead, flow, batch) == ([], [])
    job = client.schedule.get_job("j")
    assert (job.occurrences, run.attempt) == (1, 1)
    assert [each.status for each in client.schedule.list_runs("j")] == ["running"]


@pytest.mark.parametrize("change", ["overwrite", "delete", "run_now"])
def test_a_job_that_changes_before_it_is_moved(home: RedisHome, member: Callable[[], _Runs], change: str) -> None:
    client = home.client()
    client.schedule.schedule_job("j", schedule="@every 1h", due_time=0, data=1)
    mover = member()
    flow, batch = _reserve(mover)
    if change == "overwrite":
        client.schedule.schedule_job("j", schedule="@every 2h", due_time=0, data=2, overwrite=True)
    elif change == "delete":
        client.schedule.delete_job("j")
    else:
        client.schedule.run_now("j")
    assert _go_on(mover, flow, batch) == ([], [])
    runs = mover.exchange((), 8)
    assert [run.spec.data for run in runs] == {"overwrite": [b"2"], "delete": [], "run_now": [b"1"]}[change]
    assert [each.status for each in client.schedule.list_runs("j")] == ["running"] * len(runs)


def test_a_job_gets_another_handler(home: RedisHome, member: Callable[[], _Runs]) -> None:
    client = home.client()
    mine, theirs = (client.schedule.job(name)(lambda: None) for name in ("j", "other"))
    client.schedule.schedule_job("one", due_time=0, target=theirs)
    runs = member()
    assert not runs.exchange((), 8)
    client.schedule.schedule_job("one", due_time=0, target=mine, overwrite=True)
    (run,) = runs.exchange((), 8)
    assert run.spec.target == "j"


def test_a_job_that_was_deleted_is_cancelled_after_its_holder(home: RedisHome, member: Callable[[], _Runs]) -> None:
    client = home.client()
    client.schedule.schedule_job("j", due_time=0)
    assert len(member().exchange((), 8)) == 1
    client.schedule.delete_job("j")
    client.schedule.schedule_job("j", schedule="@hourly")  # another of the name is not held up
    home.advance(16)
    other = member()
    assert not other.exchange((), 8)
    (record,) = client.schedule.list_runs("j")
    assert record.status == "cancelled"
    assert client.schedule.get_job("j").occurrences == 0


@pytest.mark.parametrize("settings", [{"history_runs": 5}, {"history": 60}])
def test_records_of_runs_go(home: RedisHome, settings: dict[str, int]) -> None:
    """By their number and age, without anybody who sweeps; nothing is left of a job that is gone."""
    config = {"capa": {"home": {"url": home.server.url, "prefix": home.prefix, **settings}}}
    seen: list[str] = []
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        client.schedule.job("j")(lambda data, run: seen.append(run.run_id))
        client.schedule.schedule_job("j", schedule="@every 50ms", due_time=0, misfire="all", repeats=12)
        with client.schedule.running():
            end = time.monotonic() + 20
            while client.schedule.list_jobs():
                assert time.monotonic() < end
                time.sleep(0.02)
        assert len(seen) == 12
        found = [each.run_id for each in client.schedule.list_runs("j")]
        assert found == (seen[-5:] if "history_runs" in settings else seen)
        home.advance(8 * 86400)
        assert client.schedule.list_runs("j") == []
    left = home.server.command("KEYS", f"{{{home.prefix}:schedule:*")
    assert left.count(b":ids") == left.count(b"schedule:") == 1


def test_jobs_go_on_while_memory_is_full(served: Serve, client: Make, api: Api) -> None:
    server = served(maxmemory="8mb")
    made = client(server.url)
    seen: list[int] = []
    made.schedule.job("j")(lambda: seen.append(1))
    api.call(made.schedule, "schedule_job", "j", schedule="@every 50ms")
    with api.opened(made.schedule.running()):
        assert api.until(lambda: bool(seen))
        server.command("CONFIG", "SET", "maxmemory", "1")
        count = len(seen)
        assert api.until(lambda: len(seen) > count + 3)
        error = api.fails(Exception, match="maxmemory")(made.schedule, "schedule_job", "k", schedule="@hourly")
        assert not error.maybe_applied
        api.call(made.schedule, "delete_job", "j")


def test_a_server_that_restarts_during_a_run(served: Serve, client: Make, api: Api) -> None:
    """The outcome lands when it is back, and jobs go on."""
    server = served(appendonly="yes", appendfsync="always")
    made = client(server.url)
    release, seen = threading.Event(), []

    def job(data: Any, run: JobRun) -> None:
        seen.append(run)
        if len(seen) == 1:
            release.wait(20)

    made.schedule.job("j")(job)
    api.call(made.schedule, "schedule_job", "j", schedule="@every 200ms", due_time=0)
    with api.opened(made.schedule.running()):
        assert api.until(lambda: len(seen) == 1)
        server.kill()
        release.set()
        api.pause(0.3)
        server.start()
        assert api.until(lambda: len(seen) > 2, 20)
    assert [run.attempt for run in seen] == [1] * len(seen)
    assert len({run.run_id for run in seen}) == len(seen)
    assert {each.status for each in api.call(made.schedule, "list_runs", "j")} <= {"succeeded", "skipped"}


def test_saves_at_once_keep_one(home: RedisHome, api: Api) -> None:
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
