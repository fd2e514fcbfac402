"""Jobs that several machines share: what holders and servers leave when they die, and what stays of runs."""

from __future__ import annotations

import json
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
from cloud_runtimes.components.nats.requests import Batch, Request
from cloud_runtimes.components.nats.schedule import NatsSchedule, _Runs
from cloud_runtimes.errors import CloudRuntimesError, ResourceExhaustedError, UnavailableError
from cloud_runtimes.schedule import JobRun, Retry
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.schedule import Outcome
from cloud_runtimes.testing import Api, SyncApi
from tests.support.harnesses.nats import NatsClock, NatsHome
from tests.support.nats import NatsServer

Make = Callable[..., CloudRuntimesClient]
Serve = Callable[..., NatsServer]

_RUNNER = """
import os, sys, time
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats.schedule import _Runs
url, prefix, seconds = sys.argv[1:]
_Runs.lease_ms = 500
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
def runner(home: NatsHome, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process that runs jobs, each for so long; it prints the id of the first. Its leases last half a second."""
    command = [sys.executable, "-c", _RUNNER, home.server.url, home.prefix, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def clock(nats_server: NatsServer) -> Iterator[NatsClock]:
    made = NatsClock(nats_server)
    yield made
    made.close()


@pytest.fixture
def member(clock: NatsClock) -> Iterator[Callable[[], _Runs]]:
    """Return members of the runners of the application ``suite``, which have the handler ``j``."""
    made: list[_Runs] = []
    driver = _driver(clock)
    op = Operation(Method("schedule", "run", repeatable=True), "schedule", 5.0)

    def make() -> _Runs:
        source = driver.join(op, lambda: frozenset({"j"}))
        assert isinstance(source, _Runs)
        made.append(source)
        return source

    yield make
    for each in made:
        each.close(())


def _driver(home: NatsHome) -> NatsSchedule:
    component: Any = home.client()._context.runtime()
    driver = component.driver("schedule", "default")
    assert isinstance(driver, NatsSchedule)
    return driver


def test_processes_share(home: NatsHome, rounds: Callable[[int, int], int]) -> None:
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
    with runner(home, 0.02) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
    with runner(home, 0), runner(home, 0):
        end = time.monotonic() + 240
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
    for number in range(jobs):
        found = client.schedule.list_runs(f"j{number}")
        assert [each.status for each in found] == ["succeeded"] * min(repeats, 1000)


@pytest.mark.parametrize("api", [SyncApi], indirect=True)
def test_a_holder_that_is_killed(home: NatsHome, api: Api) -> None:
    client = home.client()
    api.call(client.schedule, "schedule_job", "j", due_time=0)
    with runner(home, 60) as holder:
        assert holder.stdout is not None
        run = holder.stdout.readline().strip()
        holder.kill()
    killed = time.monotonic()
    seen: list[JobRun] = []
    client.schedule.job("j")(lambda data, run: seen.append(run))
    with api.opened(client.schedule.running()):
        api.pause(0.05)
        looked = list(seen)
        assert not looked or time.monotonic() - killed > 0.3, "its lease lasts"
        assert api.until(lambda: bool(seen))
        assert api.until(lambda: not api.call(client.schedule, "list_jobs"))
    assert [(each.run_id, each.attempt) for each in seen] == [(run, 2)]


def test_a_clock_that_jumps_takes_nothing_from_a_member_that_looks_first(
    clock: NatsClock, member: Callable[[], _Runs]
) -> None:
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


def test_leases_are_renewed(clock: NatsClock, member: Callable[[], _Runs]) -> None:
    clock.client().schedule.schedule_job("j", due_time=0)
    holder, other = member(), member()
    (run,) = holder.exchange((), 8)
    for _ in range(4):
        clock.advance(10)
        holder._renew_at = 0.0  # its own clock goes as fast
        holder.exchange((), 0)
        assert not other.exchange((), 8)
    assert holder.holds(run.token)


def test_what_was_not_begun_goes_to_others_uncounted(clock: NatsClock, member: Callable[[], _Runs]) -> None:
    clock.client().schedule.schedule_job("j", due_time=0)
    one, other = member(), member()
    (run,) = one.exchange((), 1)
    one.exchange([Outcome(run.token, begun=False)], 0)
    (again,) = other.exchange((), 1)
    assert (again.run_id, again.attempt) == (run.run_id, 1)


@pytest.mark.parametrize("change", ["overwrite", "delete", "run_now", "claim"])
def test_a_job_that_changes_before_it_is_claimed(
    clock: NatsClock, member: Callable[[], _Runs], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a member's look and its claim; the claim is refused, and an outcome lands at the second try."""
    client = clock.client()
    client.schedule.schedule_job("j", schedule="@every 10s", due_time=0, data=1)
    client.schedule.schedule_job("k", schedule="@every 1h", due_time=0, target=client.schedule.job("j")(print))
    one, other = member(), member()
    held = {run.spec.name: run for run in one.exchange((), 8)}
    one.exchange([Outcome(held["j"].token)], 0)
    clock.advance(10)
    look = NatsSchedule.since

    def since(self: NatsSchedule, sequence: int) -> Any:
        found = yield from look(self, sequence)
        monkeypatch.setattr(NatsSchedule, "since", look)
        if change == "overwrite":
            client.schedule.schedule_job("j", schedule="@every 2h", due_time=0, data=2, overwrite=True)
        elif change == "delete":
            client.schedule.delete_job("j")
        elif change == "run_now":
            client.schedule.run_now("j")
        else:
            assert [run.spec.name for run in other.exchange((), 1)] == ["j"]
        client.schedule.schedule_job("k", schedule="@every 1h", due_time=0, data=3, overwrite=True)
        return found

    monkeypatch.setattr(NatsSchedule, "since", since)
    assert one.exchange([Outcome(held["k"].token)], 8) == []
    assert [each.status for each in client.schedule.list_runs("k")] == ["succeeded"]
    runs = [run.spec.data for run in one.exchange((), 8) if run.spec.name == "j"]
    assert runs == {"overwrite": [b"2"], "delete": [], "run_now": [b"1"], "claim": []}[change]


def test_a_job_gets_another_handler(clock: NatsClock, member: Callable[[], _Runs]) -> None:
    client = clock.client()
    mine, theirs = (client.schedule.job(name)(lambda: None) for name in ("j", "other"))
    client.schedule.schedule_job("one", due_time=0, target=theirs)
    runs = member()
    assert not runs.exchange((), 8)
    client.schedule.schedule_job("one", due_time=0, target=mine, overwrite=True)
    (run,) = runs.exchange((), 8)
    assert run.spec.target == "j"


def test_a_job_that_was_deleted_is_cancelled_after_its_holder(clock: NatsClock, member: Callable[[], _Runs]) -> None:
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


@pytest.mark.parametrize("settings", [{"history_runs": 5}, {"history": 1}])
def test_records_of_runs_go(home: NatsHome, settings: dict[str, int]) -> None:
    """By their number and age, without anybody who sweeps; other jobs of the name go on with the slots."""
    config = {"capa": {"home": {"url": home.server.url, "prefix": home.prefix, **settings}}}
    seen: list[str] = []
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        client.schedule.job("j")(lambda data, run: seen.append(run.run_id))
        for repeats in (8, 1, 1, 1):
            client.schedule.schedule_job("j", schedule="@every 50ms", due_time=0, misfire="all", repeats=repeats)
            with client.schedule.running():
                end = time.monotonic() + 20
                while client.schedule.list_jobs():
                    assert time.monotonic() < end
                    time.sleep(0.02)
        assert len(seen) == 11
        found = [each.run_id for each in client.schedule.list_runs("j")]
        assert found == seen[-5:] if "history_runs" in settings else found and found == seen[-len(found) :]
        if "history" in settings:
            time.sleep(1.1)
            assert client.schedule.list_runs("j") == []
            client.schedule.schedule_job("j", schedule="@hourly")
            assert client.schedule.list_runs("j") == []


def test_a_member_that_dies_before_the_history(clock: NatsClock, member: Callable[[], _Runs]) -> None:
    """What ended is told all the same, and others clear away what is over."""
    client = clock.client()
    client.schedule.schedule_job("j", due_time=0)
    dead, other = member(), member()
    (run,) = dead.exchange((), 8)
    flow = dead._exchange([Outcome(run.token)], (), 0)
    engine, op = dead._driver.component.engine, dead._operation()
    batch = next(flow)
    while not batch.writes:
        batch = flow.send(engine._thread_connection(op).exchange(op, batch).answers)
    engine._thread_connection(op).exchange(op, batch)
    flow.close()
    assert [each.status for each in client.schedule.list_runs("j")] == ["succeeded"]
    assert client.schedule.list_jobs() == []
    assert other.exchange((), 8) == ()
    bucket = other._driver.bucket
    (entry,) = engine.run(op, bucket.read([bucket.subject("j", "j")]))
    assert entry.deleted
    assert [each.status for each in client.schedule.list_runs("j")] == ["succeeded"]


@pytest.mark.parametrize("api", [SyncApi], indirect=True)
def test_a_server_that_restarts_during_a_run(served: Serve, client: Make, api: Api) -> None:
    """The outcome lands when it is back, and jobs go on."""
    server = served(jetstream={"sync_interval": "always"})
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


def test_a_bucket_that_is_deleted(home: NatsHome, api: Api) -> None:
    """Its jobs are gone, and runners go on with those that are stored later."""
    client = home.client()
    seen: list[str] = []
    client.schedule.job("j")(lambda data, run: seen.append(data))
    api.call(client.schedule, "schedule_job", "j", schedule="@every 100ms", data="old", due_time=0)
    with api.opened(client.schedule.running()):
        assert api.until(lambda: len(seen) > 1)
        driver = _driver(home)

        def delete() -> Any:
            yield Batch(Request(f"$JS.API.STREAM.DELETE.KV_{driver.bucket.name}"), writes=True)

        driver.component.engine.run(Operation(Method("test", "raw", repeatable=False), "s", 5.0), delete())
        assert api.until(lambda: _jobs(client, api) == [])
        api.call(client.schedule, "schedule_job", "j", schedule="@every 100ms", data="new", due_time=0)
        assert api.until(lambda: "new" in seen, 20)


def _jobs(client: CloudRuntimesClient, api: Api) -> list[Any] | None:
    try:
        return list(api.call(client.schedule, "list_jobs"))
    except CloudRuntimesError:
        return None


def test_a_job_is_begun_at_once(home: NatsHome, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message wakes runners, who would look by themselves much later."""
    monkeypatch.setattr("cloud_runtimes.components._runs._LONGEST", 60.0)
    monkeypatch.setattr("cloud_runtimes.components._runs.LeasedRuns.look_every", 60.0)
    monkeypatch.setattr("cloud_runtimes.components._notify.NET", 60.0)
    client, other = home.client(), home.client()
    seen: list[float] = []
    handler = client.schedule.job("j")(lambda: seen.append(time.monotonic()))
    with api.opened(client.schedule.running()):
        api.call(client.schedule, "schedule_job", "before", due_time=0, target=handler)
        assert api.until(lambda: len(seen) == 1)
        api.pause(0.2)
        begun = time.monotonic()
        api.call(other.schedule, "schedule_job", "j", due_time=0)
        assert api.until(lambda: len(seen) == 2)
        assert seen[1] - begun < 1.0


def test_data_that_does_not_fit(home: NatsHome, api: Api) -> None:
    schedule = home.client().schedule
    error = api.fails(ResourceExhaustedError, match="max_payload")(
        schedule, "schedule_job", "j", schedule="@hourly", data=b"x" * (9 << 20)
    )
    assert not error.maybe_applied
    api.call(schedule, "schedule_job", "j", schedule="@hourly", data=b"x" * (1 << 20))
    assert api.call(schedule, "get_job", "j").data == b"x" * (1 << 20)


def test_a_server_that_is_gone(served: Serve, client: Make, api: Api) -> None:
    server = served()
    schedule = client(server.url).schedule
    api.call(schedule, "schedule_job", "j", schedule="@hourly")
    server.kill()
    error = api.fails(UnavailableError)(schedule, "schedule_job", "k", schedule="@hourly")
    assert not error.maybe_applied


def test_saves_at_once_keep_one(home: NatsHome, api: Api) -> None:
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


def test_what_others_see_of_a_job(home: NatsHome, api: Api) -> None:
    """A document begins with a line of JSON, whoever reads it."""
    client = home.client()
    api.call(client.schedule, "schedule_job", "j", schedule="@hourly", data={"a": 1})
    driver = _driver(home)

    def read() -> Any:
        return (yield from driver.bucket.read([driver.bucket.subject("j", "j")]))

    (entry,) = driver.component.engine.run(Operation(Method("test", "raw", repeatable=False), "s", 5.0), read())
    head, _, data = entry.data.partition(b"\n")
    assert json.loads(data) == {"a": 1}
    assert json.loads(json.loads(head)["job"]["spec"])["schedule"] == "@hourly"
