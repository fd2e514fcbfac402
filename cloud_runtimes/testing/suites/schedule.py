"""Conformance of a `ScheduleDriver`, through the service: jobs, and runs when and where they should be."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import AlreadyExistsError, ClosedError, InvalidArgumentError, NotFoundError, UnsupportedError
from ...rpc import RpcRequest
from ...schedule import Job, Retry, RpcTarget, TopicTarget
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, values
from ._schedule_runs import HOUR, PolicyTests, Runs, gone, states

OPTIONAL: list[tuple[str, str, dict[str, str]]] = [
    ("schedule.run_now", "run_now", {}),
    ("schedule.list_runs", "list_runs", {}),
    ("schedule.list_jobs", "list_jobs", {}),
    ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "skip"}),
    ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "all"}),
]
"""Features that a component may lack, each with a call that needs it."""


def names(call: Call) -> list[str] | None:
    """Return the names of all jobs, ``None`` where they cannot be listed."""
    return None if call.lacks("schedule.list_jobs") else [each.name for each in call("list_jobs")]


class ScheduleSuite(PolicyTests):
    """Each occurrence at least once with one id; misfire and failure policies applied exactly, and what is skipped is listed."""

    # -- jobs -----------------------------------------------------------------

    def test_store_get_list_delete(self, call: Call) -> None:
        progress = not call.lacks("schedule.progress")
        assert names(call) in ([], None)
        call.fails(NotFoundError, match="'j'")("get_job", "j")
        call("delete_job", "j")
        before = datetime.now(UTC) - timedelta(seconds=5)
        for name in ("j", "a", "J"):
            call("schedule_job", name, schedule="@hourly", data={"n": name})
        assert names(call) in (["J", "a", "j"], None)
        job = call("get_job", "j")
        assert progress is (job.created_at is not None)
        if progress:
            assert job.created_at >= before
            assert (job.next_run.minute, job.next_run.second) == (0, 0)
        assert job == Job(
            name="j",
            schedule="@hourly",
            due_time=None,
            repeats=None,
            expires_at=None,
            data={"n": "j"},
            target="j",
            failure_policy=Retry(3, 1.0),
            misfire="once",
            timezone="UTC",
            next_run=job.next_run,
            occurrences=0 if progress else None,
            skipped=0 if progress else None,
            created_at=job.created_at,
        )
        call("delete_job", "j")
        assert names(call) in (["J", "a"], None)
        call.fails(NotFoundError, match="'j'")("get_job", "j")

    def test_every_argument_is_kept(self, call: Call) -> None:
        progress = not call.lacks("schedule.progress")
        due = datetime(2095, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        target: RpcTarget | TopicTarget = RpcTarget("orders", "sync/all")
        given: dict[str, Any] = {"schedule": "15 3 * * MON", "due_time": due, "repeats": 7, "timezone": "Europe/Paris"}
        given |= {"data": b"\x00\xff", "target": target, "failure_policy": "drop"}
        call("schedule_job", "j", ttl="P30D", **given)
        job = call("get_job", "j")
        assert {name: getattr(job, name) for name in given} == given
        assert job.expires_at == due + timedelta(days=30)
        assert job.next_run == (due if progress else None)
        target = TopicTarget("bus", "t")
        call("schedule_job", "k", schedule=timedelta(minutes=90), target=target, failure_policy=Retry(2, 0.5))
        job = call("get_job", "k")
        assert (job.target, job.failure_policy, job.data) == (target, Retry(2, 0.5), None)
        if progress:
            assert abs(job.next_run - job.created_at - timedelta(minutes=90)) < timedelta(seconds=1)

    def test_overwrite(self, call: Call) -> None:
        call("schedule_job", "j", schedule="@daily", data=1)
        error = call.fails(AlreadyExistsError, match="'j'")("schedule_job", "j", schedule="@hourly", data=2)
        assert (error.operation, error.maybe_applied) == ("schedule_job", False)
        assert call("get_job", "j").data == 1
        call("schedule_job", "j", schedule="@hourly", data=2, overwrite=True)
        job = call("get_job", "j")
        assert (job.data, job.schedule) == (2, "@hourly")
        if not call.lacks("schedule.progress"):
            assert job.next_run - datetime.now(UTC) <= timedelta(hours=1)
        call("schedule_job", "new", schedule="@hourly", overwrite=True)

    def test_applications_are_apart(self, call: Call, harness: Harness) -> None:
        other = call.on(harness.client(app_id="another"))
        call("schedule_job", "j", schedule="@hourly", data=1)
        if not harness.applications:
            assert other("get_job", "j").data == 1
            return
        other("schedule_job", "j", schedule="@hourly", data=2)
        other("delete_job", "j")
        assert call("get_job", "j").data == 1

    def test_names(self, call: Call) -> None:
        given = ["a", "A", "0", "a-b", "a_b", "a:b", "a b", "a.b.c", "-a", "x" * 253]
        for name in given:
            call("schedule_job", name, schedule="@hourly")
            assert call("get_job", name).name == name
        assert names(call) in (sorted(given), None)

    def test_what_could_never_run_is_refused(self, call: Call) -> None:
        for arguments in (
            {"schedule": "@every 1h", "ttl": 60},
            {"schedule": "@hourly", "ttl": datetime(2020, 1, 1, tzinfo=UTC)},
        ):
            error = call.fails(InvalidArgumentError, match="never run")("schedule_job", "j", **arguments)
            assert (error.operation, error.maybe_applied) == ("schedule_job", False)
        assert gone(call)

    def test_undeclared(self, call: Call, subtests: pytest.Subtests) -> None:
        for number, (feature, method, arguments) in enumerate(OPTIONAL):
            with subtests.test(method, arguments=arguments):
                job = () if method == "list_jobs" else (f"j{number}",)
                if call.lacks(feature):
                    call.fails(UnsupportedError)(method, *job, **arguments)
                elif method == "run_now":
                    call.fails(NotFoundError, match=f"'j{number}'")(method, *job)
                else:
                    call(method, *job, **arguments)

    # -- running --------------------------------------------------------------

    def test_once(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        due = datetime.now(UTC) + timedelta(hours=1)
        call("schedule_job", "j", due_time=due.isoformat(), data={"a": 1})
        with call.opened("running"):
            api.pause(0.05)
            assert not runs.seen
            harness.advance(HOUR)
            assert api.until(lambda: len(runs.seen) == 1)
            assert api.until(lambda: gone(call))
        data, run = runs.seen[0]
        assert data == {"a": 1}
        assert (run.name, run.attempt) == ("j", 1)
        if not call.lacks("schedule.progress"):
            assert abs(run.fire_time - due) < timedelta(milliseconds=2)

    def test_due_at_once(self, call: Call, api: Api, runs: Runs, subtests: pytest.Subtests) -> None:
        with call.opened("running"):
            for due in (0, "0s", timedelta(0), "2020-01-01T00:00:00Z"):
                with subtests.test(due=due):
                    call("schedule_job", "j", due_time=due)
                    assert api.until(lambda: len(runs.seen) == 1)
                    assert api.until(lambda: gone(call))
                    runs.seen.clear()

    def test_again_and_again(self, call: Call, api: Api, runs: Runs) -> None:
        """In real time: as many as there are to be, in order, evenly spaced, each with an id of its own."""
        call("schedule_job", "j", schedule="@every 200ms", repeats=4, misfire="once")
        with call.opened("running"):
            assert api.until(lambda: gone(call))
        if not call.lacks("schedule.progress"):
            # what a busy machine made late may have been skipped
            assert all((b - a) % timedelta(milliseconds=200) == timedelta(0) for a, b in pairwise(runs.fires))
        assert 1 <= len(set(runs.ids)) == len(runs.ids) <= 4

    @requires("schedule.progress")
    def test_cron_in_a_time_zone(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        call("schedule_job", "j", schedule="30 9 * * *", timezone="Asia/Kathmandu")
        due = call("get_job", "j").next_run
        assert (due.hour, due.minute) == (3, 45)  # 05:45 ahead, all the year
        with call.opened("running"):
            harness.advance((due - datetime.now(UTC)).total_seconds() + 1)
            assert api.until(lambda: runs.fires == [due])
            assert call("get_job", "j").next_run == due + timedelta(days=1)

    @requires("schedule.list_runs", "schedule.progress")
    def test_first_at_the_due_time_then_by_the_schedule(
        self, call: Call, api: Api, harness: Harness, runs: Runs
    ) -> None:
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        call("schedule_job", "j", schedule="@every 1h", due_time=due, ttl="2h")  # the end belongs to it
        with call.opened("running"):
            harness.advance(601)
            for n in (1, 2, 3):
                # ended, since an hour outlasts the lease of a run that is still on
                assert api.until(lambda n=n: states(call) == ["succeeded"] * n)  # type: ignore[misc]
                harness.advance(HOUR)
            assert api.until(lambda: not call("list_jobs"))
        assert runs.fires == [due + timedelta(hours=n) for n in range(3)]

    def test_data(self, call: Call, api: Api, runs: Runs) -> None:
        given = {f"j.{n}": value for n, value in enumerate(values(b"", b"\x00\xff", bytearray(b"b")))}
        with call.opened("running"):
            for name, value in given.items():
                call("schedule_job", name, due_time=0, data=value, target=runs.function)
            assert api.until(lambda: len(runs.seen) == len(given), 30)
        assert {run.name: data for data, run in runs.seen} == given

    @requires("schedule.list_runs")
    def test_typed_data(self, call: Call, api: Api) -> None:
        runs = Runs(call, api, type=dict[str, int])
        with call.opened("running"):
            call("schedule_job", "j", due_time=0, data={"a": 1})
            assert api.until(lambda: bool(runs.seen))
            other = {"due_time": 0, "target": runs.function, "failure_policy": "drop"}
            call("schedule_job", "bad", data={"a": "x"}, **other)
            assert api.until(lambda: states(call, "bad") == ["failed"])
        (record,) = call("list_runs", "bad")
        assert "PayloadError" in record.error
        assert len(runs.seen) == 1

    @requires("schedule.claims")
    def test_a_job_waits_for_a_process_that_has_its_handler(self, call: Call, api: Api, harness: Harness) -> None:
        other = call.on(harness.client())
        theirs, mine = Runs(other, api, "theirs"), Runs(call, api, "mine")
        with call.opened("running"):
            for name in ("theirs", "mine", "later"):
                call("schedule_job", name, due_time=0)
            assert api.until(lambda: len(mine.seen) == 1)
            assert not theirs.seen
            assert call("get_job", "theirs").occurrences == 0
            with other.opened("running"):
                assert api.until(lambda: len(theirs.seen) == 1)
            later = Runs(call, api, "later")
            assert api.until(lambda: len(later.seen) == 1)

    @requires("schedule.claims")
    def test_several_share(self, call: Call, api: Api, harness: Harness) -> None:
        """Each occurrence is run by one of them."""
        other = call.on(harness.client())
        every = [Runs(call, api), Runs(other, api)]
        with call.opened("running"), other.opened("running"):
            for n in range(40):
                call("schedule_job", f"j.{n}", due_time=0, target=every[0].function)
            assert api.until(lambda: not call("list_jobs"), 30)
        ids = [id for runs in every for id in runs.ids]
        assert len(ids) == len(set(ids)) == 40

    @requires("schedule.claims", "schedule.list_runs")
    def test_a_jobs_runs_follow_one_another(self, call: Call, api: Api, harness: Harness, runs: Runs) -> None:
        """Of what became due during a run, the latest is run after it."""
        runs.hold = threading.Event()
        call("schedule_job", "j", schedule="@every 1m", due_time=0, repeats=5)
        others = Runs(call, api, "other")
        with call.opened("running"):
            assert api.until(lambda: len(runs.seen) == 1)
            for n in range(3 * 6):
                # clocks never really go so fast: whoever runs jobs takes another before the next step, and renews the lease
                harness.advance(10)
                call("schedule_job", f"other.{n}", due_time=0, target=others.function)
                assert api.until(lambda: bool(others.seen))
                others.seen.clear()
            assert len(runs.seen) == 1
            runs.hold.set()
            assert api.until(lambda: states(call).count("succeeded") == 2)
            harness.advance(60)
            assert api.until(lambda: not call("list_jobs"))
        assert [fire - runs.fires[0] for fire in runs.fires] == [timedelta(minutes=n) for n in (0, 3, 4)]

    # -- targets --------------------------------------------------------------

    @requires("rpc.host", "schedule.progress")
    def test_a_method(self, call: Call, client: CloudRuntimesClient, api: Api) -> None:
        seen: list[tuple[Any, dict[str, str]]] = []

        @client.rpc.method("m")
        def method(data: Any, request: RpcRequest) -> None:
            seen.append((data, dict(request.headers)))
            if len(seen) == 1:
                raise ValueError

        with call.opened("running"):
            target = RpcTarget("suite", "m")
            call("schedule_job", "j", due_time=0, target=target, data={"a": 1}, failure_policy=Retry(1, 0))
            assert api.until(lambda: not call("list_jobs"))
        assert [data for data, _ in seen] == [{"a": 1}] * 2
        assert [headers["job-attempt"] for _, headers in seen] == ["1", "2"]
        assert {headers["job-name"] for _, headers in seen} == {"j"}
        assert len({headers["job-run-id"] for _, headers in seen}) == 1

    @requires("schedule.list_runs", "pubsub.subscribe")
    def test_a_topic(self, call: Call, client: CloudRuntimesClient, api: Api, harness: Harness) -> None:
        bus = harness.store("pubsub")
        with Call(api, client, "pubsub", bus).opened("subscribe", "t") as events:
            with call.opened("running"):
                call("schedule_job", "j", due_time=0, target=TopicTarget(bus, "t"), data=[1])
                event = api.call(events, "receive", timeout=20)
            event.ack()
        assert event.data == [1]
        (record,) = call("list_runs", "j")
        assert event.id == record.run_id

    @requires("schedule.run_now", "schedule.list_runs")
    def test_run_now(self, call: Call, api: Api, runs: Runs) -> None:
        call("schedule_job", "j", schedule="@yearly", data=1)
        before = call("get_job", "j")
        ids = [call("run_now", "j") for _ in range(3)]
        assert states(call) == ["waiting"] * 3
        with call.opened("running"):
            assert api.until(lambda: states(call) == ["succeeded"] * 3)
        assert runs.ids == ids
        assert len(set(ids)) == 3
        assert call("get_job", "j") == before

    # -- ends -----------------------------------------------------------------

    def test_a_runner_runs_once(self, call: Call, api: Api) -> None:
        runner = call.plain("running")
        with api.opened(runner):
            pass
        api.call(runner, "close")
        with pytest.raises(ClosedError), api.opened(runner):
            pass

    def test_run_ends_with_the_client(self, call: Call, api: Api, harness: Harness) -> None:
        client = harness.client()
        other = call.on(client)
        runs = Runs(other, api)

        def close() -> None:
            while not runs.seen:
                threading.Event().wait(0.01)
            client.close()

        other("schedule_job", "j", due_time=0)
        timer = threading.Thread(target=close)
        timer.start()
        other("run")
        timer.join(30)
        assert len(runs.seen) == 1
        other.fails(ClosedError)("schedule_job", "j", due_time=0)
        with pytest.raises(ClosedError):
            other.plain("job", "k")

    @requires("rpc.host")
    def test_serving_runs_jobs(self, call: Call, client: CloudRuntimesClient, api: Api, runs: Runs) -> None:
        with api.opened(client.rpc.serving()):
            call("schedule_job", "j", due_time=0)
            assert api.until(lambda: len(runs.seen) == 1)
