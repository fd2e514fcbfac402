"""Conformance of a `ScheduleDriver`: jobs as they are stored, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, PayloadError, UnsupportedError
from ...schedule import Job, Retry, RpcTarget, TopicTarget
from ..faces import Face
from ..harness import Harness
from ._base import Call
from ._schedule import ScheduleCases

__all__ = ["OPTIONAL", "JobTests"]

OPTIONAL: list[tuple[str, str, dict[str, str]]] = [
    ("schedule.run_now", "run_now", {}),
    ("schedule.list_runs", "list_runs", {}),
    ("schedule.list_jobs", "list_jobs", {}),
    ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "skip"}),
    ("schedule.misfire", "schedule_job", {"schedule": "@hourly", "misfire": "all"}),
]
"""Features that a component may lack, each with a call that needs it."""
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
    ({"schedule": "@every 1h", "timezone": "Europe/Paris"}, "leave the time zone out"),
    ({"schedule": timedelta(hours=1), "timezone": "Europe/Paris"}, "leave the time zone out"),
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


class JobTests(ScheduleCases):
    """Jobs are kept whole, per application; what could never run is refused."""

    # -- jobs ---------------------------------------------------------------

    def test_store_get_list_delete(self, call: Call, client: CloudRuntimesClient, face: Face) -> None:
        service = client.schedule
        progress = not call.lacks("schedule.progress")
        assert self._names(call) in ([], None)
        face.fails(NotFoundError, match="'j'")(service, "get_job", "j")
        face.call(service, "delete_job", "j")
        before = datetime.now(UTC) - timedelta(seconds=5)
        for name in ("j", "a", "J"):
            face.call(service, "schedule_job", name, schedule="@hourly", data={"n": name})
        assert self._names(call) in (["J", "a", "j"], None)
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
        assert self._names(call) in (["J", "a"], None)
        face.fails(NotFoundError, match="'j'")(service, "get_job", "j")

    def test_every_argument_is_kept(self, call: Call, client: CloudRuntimesClient) -> None:
        due = datetime(2095, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        call(
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
        job = call("get_job", "j")
        assert (job.schedule, job.timezone, job.repeats) == ("15 3 * * MON", "Europe/Paris", 7)
        assert (job.due_time, job.expires_at) == (due, due + timedelta(days=30))
        progress = not call.lacks("schedule.progress")
        assert job.next_run == (due if progress else None)
        assert (job.data, job.target, job.failure_policy) == (b"\x00\xff", RpcTarget("orders", "sync/all"), "drop")
        call(
            "schedule_job",
            "k",
            schedule=timedelta(minutes=90),
            target=TopicTarget("bus", "t"),
            failure_policy=Retry(2, 0.5),
        )
        job = call("get_job", "k")
        assert (job.target, job.failure_policy, job.data) == (TopicTarget("bus", "t"), Retry(2, 0.5), None)
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

    def test_applications_are_apart(self, call: Call, face: Face, harness: Harness) -> None:
        other = harness.client(app_id="another")
        call("schedule_job", "j", schedule="@hourly", data=1)
        if not harness.applications:
            assert face.call(other.schedule, "get_job", "j").data == 1
            return
        face.call(other.schedule, "schedule_job", "j", schedule="@hourly", data=2)
        face.call(other.schedule, "delete_job", "j")
        assert call("get_job", "j").data == 1

    def test_names(self, call: Call) -> None:
        names = ["a", "A", "0", "a-b", "a_b", "a:b", "a b", "a.b.c", "-a", "x" * 253]
        for name in names:
            call("schedule_job", name, schedule="@hourly")
            assert call("get_job", name).name == name
        assert self._names(call) in (sorted(names), None)

    def test_what_is_no_name(self, call: Call, client: CloudRuntimesClient) -> None:
        wrong: list[Any] = ["", "-", "a||b", "a/b", "ü", "a..b", ".a", "a.", "a\n", "x" * 254, "a.-", 5, None, b"a"]
        for name in wrong:
            for method in ("get_job", "delete_job", "run_now", "list_runs"):
                call.fails(InvalidArgumentError, match="name is 1 to 253")(method, name)
            call.fails(InvalidArgumentError, match="name is 1 to 253")("schedule_job", name, schedule="@hourly")
            with pytest.raises(InvalidArgumentError, match="name is 1 to 253"):
                client.schedule.job(name)

    def test_what_is_no_job(self, call: Call) -> None:
        """Refused before anything is written."""
        for arguments, message in _NO_JOBS:
            kind: Any = PayloadError if "data" in arguments else InvalidArgumentError
            caught = call.fails(kind, match=message)("schedule_job", "j", **arguments)
            assert caught.operation == "schedule_job", arguments
            assert not caught.maybe_applied, arguments
        assert self._gone(call)

    def test_what_is_no_handler(self, client: CloudRuntimesClient) -> None:
        client.schedule.job("j")(lambda: None)
        with pytest.raises(InvalidArgumentError, match="'j' has a handler already"):
            client.schedule.job("j")(lambda: None)
        with pytest.raises(InvalidArgumentError, match="JobRun"):
            client.schedule.job("k")(lambda a, b, c: None)
        with pytest.raises(InvalidArgumentError, match="callable"):
            client.schedule.job("k")(5)  # type: ignore[type-var]

    # -- what is not declared -----------------------------------------------

    @pytest.mark.parametrize(("feature", "method", "arguments"), OPTIONAL)
    def test_undeclared(
        self, call: Call, client: CloudRuntimesClient, store: str, feature: str, method: str, arguments: dict[str, Any]
    ) -> None:
        names = () if method == "list_jobs" else ("j",)
        if self.lacks(client, feature, store):
            call.fails(UnsupportedError)(method, *names, **arguments)
        else:
            try:
                call(method, *names, **arguments)
            except NotFoundError:
                return
