"""Conformance of a `ScheduleDriver`: runs, when and where they should be."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import NotFoundError
from ...rpc import RpcRequest
from ...schedule import JobRun, Retry, RpcTarget, TopicTarget
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call, values
from ._schedule import HOUR, Runs, ScheduleCases

__all__ = ["RunTests"]


class RunTests(ScheduleCases):
    """Occurrences in time, their handlers and targets."""

    # -- running ------------------------------------------------------------

    def test_once(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        runs = Runs(client, face)
        due = datetime.now(UTC) + timedelta(hours=1)
        call("schedule_job", "j", due_time=due.isoformat(), data={"a": 1})
        with face.opened(client.schedule.running()):
            face.pause(0.05)
            assert not runs.seen
            harness.advance(HOUR)
            assert face.until(lambda: len(runs.seen) == 1)
            assert face.until(lambda: self._gone(call))
        data, run = runs.seen[0]
        assert data == {"a": 1}
        assert (run.name, run.attempt) == ("j", 1)
        if not call.lacks("schedule.progress"):
            assert abs(run.fire_time - due) < timedelta(milliseconds=2)
        call.fails(NotFoundError)("get_job", "j")

    @pytest.mark.parametrize("due", [0, "0s", timedelta(0), "2020-01-01T00:00:00Z"])
    def test_due_at_once(self, call: Call, client: CloudRuntimesClient, face: Face, due: Any) -> None:
        runs = Runs(client, face)
        with face.opened(client.schedule.running()):
            call("schedule_job", "j", due_time=due)
            assert face.until(lambda: len(runs.seen) == 1)

    def test_again_and_again(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        """In real time: as many as there are to be, in order, evenly spaced, each with an id of its own."""
        runs = Runs(client, face)
        call("schedule_job", "j", schedule="@every 200ms", repeats=4, misfire="once")
        with face.opened(client.schedule.running()):
            assert face.until(lambda: self._gone(call))
        spaces = {b - a for a, b in pairwise(runs.fires)}
        if not call.lacks("schedule.progress"):
            # what a busy machine made late may have been skipped
            assert all(space % timedelta(milliseconds=200) == timedelta(0) for space in spaces)
        assert 1 <= len(set(runs.ids)) == len(runs.ids) <= 4

    @requires("schedule.progress")
    def test_cron_in_a_time_zone(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        runs = Runs(client, face)
        call("schedule_job", "j", schedule="30 9 * * *", timezone="Asia/Kathmandu")
        due = call("get_job", "j").next_run
        assert (due.hour, due.minute) == (3, 45)  # 05:45 ahead, all the year
        with face.opened(client.schedule.running()):
            harness.advance((due - datetime.now(UTC)).total_seconds() + 1)
            assert face.until(lambda: runs.fires == [due])
            assert call("get_job", "j").next_run == due + timedelta(days=1)

    @requires("schedule.progress")
    def test_first_at_the_due_time_then_by_the_schedule(
        self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness
    ) -> None:
        runs = Runs(client, face)
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        call("schedule_job", "j", schedule="@every 1h", due_time=due, ttl="2h")  # the end belongs to it
        with face.opened(client.schedule.running()):
            harness.advance(601)
            for n in (1, 2, 3):
                assert face.until(lambda n=n: len(runs.seen) == n)  # type: ignore[misc]
                harness.advance(HOUR)
            assert face.until(lambda: not call("list_jobs"))
        assert runs.fires == [due + timedelta(hours=n) for n in range(3)]

    def test_what_handlers_take(self, client: CloudRuntimesClient, face: Face) -> None:
        seen: list[Any] = []
        service = client.schedule
        service.job("none")(lambda: seen.append("none"))
        service.job("data")(lambda data: seen.append(data))

        @service.job("async")
        async def handler(data: Any, run: JobRun) -> None:
            seen.append((data, run.name))

        @service.job("run")
        def about(run: JobRun) -> None:
            seen.append(run)

        with face.opened(service.running()):
            for name in ("none", "data", "async", "run"):
                face.call(service, "schedule_job", name, due_time=0, data=[name])
            assert face.until(lambda: len(seen) == 4)
        assert [run.name for run in seen if isinstance(run, JobRun)] == ["run"]
        assert {"none", "('async', 'async')"} < {str(each).replace("['async']", "'async'") for each in seen}
        assert ["data"] in seen

    def test_data(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        given = values(b"", b"\x00\xff", bytearray(b"b"))
        with face.opened(client.schedule.running()):
            for n, value in enumerate(given):
                call("schedule_job", f"j.{n}", due_time=0, data=value, target=runs.function)
            assert face.until(lambda: len(runs.seen) == len(given), 30)
        assert {run.name: data for data, run in runs.seen} == {f"j.{n}": value for n, value in enumerate(given)}

    @requires("schedule.list_runs")
    def test_typed_data(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face, type=dict[str, int])
        with face.opened(client.schedule.running()):
            call("schedule_job", "j", due_time=0, data={"a": 1})
            assert face.until(lambda: bool(runs.seen))
            other = {"due_time": 0, "target": runs.function, "failure_policy": "drop"}
            call("schedule_job", "bad", data={"a": "x"}, **other)
            assert face.until(lambda: self._states(call, "bad") == ["failed"])
        (record,) = call("list_runs", "bad")
        assert "PayloadError" in record.error
        assert len(runs.seen) == 1

    @requires("schedule.claims")
    def test_a_job_waits_for_a_process_that_has_its_handler(
        self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness
    ) -> None:
        second = harness.client()
        runs = Runs(second, face, "theirs")
        mine = Runs(client, face, "mine")
        with face.opened(client.schedule.running()):
            call("schedule_job", "theirs", due_time=0, data=1)
            call("schedule_job", "mine", due_time=0)
            assert face.until(lambda: len(mine.seen) == 1)
            assert not runs.seen
            assert call("get_job", "theirs").occurrences == 0
            with face.opened(second.schedule.running()):
                assert face.until(lambda: len(runs.seen) == 1)

    @requires("schedule.claims")
    def test_a_handler_registered_later(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        call("schedule_job", "j", due_time=0)
        with face.opened(client.schedule.running()):
            face.pause(0.05)
            runs = Runs(client, face)
            assert face.until(lambda: len(runs.seen) == 1)

    @requires("schedule.claims")
    def test_several_share(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """Each occurrence is run by one of them."""
        second = harness.client()
        every = [Runs(client, face), Runs(second, face)]
        with face.opened(client.schedule.running()), face.opened(second.schedule.running()):
            for n in range(40):
                call("schedule_job", f"j.{n}", due_time=0, target=every[0].function)
            assert face.until(lambda: not call("list_jobs"), 30)
        ids = [id for runs in every for id in runs.ids]
        assert len(ids) == len(set(ids)) == 40

    @requires("schedule.claims")
    def test_a_jobs_runs_follow_one_another(
        self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness
    ) -> None:
        """Of what became due during a run, the latest is run after it."""
        runs = Runs(client, face)
        runs.hold = threading.Event()
        call("schedule_job", "j", schedule="@every 1m", due_time=0, repeats=5)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: len(runs.seen) == 1)
            for _ in range(3 * 6):
                # the lease is renewed meanwhile, as clocks never really go so fast
                harness.advance(10)
                face.pause(0.02)
            assert len(runs.seen) == 1
            runs.hold.set()
            assert face.until(lambda: len(runs.seen) == 2)
            harness.advance(60)
            assert face.until(lambda: not call("list_jobs"))
        assert [fire - runs.fires[0] for fire in runs.fires] == [timedelta(minutes=n) for n in (0, 3, 4)]

    # -- targets ------------------------------------------------------------

    @requires("rpc.host", "schedule.progress")
    def test_a_method(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        seen: list[tuple[Any, dict[str, str]]] = []

        @client.rpc.method("m")
        def method(data: Any, request: RpcRequest) -> None:
            seen.append((data, dict(request.headers)))
            if len(seen) == 1:
                raise ValueError

        with face.opened(client.schedule.running()):
            target = RpcTarget("suite", "m")
            arguments = {"target": target, "data": {"a": 1}, "failure_policy": Retry(1, 0)}
            call("schedule_job", "j", due_time=0, **arguments)
            assert face.until(lambda: not call("list_jobs"))
        assert [data for data, _ in seen] == [{"a": 1}] * 2
        assert [headers["job-attempt"] for _, headers in seen] == ["1", "2"]
        assert {headers["job-name"] for _, headers in seen} == {"j"}
        assert len({headers["job-run-id"] for _, headers in seen}) == 1

    @requires("schedule.list_runs")
    def test_a_topic(self, call: Call, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        bus = harness.store("pubsub")
        with face.opened(face.call(client.pubsub, "subscribe", bus, "t")) as events:
            with face.opened(client.schedule.running()):
                call("schedule_job", "j", due_time=0, target=TopicTarget(bus, "t"), data=[1])
                event = face.call(events, "receive", timeout=20)
            event.ack()
        assert event.data == [1]
        (record,) = call("list_runs", "j")
        assert event.id == record.run_id

    # -- at once ------------------------------------------------------------

    @requires("schedule.run_now", "schedule.list_runs")
    def test_run_now(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        call.fails(NotFoundError, match="'j'")("run_now", "j")
        call("schedule_job", "j", schedule="@yearly", data=1)
        before = call("get_job", "j")
        ids = [call("run_now", "j") for _ in range(3)]
        assert self._states(call) == ["waiting"] * 3
        with face.opened(client.schedule.running()):
            assert face.until(lambda: self._states(call) == ["succeeded"] * 3)
        assert runs.ids == ids
        assert len(set(ids)) == 3
        assert call("get_job", "j") == before
