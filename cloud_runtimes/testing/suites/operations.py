"""Conformance of what drivers of locks, services and jobs tell ``client.admin``, and let it mend."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...errors import ConflictError, InvalidArgumentError, LeaseLostError, NotFoundError, UnsupportedError
from ...schedule import JobRun, Retry
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite
from ._pubsub_answers import APART

_CLOCKS = timedelta(seconds=5)
_METHODS: list[tuple[str, tuple[Any, ...]]] = [
    ("services", ()),
    ("jobs", ()),
    ("pause_job", ("j",)),
    ("resume_job", ("j",)),
    ("retry_run", ("j", "r")),
]


class OperationsSuite(Suite):
    """Breaking a lock must let nobody hold it with the old token. A paused job must have no occurrence."""

    service = "lock"

    @pytest.fixture
    def admin(self, client: CloudRuntimesClient, api: Api) -> Call:
        """Operations without a component."""
        return Call(api, client, "admin")

    @pytest.fixture
    def on(self, client: CloudRuntimesClient, api: Api, store: str) -> Call:
        """Operations on the test's own store of locks."""
        return Call(api, client, "admin", store)

    def test_undeclared_features_are_refused(self, admin: Call, on: Call) -> None:
        for method, arguments in _METHODS:
            if admin.lacks(f"admin.{method}"):
                admin.fails(UnsupportedError, match=f"admin.{method} is not supported")(method, *arguments)
        for method, arguments in ("locks", ()), ("break_lock", ("r", 1)):
            if on.lacks(f"admin.{method}"):
                on.fails(UnsupportedError, match=f"admin.{method} is not supported")(method, *arguments)

    def test_wrong_arguments_are_refused(self, admin: Call, on: Call) -> None:
        wrong: list[tuple[Call, str, tuple[Any, ...], dict[str, Any]]] = [
            (on, "locks", (), {"limit": 0}),
            (on, "locks", (), {"prefix": 1}),
            (on, "break_lock", ("r", "1"), {}),
            (on, "break_lock", ("", 1), {}),
            (admin, "services", (), {"prefix": b"x"}),
            (admin, "jobs", (), {"limit": True}),
            (admin, "pause_job", ("",), {}),
            (admin, "resume_job", ("j",), {"app_id": ""}),
            (admin, "retry_run", ("j", 1), {}),
            (admin, "stores", (), {"timeout": 0}),
            (admin, "overview", (), {"limit": 0}),
            (admin, "overview", (), {"dead_letter_topics": "dead"}),
        ]
        for caller, method, arguments, options in wrong:
            if not caller.lacks(f"admin.{method}"):
                caller.fails(InvalidArgumentError)(method, *arguments, **options)

    # -- locks ----------------------------------------------------------------

    @requires("admin.locks")
    def test_locks(self, on: Call, call: Call, api: Api) -> None:
        assert on("locks") == []
        before = datetime.now(UTC)
        leases = [call("try_lock", name, "me", expiry=60) for name in ("b/2", "b/1", "ü x")]
        first, second, _ = found = on("locks")
        assert [each.resource_id for each in found] == ["b/1", "b/2", "ü x"]
        assert (first.owner, first.token) == ("me", leases[1].token)
        for lock in (first, second):
            assert lock.since is None or before - _CLOCKS < lock.since < datetime.now(UTC) + _CLOCKS
            assert lock.expires_at is None or timedelta(0) < lock.expires_at - before < timedelta(seconds=70)
            assert lock.waiting in (0, None)
        assert [each.resource_id for each in on("locks", prefix="b/")] == ["b/1", "b/2"]
        assert len(on("locks", limit=2)) == 2
        if not call.lacks("lock.renew"):
            since = first.since
            api.call(leases[1], "renew")
            assert on("locks")[0].since == since
        api.call(leases[0], "release")
        assert [each.resource_id for each in on("locks")] == ["b/1", "ü x"]

    @requires("admin.locks", "admin.break_lock", "lock.fair")
    def test_who_waits_is_counted(self, on: Call, call: Call, api: Api, harness: Harness, store: str) -> None:
        lease = call("try_lock", "r", expiry=60)
        waiter = harness.client().lock.hold(store, "r", wait=30)
        thread = threading.Thread(target=waiter.__enter__)
        thread.start()
        assert api.until(lambda: [each.waiting for each in on("locks")] == [1])
        on("break_lock", "r", lease.token)
        thread.join(30)
        (lock,) = on("locks")
        assert lock.token > lease.token
        assert lock.waiting == 0
        waiter.__exit__(None, None, None)

    @requires("admin.break_lock", "admin.locks")
    def test_break_lock(self, on: Call, call: Call, api: Api) -> None:
        on.fails(NotFoundError, match="nobody holds the lock 'r'")("break_lock", "r", 1)
        lease = call("try_lock", "r", expiry=60)
        error = on.fails(ConflictError, match="another token")("break_lock", "r", lease.token + 1)
        assert not error.maybe_applied
        assert call("try_lock", "r") is None
        on("break_lock", "r", lease.token)
        assert on("locks") == []
        on.fails(NotFoundError)("break_lock", "r", lease.token)
        following = call("try_lock", "r", expiry=60)
        assert following.token > lease.token
        for method in ("renew", "release"):
            if method == "release" or not call.lacks("lock.renew"):
                with pytest.raises(LeaseLostError):
                    api.call(lease, method)
        assert [each.token for each in on("locks")] == [following.token]
        on.fails(ConflictError)("break_lock", "r", lease.token)

    # -- services -------------------------------------------------------------

    @requires("admin.services")
    def test_services(self, admin: Call, client: CloudRuntimesClient, harness: Harness) -> None:
        assert admin("services") == []
        before = datetime.now(UTC)
        other = harness.client(app_id="shop.eu")
        other.rpc.register_method("orders/get", lambda: 1)
        other.rpc.register_method("add", lambda: 2)
        with other.rpc.serving(port=0) as server:
            (service,) = admin("services")
            assert (service.app_id, service.methods) == ("shop.eu", ("add", "orders/get"))
            for instance in service.instances:
                assert instance.address == server.address
                assert instance.pid is not None
                assert instance.host
                assert instance.version
                assert before - _CLOCKS < instance.since < datetime.now(UTC) + _CLOCKS
            assert admin("services", prefix="shop") == [service]
            assert admin("services", prefix="x") == []
        assert not [each for each in admin("services") if each.instances]

    # -- jobs -----------------------------------------------------------------

    @pytest.fixture
    def jobs(self, client: CloudRuntimesClient, api: Api) -> Call:
        """The jobs of the client's application."""
        return Call(api, client, "schedule")

    @requires("admin.jobs")
    def test_jobs(self, admin: Call, jobs: Call, harness: Harness) -> None:
        assert admin("jobs") == []
        jobs("schedule_job", "later", schedule="@daily")
        jobs("schedule_job", "b", schedule="@hourly")
        jobs.on(harness.client(app_id="z.another"))("schedule_job", "b", due_time=3600, data={"n": 1})
        first, second, third = found = admin("jobs")
        assert [each.name for each in found] == ["b", "later", "b"]
        assert third.app_id == "z.another"
        assert (first.schedule, third.schedule) == ("@hourly", None)
        for job in (first, second, third):
            assert job.next_run > datetime.now(UTC)
            assert (job.last_run, job.last_error, job.failed, job.running, job.paused) == (None, None, 0, False, False)
        assert [each.name for each in admin("jobs", prefix="l")] == ["later"]
        assert len(admin("jobs", limit=2)) == 2

    @requires("admin.pause_job", "admin.resume_job", "admin.jobs")
    def test_pause_job(self, admin: Call, jobs: Call, api: Api, harness: Harness, client: CloudRuntimesClient) -> None:
        admin.fails(NotFoundError, match="no job 'j'")("pause_job", "j")
        admin.fails(NotFoundError, match="'nobody' has no job 'j'")("resume_job", "j", app_id="nobody")
        ran: list[JobRun] = []

        @client.schedule.job("j")
        def run(job_run: JobRun) -> None:
            ran.append(job_run)

        jobs("schedule_job", "j", schedule="@every 1s")
        jobs("schedule_job", "k", schedule="@hourly")
        admin("pause_job", "j")
        jobs("schedule_job", "j", schedule="@every 1s", overwrite=True)  # as at each start
        job, other = admin("jobs")
        assert (job.paused, job.next_run, other.paused) == (True, None, False)
        if not jobs.lacks("schedule.progress"):
            assert jobs("get_job", "j").paused
        with jobs.opened("running"):
            api.pause(0.1)
            harness.advance(2.5)
            api.pause(1.0)
            assert ran == []
            jobs("run_now", "j")
            assert api.until(lambda: len(ran) == 1)
            admin("resume_job", "j")
            assert api.until(lambda: len(ran) >= 2)
            assert not admin("jobs")[0].paused
            admin("pause_job", "j")
            api.pause(0.3)  # what was claimed just before has begun
            count = len(ran)
            harness.advance(2.5)
            api.pause(1.0)
            assert len(ran) == count

    @requires("admin.pause_job")
    def test_pause_a_job_of_another_application(self, admin: Call, jobs: Call, harness: Harness) -> None:
        jobs.on(harness.client(app_id="another"))("schedule_job", "j", schedule="@hourly")
        admin.fails(NotFoundError)("pause_job", "j")
        admin("pause_job", "j", app_id="another")
        assert [each.paused for each in admin("jobs")] == [True]

    @requires("admin.retry_run", "admin.jobs", "schedule.list_runs", "schedule.run_now")
    def test_retry_run(self, admin: Call, jobs: Call, api: Api, client: CloudRuntimesClient) -> None:
        admin.fails(NotFoundError, match="no job 'j' with a run 'r'")("retry_run", "j", "r")
        mended = False
        ran: list[JobRun] = []

        @client.schedule.job("j")
        def run(job_run: JobRun) -> None:
            ran.append(job_run)
            if not mended:
                raise ZeroDivisionError("the tax of nothing")

        jobs("schedule_job", "j", schedule="@yearly", failure_policy=Retry(1, 0.0))

        def records() -> list[tuple[str, str]]:
            return [(each.run_id, each.status) for each in jobs("list_runs", "j")]

        with jobs.opened("running"):
            run_id = jobs("run_now", "j")
            assert api.until(lambda: records() == [(run_id, "failed")])
            (job,) = admin("jobs")
            assert (job.failed, job.last_error) == (1, "ZeroDivisionError: the tax of nothing")
            admin.fails(NotFoundError)("retry_run", "j", "another")
            mended = True
            admin("retry_run", "j", run_id)
            assert api.until(lambda: records() == [(run_id, "failed"), (run_id, "succeeded")])
            assert {each.run_id for each in ran} == {run_id}
            assert [each.attempt for each in ran] == [1, 2, 3]
            (job,) = admin("jobs")
            assert (job.failed, job.last_error) == (0, None)
            assert abs(job.last_run - datetime.now(UTC)) < timedelta(minutes=5)
            admin.fails(ConflictError, match="is succeeded")("retry_run", "j", run_id)

    # -- stores ---------------------------------------------------------------

    def test_stores(self, admin: Call, client: CloudRuntimesClient) -> None:
        before = {(each.service, each.name) for each in admin("stores")}
        if client.supports("state.list_keys", "carts"):
            client.state.save("carts", "k", 1)
            found = {(each.service, each.name) for each in admin("stores")}
            assert found - before <= {("state", "carts")}

    # -- all ------------------------------------------------------------------

    def test_overview(self, admin: Call, api: Api, client: CloudRuntimesClient, jobs: Call, store: str) -> None:
        empty = admin("overview")
        assert [each.error for each in empty.components if each.error] == []
        assert (empty.groups, empty.dead_letters, empty.jobs, empty.locks, empty.omitted) == ((), (), (), (), 0)
        if not admin.lacks("admin.jobs"):

            @client.schedule.job("j")
            def run() -> None:
                raise ZeroDivisionError

            jobs("schedule_job", "j", schedule="@yearly", failure_policy="drop")
            with jobs.opened("running"):
                jobs("run_now", "j")
                assert api.until(lambda: [each.failed for each in admin("overview").jobs] == [1])
        if not client.supports("admin.groups") or not client.supports("pubsub.group"):
            return
        bus = Call(api, client, "pubsub", "bus")
        for topic, count in ("b", 1), ("a", 3), ("c", 2):
            with bus.opened("subscribe", topic, group="g"):
                pass
            bus("publish_bulk", topic, list(range(count)))
            api.pause(APART)  # so that the first waits the longest
        with bus.opened("subscribe", "b", group="two", dead_letter_topic="dead") as sub:
            next(iter(api.take(sub, 1))).drop()
        on_bus = Call(api, client, "admin", "bus")
        assert api.until(lambda: [each.events for each in on_bus("topics", prefix="dead")] == [1])

        def backlogs() -> list[tuple[str, str, int]]:
            found = admin("overview", dead_letter_topics=["dead", "absent"])
            assert [(each.pubsub_name, each.topic.name, each.topic.events) for each in found.dead_letters] == [
                ("bus", "dead", 1)
            ]
            assert {each.pubsub_name for each in found.groups} == {"bus"}
            return [(each.group.topic, each.group.name, each.group.lag) for each in found.groups]

        assert sorted(backlogs()) == [("a", "g", 3), ("b", "g", 1), ("b", "two", 0), ("c", "g", 2)]
        for topic, group, lag in backlogs():
            (same,) = [each for each in on_bus("groups", topic) if each.name == group]
            assert (same.lag, same.paused) == (lag, False)
        assert backlogs()[0][:2] == ("b", "g")  # it waits the longest
        if not on_bus.lacks("admin.pause"):
            on_bus("pause", "c", "g")
            assert [each.group.topic for each in admin("overview").groups if each.group.paused] == ["c"]
        short = admin("overview", limit=1)
        assert len(short.groups) == 1
        assert short.omitted >= 3
