"""Jobs that several machines share: what holders and servers leave when they die, and what stays of runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats.requests import Batch, Request
from cloud_runtimes.components.nats.schedule import NatsSchedule
from cloud_runtimes.errors import CloudRuntimesError, ResourceExhaustedError, UnavailableError
from cloud_runtimes.spi import Method, Operation
from cloud_runtimes.spi.schedule import Outcome
from cloud_runtimes.testing import Api
from tests.support import Make
from tests.support.harnesses.nats import NatsClock, NatsHome
from tests.support.leased_jobs import ClaimedJobs, Member, driver_of
from tests.support.nats import NatsServer, Serve
from tests.support.waiting import until


@pytest.fixture
def clock(nats_server: NatsServer) -> Iterator[NatsClock]:
    harness = NatsClock(nats_server)
    yield harness
    harness.close()


class TestJobs(ClaimedJobs):
    driver = NatsSchedule
    durable: ClassVar = {"jetstream": {"sync_interval": "always"}}


@pytest.mark.parametrize("settings", [{"history_runs": 5}, {"history": 3}])
def test_records_of_runs_go(home: NatsHome, settings: dict[str, int]) -> None:
    """By their number and age, without anybody who sweeps; other jobs of the name go on with the slots."""
    config = {"capa": {"home": {"url": home.server.url, "prefix": home.prefix, **settings}}}
    seen: list[str] = []
    with CloudRuntimesClient(app_id="suite", config=config) as client:
        client.schedule.job("j")(lambda data, run: seen.append(run.run_id))
        for repeats in (8, 1, 1, 1):
            client.schedule.schedule_job("j", schedule="@every 50ms", due_time=0, misfire="all", repeats=repeats)
            with client.schedule.running():
                until(lambda: not client.schedule.list_jobs(), seconds=20)
        assert len(seen) == 11
        run_ids = [each.run_id for each in client.schedule.list_runs("j")]
        assert run_ids == seen[-5:] if "history_runs" in settings else run_ids and run_ids == seen[-len(run_ids) :]
        if "history" in settings:
            until(lambda: client.schedule.list_runs("j") == [])
            client.schedule.schedule_job("j", schedule="@hourly")
            assert client.schedule.list_runs("j") == []


def test_a_member_that_dies_before_the_history(clock: NatsClock, member: Member) -> None:
    """A run that ended is still reported, and other members remove what is over."""
    client = clock.client()
    client.schedule.schedule_job("j", due_time=0)
    dead, other = member(), member()
    (run,) = dead.exchange((), 8)
    flow = dead._exchange([Outcome(run.token)], (), 0)
    engine, op = dead._driver.component.engine, dead._operation()
    batch = next(flow)
    while not batch.writes:
        batch = flow.send(engine.exchange(op, batch).answers)
    engine.exchange(op, batch)
    flow.close()
    assert [each.status for each in client.schedule.list_runs("j")] == ["succeeded"]
    assert client.schedule.list_jobs() == []
    assert other.exchange((), 8) == ()
    bucket = other._driver.bucket
    (entry,) = engine.run(op, bucket.read([bucket.subject("j", "j")]))
    assert entry.deleted
    assert [each.status for each in client.schedule.list_runs("j")] == ["succeeded"]


def test_a_bucket_that_is_deleted(home: NatsHome, api: Api) -> None:
    """Its jobs are gone, and runners go on with those that are stored later."""
    client = home.client()
    seen: list[str] = []
    client.schedule.job("j")(lambda data, run: seen.append(data))
    api.call(client.schedule, "schedule_job", "j", schedule="@every 100ms", data="old", due_time=0)
    with api.opened(client.schedule.running()):
        assert api.until(lambda: len(seen) > 1)
        driver = driver_of(home)

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
    monkeypatch.setattr("cloud_runtimes.components._schedule.runs._LONGEST", 60.0)
    monkeypatch.setattr("cloud_runtimes.components._schedule.runs.LeasedRuns.look_every", 60.0)
    monkeypatch.setattr("cloud_runtimes.components._net.notify.NET", 60.0)
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
        assert seen[1] - begun < 20


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
    assert not api.fails(UnavailableError)(schedule, "schedule_job", "k", schedule="@hourly").maybe_applied


def test_what_others_see_of_a_job(home: NatsHome, api: Api) -> None:
    """A document begins with a line of JSON, whoever reads it."""
    client = home.client()
    api.call(client.schedule, "schedule_job", "j", schedule="@hourly", data={"a": 1})
    driver = driver_of(home)

    def read() -> Any:
        return (yield from driver.bucket.read([driver.bucket.subject("j", "j")]))

    (entry,) = driver.component.engine.run(Operation(Method("test", "raw", repeatable=False), "s", 5.0), read())
    head, _, data = entry.data.partition(b"\n")
    assert json.loads(data) == {"a": 1}
    assert json.loads(json.loads(head)["job"]["spec"])["schedule"] == "@hourly"
