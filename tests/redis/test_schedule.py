"""Jobs that several machines share: what holders and servers leave when they die, and what stays of runs."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.redis import RedisHome
from tests.support.leased_jobs import LeasedJobs, Member
from tests.support.redis import Serve
from tests.support.waiting import until


@pytest.fixture
def clock(home: RedisHome) -> RedisHome:
    return home


class TestJobs(LeasedJobs):
    durable: ClassVar = {"appendonly": "yes", "appendfsync": "always"}


def _begin(runs: Any) -> tuple[Any, Any]:
    """Have a member look at the jobs that are due, and stop before it claims them; return its flow and what it would write."""
    flow = runs._exchange((), (), 8)
    batch = next(flow)
    for _ in range(2):
        sent = batch.data
        batch = flow.send(_sent(runs, batch))
        if b"EVALSHA" in batch.data and b"running" in batch.data:
            assert b"running" not in sent
            return flow, batch
    raise AssertionError("it claims nothing")


def _sent(runs: Any, batch: Any) -> Any:
    engine, op = runs._driver.component.engine, runs._operation()
    return engine.exchange(op, batch)


def _go_on(runs: Any, flow: Any, batch: Any) -> Any:
    while True:
        replies = _sent(runs, batch)
        try:
            batch = flow.send(replies)
        except StopIteration as stop:
            return stop.value


def test_a_member_that_dies_before_it_claims(home: RedisHome, member: Member) -> None:
    """Others claim what it has looked at after a moment, and what it does later changes nothing."""
    client = home.client()
    client.schedule.schedule_job("j", schedule="@every 1h", due_time=0)
    dead, other = member(), member()
    flow, batch = _begin(dead)
    assert not other.exchange((), 8)
    home.advance(5.1)
    (run,) = other.exchange((), 8)
    assert _go_on(dead, flow, batch) == ([], [])
    job = client.schedule.get_job("j")
    assert (job.occurrences, run.attempt) == (1, 1)
    assert [each.status for each in client.schedule.list_runs("j")] == ["running"]


@pytest.mark.parametrize("change", ["overwrite", "delete", "run_now"])
def test_a_job_that_changes_before_it_is_claimed(home: RedisHome, member: Member, change: str) -> None:
    client = home.client()
    client.schedule.schedule_job("j", schedule="@every 1h", due_time=0, data=1)
    late = member()
    flow, batch = _begin(late)
    if change == "overwrite":
        client.schedule.schedule_job("j", schedule="@every 2h", due_time=0, data=2, overwrite=True)
    elif change == "delete":
        client.schedule.delete_job("j")
    else:
        client.schedule.run_now("j")
    assert _go_on(late, flow, batch) == ([], [])
    runs = late.exchange((), 8)
    assert [run.spec.data for run in runs] == {"overwrite": [b"2"], "delete": [], "run_now": [b"1"]}[change]
    assert [each.status for each in client.schedule.list_runs("j")] == ["running"] * len(runs)


@pytest.mark.parametrize("settings", [{"history_runs": 5}, {"history": 60}])
def test_records_of_runs_go(home: RedisHome, settings: dict[str, int]) -> None:
    """By their number and age, without anybody who sweeps; nothing is left of a job that is gone."""
    config = {"capa": {"home": {"url": home.server.url, "prefix": home.prefix, **settings}}}
    seen: list[str] = []
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        client.schedule.job("j")(lambda data, run: seen.append(run.run_id))
        client.schedule.schedule_job("j", schedule="@every 50ms", due_time=0, misfire="all", repeats=12)
        with client.schedule.running():
            until(lambda: not client.schedule.list_jobs(), seconds=20)
        assert len(seen) == 12
        run_ids = [each.run_id for each in client.schedule.list_runs("j")]
        assert run_ids == (seen[-5:] if "history_runs" in settings else seen)
        home.advance(8 * 86400)
        assert client.schedule.list_runs("j") == []
    reply = home.server.command("KEYS", f"{{{home.prefix}:schedule:*")
    assert reply == b"*0\r\n"


def test_jobs_go_on_while_memory_is_full(served: Serve, client: Make, api: Api) -> None:
    server = served(maxmemory="8mb")
    app_client = client(server.url)
    seen: list[int] = []
    app_client.schedule.job("j")(lambda: seen.append(1))
    api.call(app_client.schedule, "schedule_job", "j", schedule="@every 50ms")
    with api.opened(app_client.schedule.running()):
        assert api.until(lambda: bool(seen))
        server.command("CONFIG", "SET", "maxmemory", "1")
        count = len(seen)
        assert api.until(lambda: len(seen) > count + 3)
        error = api.fails(Exception, match="maxmemory")(app_client.schedule, "schedule_job", "k", schedule="@hourly")
        assert not error.maybe_applied
        api.call(app_client.schedule, "delete_job", "j")


@pytest.mark.parametrize(("field", "value"), [("attempt", "x"), ("fire", "x"), ("failures", "x")])
def test_a_run_that_another_program_changed(
    clock: RedisHome, member: Member, caplog: pytest.LogCaptureFixture, field: str, value: str
) -> None:
    """It is named once, and stops no other."""
    schedule = clock.client().schedule
    handler = schedule.job("j")(lambda: None)
    for name in ("j", "odd"):
        schedule.schedule_job(name, schedule="@daily", target=handler)
        schedule.run_now(name)
    key = f"{{{clock.prefix}:schedule:suite}}:jobs"
    item = clock.server.command("HGET", key, "odd").split(b"\r\n", 1)[1].removesuffix(b"\r\n")
    changed, number = re.subn(rb'("%b": )\d+' % field.encode(), rb'\1"%b"' % value.encode(), item)
    assert number
    clock.server.command("HSET", key, "odd", changed)
    runs = member()
    assert [run.spec.name for run in runs.exchange((), 8)] == ["j"]
    for _ in range(3):
        assert not runs.exchange((), 8)
    (record,) = caplog.records
    assert "'odd'" in record.getMessage()
    schedule.delete_job("odd")
    assert [job.name for job in schedule.list_jobs()] == ["j"]
