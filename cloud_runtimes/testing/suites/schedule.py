"""Conformance of a `ScheduleDriver`, through the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import (
    AlreadyExistsError,
    ClosedError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    UnsupportedError,
)
from ...rpc import RpcRequest
from ...schedule import Job, JobRun, Retry, RpcTarget, RunRecord, TopicTarget
from ..faces import AsyncFace, Face
from ..harness import Harness, requires
from ._base import Suite, values

__all__ = ["ScheduleSuite"]

_HOUR = 3600.0
_NO_JOBS: list[tuple[dict[str, Any], str]] = [
    ({}, "schedule="),
    ({"schedule": "nonsense"}, "schedule 'nonsense'"),
    ({"schedule": "0 0 31 2 *"}, "31 2"),
    ({"schedule": 5}, "schedule must be"),
    ({"schedule": timedelta(0)}, "@every"),
    ({"schedule": timedelta(seconds=-5)}, "@every"),
    ({"schedule": "TZ=UTC 0 0 * * *"}, "timezone="),
    ({"due_time": "tomorrow"}, "due_time 'tomorrow'"),
    ({"due_time": datetime(2095, 1, 1)}, "time zone"),
    ({"due_time": "2095-01-01T00:00:00"}, "time zone"),
    ({"due_time": -1}, "due_time must be 0 or more"),
    ({"due_time": float("nan")}, "due_time must be 0 or more"),
    ({"due_time": float("inf")}, "due_time must be 0 or more"),
    ({"due_time": True}, "due_time must be"),
    ({"due_time": [1]}, "due_time must be"),
    ({"due_time": datetime(1960, 1, 1, tzinfo=UTC)}, "after 1970"),
    ({"due_time": 1, "repeats": 2}, "repeats"),
    ({"due_time": 1, "ttl": 5}, "ttl= needs"),
    ({"schedule": "@hourly", "repeats": 0}, "repeats must be"),
    ({"schedule": "@hourly", "repeats": True}, "repeats must be"),
    ({"schedule": "@hourly", "repeats": 1.5}, "repeats must be"),
    ({"schedule": "@hourly", "ttl": 0}, "ttl must be"),
    ({"schedule": "@hourly", "ttl": -1}, "ttl must be"),
    ({"schedule": "@hourly", "ttl": "soon"}, "ttl 'soon'"),
    ({"schedule": "@every 1h", "ttl": 60}, "never run"),
    ({"schedule": "@hourly", "ttl": datetime(2020, 1, 1, tzinfo=UTC)}, "never run"),
    ({"schedule": "@hourly", "misfire": "never"}, "misfire must be"),
    ({"schedule": "@hourly", "misfire": None}, "misfire must be"),
    ({"schedule": "@hourly", "timezone": "Mars/Olympus"}, "Mars/Olympus"),
    ({"schedule": "@hourly", "timezone": None}, "timezone"),
    ({"due_time": 1, "timezone": "../UTC"}, "timezone"),
    ({"schedule": "@hourly", "overwrite": 1}, "overwrite must be"),
    ({"schedule": "@hourly", "failure_policy": "retry"}, "failure_policy must be"),
    ({"schedule": "@hourly", "failure_policy": Retry(-1)}, "Retry.attempts"),
    ({"schedule": "@hourly", "failure_policy": Retry(1.5)}, "Retry.attempts"),  # type: ignore[arg-type]
    ({"schedule": "@hourly", "failure_policy": Retry(1, -1.0)}, "Retry.interval"),
    ({"schedule": "@hourly", "failure_policy": Retry(1, float("nan"))}, "Retry.interval"),
    ({"schedule": "@hourly", "target": "j"}, "target must be the handler"),
    ({"schedule": "@hourly", "target": 5}, "target must be"),
    ({"schedule": "@hourly", "target": print}, "no handler of this client"),
    ({"schedule": "@hourly", "target": RpcTarget("http://x", "m")}, "app_id"),
    ({"schedule": "@hourly", "target": RpcTarget("s", "../m")}, "method"),
    ({"schedule": "@hourly", "target": TopicTarget("", "t")}, "pubsub_name"),
    ({"schedule": "@hourly", "target": TopicTarget("b", "")}, "topic"),
    ({"schedule": "@hourly", "data": float("nan")}, "payload|NaN|JSON|object"),
    ({"schedule": "@hourly", "data": object()}, "payload|NaN|JSON|object"),
    ({"schedule": "@hourly", "timeout": 0}, "timeout"),
    ({"schedule": "@hourly", "metadata": {"a": 1}}, "metadata"),
]


class Runs:
    """A handler that notes what it is given, in both faces."""

    def __init__(self, client: CloudRuntimesClient, face: Face, name: str = "j", **options: Any) -> None:
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
            if self.hold is not None:
                assert self.hold.wait(30)

        self.function: Callable[..., Any] = note_async if isinstance(face, AsyncFace) else note_plain
        client.schedule.job(name, **options)(self.function)

    @property
    def ids(self) -> list[str]:
        return [run.run_id for _, run in self.seen]

    @property
    def fires(self) -> list[datetime]:
        return [run.fire_time for _, run in self.seen]


class ScheduleSuite(Suite):
    """Each occurrence at least once with one id; misfire and failure policies applied exactly, and what is skipped is listed."""

    service = "schedule"

    # -- jobs -------------------------------------------------------------

    def test_store_get_list_delete(self, client: CloudRuntimesClient, face: Face) -> None:
        service = client.schedule
        progress = not self.lacks(client, "schedule.progress", "default")
        assert self._names(client, face) in ([], None)
        with pytest.raises(NotFoundError, match="'j'"):
            face.call(service, "get_job", "j")
        face.call(service, "delete_job", "j")
        before = datetime.now(UTC) - timedelta(seconds=5)
        for name in ("j", "a", "J"):
            face.call(service, "schedule_job", name, schedule="@hourly", data={"n": name})
        assert self._names(client, face) in (["J", "a", "j"], None)
        job = face.call(service, "get_job", "j")
        assert isinstance(job, Job)
        assert progress is (job.created_at is not None)
        if job.created_at is not None:
            assert job.created_at >= before
            assert job.next_run is not None
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
        face.call(service, "delete_job", "j")
        assert self._names(client, face) in (["J", "a"], None)
        with pytest.raises(NotFoundError, match="'j'"):
            face.call(service, "get_job", "j")

    def test_every_argument_is_kept(self, client: CloudRuntimesClient, face: Face) -> None:
        due = datetime(2095, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        face.call(
            client.schedule,
            "schedule_job",
            "j",
            schedule="15 3 * * MON",
            due_time=due,
            repeats=7,
            ttl="P30D",
            data=b"\x00\xff",
            target=RpcTarget("orders", "sync/all"),
            failure_policy="drop",
            timezone="Europe/Paris",
        )
        job = face.call(client.schedule, "get_job", "j")
        assert (job.schedule, job.timezone, job.repeats) == ("15 3 * * MON", "Europe/Paris", 7)
        assert (job.due_time, job.expires_at) == (due, due + timedelta(days=30))
        progress = not self.lacks(client, "schedule.progress", "default")
        assert job.next_run == (due if progress else None)
        assert (job.data, job.target, job.failure_policy) == (b"\x00\xff", RpcTarget("orders", "sync/all"), "drop")
        face.call(
            client.schedule,
            "schedule_job",
            "k",
            schedule=timedelta(minutes=90),
            target=TopicTarget("bus", "t"),
            failure_policy=Retry(2, 0.5),
        )
        job = face.call(client.schedule, "get_job", "k")
        assert (job.target, job.failure_policy, job.data) == (TopicTarget("bus", "t"), Retry(2, 0.5), None)
        if progress:
            assert abs(job.next_run - job.created_at - timedelta(minutes=90)) < timedelta(seconds=1)

    def test_overwrite(self, client: CloudRuntimesClient, face: Face) -> None:
        service = client.schedule
        face.call(service, "schedule_job", "j", schedule="@daily", data=1)
        with pytest.raises(AlreadyExistsError, match="'j'") as caught:
            face.call(service, "schedule_job", "j", schedule="@hourly", data=2)
        assert (caught.value.operation, caught.value.maybe_applied) == ("schedule_job", False)
        assert face.call(service, "get_job", "j").data == 1
        face.call(service, "schedule_job", "j", schedule="@hourly", data=2, overwrite=True)
        job = face.call(service, "get_job", "j")
        assert (job.data, job.schedule) == (2, "@hourly")
        if not self.lacks(client, "schedule.progress", "default"):
            assert job.next_run - datetime.now(UTC) <= timedelta(hours=1)
        face.call(service, "schedule_job", "new", schedule="@hourly", overwrite=True)

    def test_applications_are_apart(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        other = harness.client(app_id="another")
        face.call(client.schedule, "schedule_job", "j", schedule="@hourly", data=1)
        if not harness.applications:
            assert face.call(other.schedule, "get_job", "j").data == 1
            return
        face.call(other.schedule, "schedule_job", "j", schedule="@hourly", data=2)
        face.call(other.schedule, "delete_job", "j")
        assert face.call(client.schedule, "get_job", "j").data == 1

    def test_names(self, client: CloudRuntimesClient, face: Face) -> None:
        names = ["a", "A", "0", "a-b", "a_b", "a:b", "a b", "a.b.c", "-a", "x" * 253]
        for name in names:
            face.call(client.schedule, "schedule_job", name, schedule="@hourly")
            assert face.call(client.schedule, "get_job", name).name == name
        assert self._names(client, face) in (sorted(names), None)

    def test_what_is_no_name(self, client: CloudRuntimesClient, face: Face) -> None:
        wrong: list[Any] = ["", "-", "a||b", "a/b", "ü", "a..b", ".a", "a.", "a\n", "x" * 254, "a.-", 5, None, b"a"]
        for name in wrong:
            for method in ("get_job", "delete_job", "run_now", "list_runs"):
                with pytest.raises(InvalidArgumentError, match="name is 1 to 253"):
                    face.call(client.schedule, method, name)
            with pytest.raises(InvalidArgumentError, match="name is 1 to 253"):
                face.call(client.schedule, "schedule_job", name, schedule="@hourly")
            with pytest.raises(InvalidArgumentError, match="name is 1 to 253"):
                client.schedule.job(name)

    def test_what_is_no_job(self, client: CloudRuntimesClient, face: Face) -> None:
        """Refused before anything is written."""
        for arguments, message in _NO_JOBS:
            kind: Any = PayloadError if "data" in arguments else InvalidArgumentError
            with pytest.raises(kind, match=message) as caught:
                face.call(client.schedule, "schedule_job", "j", **arguments)
            assert caught.value.operation == "schedule_job", arguments
            assert not caught.value.maybe_applied, arguments
        assert self._gone(client, face)

    def test_what_is_no_handler(self, client: CloudRuntimesClient) -> None:
        client.schedule.job("j")(lambda: None)
        with pytest.raises(InvalidArgumentError, match="'j' has a handler already"):
            client.schedule.job("j")(lambda: None)
        with pytest.raises(InvalidArgumentError, match="JobRun"):
            client.schedule.job("k")(lambda a, b, c: None)
        with pytest.raises(InvalidArgumentError, match="callable"):
            client.schedule.job("k")(5)  # type: ignore[type-var]

    # -- running ----------------------------------------------------------

    def test_once(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        runs = Runs(client, face)
        due = datetime.now(UTC) + timedelta(hours=1)
        face.call(client.schedule, "schedule_job", "j", due_time=due.isoformat(), data={"a": 1})
        with face.opened(client.schedule.running()):
            face.pause(0.05)
            assert not runs.seen
            harness.advance(_HOUR)
            assert face.until(lambda: len(runs.seen) == 1)
            assert face.until(lambda: self._gone(client, face))
        data, run = runs.seen[0]
        assert data == {"a": 1}
        assert (run.name, run.attempt) == ("j", 1)
        if not self.lacks(client, "schedule.progress", "default"):
            assert abs(run.fire_time - due) < timedelta(milliseconds=2)
        with pytest.raises(NotFoundError):
            face.call(client.schedule, "get_job", "j")

    @pytest.mark.parametrize("due", [0, "0s", timedelta(0), "2020-01-01T00:00:00Z"])
    def test_due_at_once(self, client: CloudRuntimesClient, face: Face, due: Any) -> None:
        runs = Runs(client, face)
        with face.opened(client.schedule.running()):
            face.call(client.schedule, "schedule_job", "j", due_time=due)
            assert face.until(lambda: len(runs.seen) == 1)

    def test_again_and_again(self, client: CloudRuntimesClient, face: Face) -> None:
        """In real time: as many as there are to be, in order, evenly spaced, each with an id of its own."""
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="@every 200ms", repeats=4, misfire="once")
        with face.opened(client.schedule.running()):
            assert face.until(lambda: self._gone(client, face))
        spaces = {b - a for a, b in pairwise(runs.fires)}
        if not self.lacks(client, "schedule.progress", "default"):
            # what a busy machine made late may have been skipped
            assert all(space % timedelta(milliseconds=200) == timedelta(0) for space in spaces)
        assert 1 <= len(set(runs.ids)) == len(runs.ids) <= 4

    @requires("schedule.progress")
    def test_cron_in_a_time_zone(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="30 9 * * *", timezone="Asia/Kathmandu")
        due = face.call(client.schedule, "get_job", "j").next_run
        assert (due.hour, due.minute) == (3, 45)  # 05:45 ahead, all the year
        with face.opened(client.schedule.running()):
            harness.advance((due - datetime.now(UTC)).total_seconds() + 1)
            assert face.until(lambda: runs.fires == [due])
            assert face.call(client.schedule, "get_job", "j").next_run == due + timedelta(days=1)

    @requires("schedule.progress")
    def test_first_at_the_due_time_then_by_the_schedule(
        self, client: CloudRuntimesClient, face: Face, harness: Harness
    ) -> None:
        runs = Runs(client, face)
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        face.call(client.schedule, "schedule_job", "j", schedule="@every 1h", due_time=due, ttl="2h30m")
        with face.opened(client.schedule.running()):
            harness.advance(601)
            for n in (1, 2, 3):
                assert face.until(lambda n=n: len(runs.seen) == n)  # type: ignore[misc]
                harness.advance(_HOUR)
            assert face.until(lambda: not face.call(client.schedule, "list_jobs"))
        assert runs.fires == [due + timedelta(hours=n) for n in range(3)]

    def test_what_handlers_take(self, client: CloudRuntimesClient, face: Face) -> None:
        seen: list[Any] = []
        service = client.schedule
        service.job("none")(lambda: seen.append("none"))
        service.job("data")(lambda data: seen.append(data))

        @service.job("async")
        async def handler(data: Any, run: JobRun) -> None:
            seen.append((data, run.name))

        with face.opened(service.running()):
            for name in ("none", "data", "async"):
                face.call(service, "schedule_job", name, due_time=0, data=[name])
            assert face.until(lambda: len(seen) == 3)
        assert {"none", "('async', 'async')"} < {str(each).replace("['async']", "'async'") for each in seen}
        assert ["data"] in seen

    def test_data(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        given = values(b"", b"\x00\xff", bytearray(b"b"))
        with face.opened(client.schedule.running()):
            for n, value in enumerate(given):
                face.call(client.schedule, "schedule_job", f"j.{n}", due_time=0, data=value, target=runs.function)
            assert face.until(lambda: len(runs.seen) == len(given), 30)
        assert {run.name: data for data, run in runs.seen} == {f"j.{n}": value for n, value in enumerate(given)}

    @requires("schedule.list_runs")
    def test_typed_data(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face, type=dict[str, int])
        with face.opened(client.schedule.running()):
            face.call(client.schedule, "schedule_job", "j", due_time=0, data={"a": 1})
            assert face.until(lambda: bool(runs.seen))
            other = {"due_time": 0, "target": runs.function, "failure_policy": "drop"}
            face.call(client.schedule, "schedule_job", "bad", data={"a": "x"}, **other)
            assert face.until(lambda: self._states(client, face, "bad") == ["failed"])
        (record,) = face.call(client.schedule, "list_runs", "bad")
        assert "PayloadError" in record.error
        assert len(runs.seen) == 1

    @requires("schedule.claims")
    def test_a_job_waits_for_a_process_that_has_its_handler(
        self, client: CloudRuntimesClient, face: Face, harness: Harness
    ) -> None:
        second = harness.client()
        runs = Runs(second, face, "theirs")
        mine = Runs(client, face, "mine")
        with face.opened(client.schedule.running()):
            face.call(client.schedule, "schedule_job", "theirs", due_time=0, data=1)
            face.call(client.schedule, "schedule_job", "mine", due_time=0)
            assert face.until(lambda: len(mine.seen) == 1)
            assert not runs.seen
            assert face.call(client.schedule, "get_job", "theirs").occurrences == 0
            with face.opened(second.schedule.running()):
                assert face.until(lambda: len(runs.seen) == 1)

    @requires("schedule.claims")
    def test_a_handler_registered_later(self, client: CloudRuntimesClient, face: Face) -> None:
        face.call(client.schedule, "schedule_job", "j", due_time=0)
        with face.opened(client.schedule.running()):
            face.pause(0.05)
            runs = Runs(client, face)
            assert face.until(lambda: len(runs.seen) == 1)

    @requires("schedule.claims")
    def test_several_share(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """Each occurrence is run by one of them."""
        second = harness.client()
        every = [Runs(client, face), Runs(second, face)]
        with face.opened(client.schedule.running()), face.opened(second.schedule.running()):
            for n in range(40):
                face.call(client.schedule, "schedule_job", f"j.{n}", due_time=0, target=every[0].function)
            assert face.until(lambda: not face.call(client.schedule, "list_jobs"), 30)
        ids = [id for runs in every for id in runs.ids]
        assert len(ids) == len(set(ids)) == 40

    @requires("schedule.claims")
    def test_a_jobs_runs_follow_one_another(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """Of what became due during a run, the latest is run after it."""
        runs = Runs(client, face)
        runs.hold = threading.Event()
        face.call(client.schedule, "schedule_job", "j", schedule="@every 1m", due_time=0, repeats=5)
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
            assert face.until(lambda: not face.call(client.schedule, "list_jobs"))
        assert [fire - runs.fires[0] for fire in runs.fires] == [timedelta(minutes=n) for n in (0, 3, 4)]

    # -- missed -----------------------------------------------------------

    @requires("schedule.list_runs")
    def test_missed_once(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """However late: the latest is run, the others are skipped, counted and listed."""
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="@every 1h")
        first = face.call(client.schedule, "get_job", "j").next_run
        harness.advance(30 * 24 * _HOUR + 60)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: self._states(client, face).count("succeeded") == 1)
        assert runs.fires == [first + timedelta(hours=719)]
        job = face.call(client.schedule, "get_job", "j")
        assert (job.occurrences, job.skipped, job.next_run) == (720, 719, first + timedelta(hours=720))
        history = face.call(client.schedule, "list_runs", "j")
        skipped = [each for each in history if each.status == "skipped"]
        assert sum(each.count for each in skipped) == 719
        assert (skipped[0].fire_time, skipped[-1].last_fire_time) == (first, first + timedelta(hours=718))
        for before, after in pairwise(skipped):
            assert after.fire_time - before.last_fire_time == timedelta(hours=1)
        assert all(each.last_fire_time - each.fire_time == timedelta(hours=each.count - 1) for each in skipped)

    @requires("schedule.list_runs")
    def test_very_many_missed(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """Ten days of a cron of each second: counted exactly, and soon over."""
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="* * * * * *")
        first = face.call(client.schedule, "get_job", "j").next_run
        harness.advance(10 * 24 * _HOUR)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: bool(runs.seen), 30)
        history = face.call(client.schedule, "list_runs", "j")
        assert history[0].fire_time == first
        assert sum(each.count for each in history) >= 864_000
        for before, after in pairwise(history):
            assert after.fire_time - before.last_fire_time == timedelta(seconds=1)
            assert before.last_fire_time - before.fire_time == timedelta(seconds=before.count - 1)
        job = face.call(client.schedule, "get_job", "j")
        assert job.occurrences == sum(each.count for each in history)
        assert job.skipped == sum(each.count for each in history if each.status == "skipped")

    @requires("schedule.list_runs", "schedule.misfire")
    @pytest.mark.parametrize(("late", "expected"), [(60, ["skipped"] * 3), (2, ["skipped", "skipped", "succeeded"])])
    def test_missed_skip(
        self, client: CloudRuntimesClient, face: Face, harness: Harness, late: float, expected: list[str]
    ) -> None:
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="0 * * * *", misfire="skip")
        first = face.call(client.schedule, "get_job", "j").next_run
        harness.advance((first - datetime.now(UTC)).total_seconds() + 2 * _HOUR + late)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: self._states(client, face) == expected)
            job = face.call(client.schedule, "get_job", "j")
            assert (job.occurrences, job.skipped) == (3, expected.count("skipped"))
            harness.advance(_HOUR - late + 1)
            assert face.until(lambda: self._states(client, face) == [*expected, "succeeded"])
        assert runs.fires[-1] == first + timedelta(hours=3)

    @requires("schedule.list_runs", "schedule.misfire")
    def test_missed_all(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="*/10 * * * *", misfire="all", repeats=50)
        first = face.call(client.schedule, "get_job", "j").next_run
        harness.advance(12 * _HOUR)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: not face.call(client.schedule, "list_jobs"), 30)
        assert runs.fires == [first + timedelta(minutes=10 * n) for n in range(50)]
        assert self._states(client, face) == ["succeeded"] * 50

    @requires("schedule.list_runs", "schedule.misfire")
    def test_a_missed_last_one(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        """A job without another occurrence is gone, whether it ran or was skipped."""
        runs = Runs(client, face)
        for misfire in ("once", "skip", "all"):
            arguments = {"due_time": 60, "misfire": misfire, "target": runs.function}
            face.call(client.schedule, "schedule_job", misfire, **arguments)
        harness.advance(2 * _HOUR)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: not face.call(client.schedule, "list_jobs"))
        assert sorted(run.name for _, run in runs.seen) == ["all", "once"]
        assert self._states(client, face, "skip") == ["skipped"]

    @requires("schedule.list_runs")
    def test_an_overwrite_with_the_same_schedule_forgets_nothing(
        self, client: CloudRuntimesClient, face: Face, harness: Harness
    ) -> None:
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", schedule="@daily", data=1)
        due = face.call(client.schedule, "get_job", "j").next_run
        harness.advance((due - datetime.now(UTC)).total_seconds() + 60)
        face.call(client.schedule, "schedule_job", "j", schedule="@daily", data=2, overwrite=True)
        with face.opened(client.schedule.running()):
            assert face.until(lambda: len(runs.seen) == 1)
        assert runs.fires == [due]
        assert runs.seen[0][0] == 2

    # -- failures ---------------------------------------------------------

    @requires("schedule.list_runs")
    def test_retry(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        runs.fails = 2
        with face.opened(client.schedule.running()):
            face.call(client.schedule, "schedule_job", "j", due_time=0, failure_policy=Retry(3, 0.01))
            assert face.until(lambda: self._states(client, face) == ["succeeded"])
        assert [run.attempt for _, run in runs.seen] == [1, 2, 3]
        assert len(set(runs.ids)) == 1
        (record,) = face.call(client.schedule, "list_runs", "j")
        assert isinstance(record, RunRecord)
        assert (record.run_id, record.attempt, record.error) == (runs.ids[0], 3, None)
        assert record.started_at is not None
        assert record.ended_at is not None
        assert record.fire_time <= record.started_at <= record.ended_at

    @requires("schedule.list_runs")
    @pytest.mark.parametrize(("policy", "tries"), [("drop", 1), (Retry(0), 1), (Retry(2, 0), 3)])
    def test_failed_for_good(self, client: CloudRuntimesClient, face: Face, policy: Any, tries: int) -> None:
        """The job goes on with its next occurrence."""
        runs = Runs(client, face)
        runs.fails = tries
        with face.opened(client.schedule.running()):
            arguments = {"schedule": "@every 300ms", "due_time": 0, "failure_policy": policy}
            face.call(client.schedule, "schedule_job", "j", **arguments)
            assert face.until(lambda: "succeeded" in self._states(client, face))
        first, *_ = face.call(client.schedule, "list_runs", "j")
        assert (first.status, first.attempt, first.error) == ("failed", tries, f"ValueError: attempt {tries}")
        assert runs.ids[:tries] == [first.run_id] * tries
        assert runs.ids[tries] != first.run_id

    @requires("schedule.list_runs")
    def test_delete_cancels_what_waits(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        runs.fails = 1
        with face.opened(client.schedule.running()):
            arguments = {"schedule": "@hourly", "due_time": 0, "failure_policy": Retry(3, 600)}
            face.call(client.schedule, "schedule_job", "j", **arguments)
            assert face.until(lambda: self._states(client, face) == ["waiting"])
            face.call(client.schedule, "delete_job", "j")
            assert self._states(client, face) == ["cancelled"]

    @requires("schedule.list_runs")
    def test_deleted_during_its_run(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        runs.hold = threading.Event()
        with face.opened(client.schedule.running()):
            face.call(client.schedule, "schedule_job", "j", schedule="@hourly", due_time=0)
            assert face.until(lambda: bool(runs.seen))
            face.call(client.schedule, "delete_job", "j")
            runs.hold.set()
            assert face.until(lambda: self._states(client, face) == ["succeeded"])
        assert face.call(client.schedule, "list_jobs") == []

    # -- targets ----------------------------------------------------------

    @requires("rpc.host", "schedule.progress")
    def test_a_method(self, client: CloudRuntimesClient, face: Face) -> None:
        seen: list[tuple[Any, dict[str, str]]] = []

        @client.rpc.method("m")
        def method(data: Any, request: RpcRequest) -> None:
            seen.append((data, dict(request.headers)))
            if len(seen) == 1:
                raise ValueError

        with face.opened(client.schedule.running()):
            target = RpcTarget("suite", "m")
            arguments = {"target": target, "data": {"a": 1}, "failure_policy": Retry(1, 0)}
            face.call(client.schedule, "schedule_job", "j", due_time=0, **arguments)
            assert face.until(lambda: not face.call(client.schedule, "list_jobs"))
        assert [data for data, _ in seen] == [{"a": 1}] * 2
        assert [headers["job-attempt"] for _, headers in seen] == ["1", "2"]
        assert {headers["job-name"] for _, headers in seen} == {"j"}
        assert len({headers["job-run-id"] for _, headers in seen}) == 1

    @requires("schedule.list_runs")
    def test_a_topic(self, client: CloudRuntimesClient, face: Face, harness: Harness) -> None:
        bus = harness.store("pubsub")
        with face.opened(face.call(client.pubsub, "subscribe", bus, "t")) as events:
            with face.opened(client.schedule.running()):
                face.call(client.schedule, "schedule_job", "j", due_time=0, target=TopicTarget(bus, "t"), data=[1])
                event = face.call(events, "receive", timeout=20)
            event.ack()
        assert event.data == [1]
        (record,) = face.call(client.schedule, "list_runs", "j")
        assert event.id == record.run_id

    # -- at once ----------------------------------------------------------

    @requires("schedule.run_now", "schedule.list_runs")
    def test_run_now(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        with pytest.raises(NotFoundError, match="'j'"):
            face.call(client.schedule, "run_now", "j")
        face.call(client.schedule, "schedule_job", "j", schedule="@yearly", data=1)
        before = face.call(client.schedule, "get_job", "j")
        ids = [face.call(client.schedule, "run_now", "j") for _ in range(3)]
        assert self._states(client, face) == ["waiting"] * 3
        with face.opened(client.schedule.running()):
            assert face.until(lambda: self._states(client, face) == ["succeeded"] * 3)
        assert runs.ids == ids
        assert len(set(ids)) == 3
        assert face.call(client.schedule, "get_job", "j") == before

    # -- the handle -------------------------------------------------------

    def test_close_lets_a_handler_end(self, client: CloudRuntimesClient, face: Face) -> None:
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
        client.schedule.job("j")(slow_async if isinstance(face, AsyncFace) else slow)
        face.call(client.schedule, "schedule_job", "j", schedule="@every 100ms", due_time=0)
        with face.opened(client.schedule.running()):
            assert face.until(begun.is_set)
        assert done
        count = len(done)
        face.pause(0.3)
        assert len(done) == count

    def test_a_runner_runs_once(self, client: CloudRuntimesClient, face: Face) -> None:
        runner = client.schedule.running()
        with face.opened(runner):
            pass
        face.call(runner, "close")
        with pytest.raises(ClosedError), face.opened(runner):
            pass

    def test_run_ends_with_the_client(self, face: Face, harness: Harness) -> None:
        client = harness.client()
        runs = Runs(client, face)
        face.call(client.schedule, "schedule_job", "j", due_time=0)
        timer = threading.Thread(target=lambda: self._close_after(client, runs))
        timer.start()
        face.call(client.schedule, "run")
        timer.join(30)
        assert len(runs.seen) == 1
        with pytest.raises(ClosedError):
            face.call(client.schedule, "schedule_job", "j", due_time=0)
        with pytest.raises(ClosedError):
            client.schedule.job("k")

    @staticmethod
    def _close_after(client: CloudRuntimesClient, runs: Runs) -> None:
        while not runs.seen:
            threading.Event().wait(0.01)
        client.close()

    @requires("rpc.host")
    def test_serving_runs_jobs(self, client: CloudRuntimesClient, face: Face) -> None:
        runs = Runs(client, face)
        with face.opened(client.rpc.serving()):
            face.call(client.schedule, "schedule_job", "j", due_time=0)
            assert face.until(lambda: len(runs.seen) == 1)

    # -- what is not declared ---------------------------------------------

    @pytest.mark.parametrize(
        ("feature", "method", "arguments"),
        [
            ("schedule.run_now", "run_now", {}),
            ("schedule.list_runs", "list_runs", {}),
            ("schedule.list_jobs", "list_jobs", {}),
            ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "skip"}),
            ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "all"}),
        ],
    )
    def test_undeclared(
        self, client: CloudRuntimesClient, face: Face, store: str, feature: str, method: str, arguments: dict[str, Any]
    ) -> None:
        names = () if method == "list_jobs" else ("j",)
        if self.lacks(client, feature, store):
            with pytest.raises(UnsupportedError):
                face.call(client.schedule, method, *names, **arguments)
        else:
            try:
                face.call(client.schedule, method, *names, **arguments)
            except NotFoundError:
                return

    def _names(self, client: CloudRuntimesClient, face: Face) -> list[str] | None:
        """Return the names of all jobs, ``None`` where they cannot be listed."""
        if self.lacks(client, "schedule.list_jobs", "default"):
            return None
        return [each.name for each in face.call(client.schedule, "list_jobs")]

    @staticmethod
    def _gone(client: CloudRuntimesClient, face: Face, name: str = "j") -> bool:
        try:
            face.call(client.schedule, "get_job", name)
        except NotFoundError:
            return True
        return False

    @staticmethod
    def _states(client: CloudRuntimesClient, face: Face, name: str = "j") -> list[str]:
        return [each.status for each in face.call(client.schedule, "list_runs", name)]
