"""Schedules of the runtime dapr: what the suite does not show of failures, targets, applications that are mounted, and what stands in the sidecar."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._http.asgi_server import make_server
from cloud_runtimes._http.threaded import listen
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from cloud_runtimes.schedule import JobRun, Retry, RpcTarget, TopicTarget
from cloud_runtimes.testing import Api
from tests.support.ports import reserved_port
from tests.support.waiting import until

SOON = 20.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with reserved_port() as number:
        yield number


@pytest.fixture(scope="module")
def sidecar(port: int) -> Iterator[Sidecar]:
    beneath = CloudRuntimesClient(config={"capa": {"home": ":memory:dapr-jobs"}}, app_id="shop")
    settings = SidecarSettings(app_id="shop", app_port=port, http_port=0, grpc_port=0, app_token="of the app")
    with beneath, Sidecar(beneath, settings) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(
    request: pytest.FixtureRequest, sidecar: Sidecar, port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CloudRuntimesClient]:
    monkeypatch.setenv("APP_PORT", str(port))
    monkeypatch.setenv("APP_API_TOKEN", "of the app")
    config = {"dapr": {"http_endpoint": sidecar.http_address}}
    if request.param == "grpc":
        config["dapr"]["grpc_endpoint"] = f"grpc://{sidecar.grpc_address}"
    with CloudRuntimesClient(app_id="shop", runtime="dapr", config=config) as instance:
        yield instance


def ask(sidecar: Sidecar, method: str, path: str, document: Any = None) -> Any:
    data = None if document is None else json.dumps(document).encode()
    request = Request(f"{sidecar.http_address}/{path}", data, {"content-type": "application/json"}, method=method)
    with urlopen(request, timeout=SOON) as answer:
        body = answer.read()
    return json.loads(body) if body else None


# -- running -----------------------------------------------------------------------


def test_a_failure_is_tried_again_by_the_sidecar(client: CloudRuntimesClient) -> None:
    runs: list[JobRun] = []

    @client.schedule.job("failing")
    def handler(data: Any, run: JobRun) -> None:
        runs.append(run)
        if len(runs) < 3:
            raise ValueError("not yet")

    with client.schedule.running():
        client.schedule.schedule_job("failing", due_time=0, failure_policy=Retry(5, 0.01))
        until(lambda: len(runs) == 3)
    # Dapr tells neither the occurrence nor the attempt
    assert [run.attempt for run in runs] == [1, 1, 1]
    assert len({run.run_id for run in runs}) == 3


def test_without_a_handler_a_run_is_not_lost(client: CloudRuntimesClient) -> None:
    seen: list[Any] = []
    with client.schedule.running():
        client.schedule.schedule_job("late", due_time=0, data=[1], failure_policy=Retry(1000, 0.02))
        time.sleep(0.1)
        client.schedule.job("late")(seen.append)
        until(lambda: seen == [[1]])


def test_targets(client: CloudRuntimesClient) -> None:
    called: list[Any] = []
    events: list[Any] = []
    client.rpc.register_method("m/n", lambda data, request: called.append((data, request.headers["job-name"])))
    with client.rpc.serving():
        client.schedule.schedule_job("by-method", due_time=0, data={"a": 0.1}, target=RpcTarget("shop", "m/n"))
        until(lambda: called == [({"a": 0.1}, "by-method")])
    runtime: Any = client._context.runtime()
    if not runtime.transport.streams:  # the sidecar has asked long ago what is subscribed to
        return
    with client.pubsub.subscribe("bus", "jobs", events.append), client.schedule.running():
        client.schedule.schedule_job("by-topic", due_time=0, data=b"\x00", target=TopicTarget("bus", "jobs"))
        until(lambda: [event.data for event in events] == [b"\x00"])


def test_handlers_of_both_kinds_and_their_types(client: CloudRuntimesClient) -> None:
    seen: list[Any] = []

    @client.schedule.job("plain", type=dict[str, int])
    def plain(data: dict[str, int]) -> None:
        seen.append(data)

    @client.schedule.job("async")
    async def handler() -> None:
        await asyncio.sleep(0)
        seen.append("async")

    with client.rpc.serving():
        client.schedule.schedule_job("plain", due_time=0, data={"a": 1})
        client.schedule.schedule_job("wrong", due_time=0, data=["a"], target=plain, failure_policy="drop")
        client.schedule.schedule_job("async", due_time=0)
        until(lambda: len(seen) == 2)
    assert sorted(map(str, seen)) == ["async", "{'a': 1}"]


def test_a_mounted_application_runs_jobs_by_itself(client: CloudRuntimesClient, port: int) -> None:
    seen: list[Any] = []
    client.schedule.job("mounted")(seen.append)

    async def main() -> None:
        started = asyncio.Event()
        server = make_server(client.rpc.asgi_app(), started.set)
        sock, _ = listen("127.0.0.1", port, "give another port")
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        await started.wait()
        await client.schedule.schedule_job_async("mounted", due_time=0, data="x")
        async with asyncio.timeout(SOON):
            while not seen:
                await asyncio.sleep(0.01)
            # a runner needs no server of its own then
            async with client.schedule.running():
                # the first one may not have been told of its end yet
                await client.schedule.schedule_job_async("mounted", due_time=0, data="y", overwrite=True)
                while len(seen) < 2:
                    await asyncio.sleep(0.01)
        server.stop()
        await serving

    asyncio.run(main())
    assert seen == ["x", "y"]


def test_who_has_no_token_runs_nothing(client: CloudRuntimesClient, port: int) -> None:
    seen: list[Any] = []
    client.schedule.job("guarded")(seen.append)
    with client.schedule.running():
        request = Request(f"http://127.0.0.1:{port}/job/guarded", b'"forged"', method="POST")
        with pytest.raises(OSError, match="401"):
            urlopen(request, timeout=SOON)
        client.schedule.schedule_job("guarded", due_time=0, data="true")
        until(lambda: bool(seen))
    assert seen == ["true"]


def test_a_runner_needs_the_port_that_the_sidecar_knows(
    client: CloudRuntimesClient, api: Api, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    async def run() -> None:
        async with client.schedule.running():
            pass

    def attempt() -> None:
        if api.name == "async":
            asyncio.run(run())
        else:
            with client.schedule.running():
                pass

    monkeypatch.delenv("APP_PORT")
    with pytest.raises(InvalidArgumentError, match="set APP_PORT"):
        attempt()
    monkeypatch.setenv("APP_PORT", str(port))
    with socket.create_server(("127.0.0.1", port)), pytest.raises(UnavailableError, match="APP_PORT"):
        attempt()
    attempt()  # nothing of the failures is left


# -- what stands in the sidecar ------------------------------------------------------


def test_what_any_application_of_dapr_understands(client: CloudRuntimesClient, sidecar: Sidecar) -> None:
    options: dict[str, Any] = {"schedule": "30 9 * * MON", "timezone": "Asia/Kathmandu", "repeats": 3, "ttl": "720h"}
    client.schedule.schedule_job("plain", data={"a": [1, "two"]}, failure_policy=Retry(2, 1.5), **options)
    stored = ask(sidecar, "GET", "v1.0/jobs/plain")
    assert stored["schedule"] == "CRON_TZ=Asia/Kathmandu 0 30 9 * * MON"
    assert stored["data"] == {"@type": "type.googleapis.com/google.protobuf.Value", "value": {"a": [1, "two"]}}
    assert (stored["repeats"], stored["ttl"]) == (3, "2592000000ms")
    assert stored["failurePolicy"] == {"constant": {"interval": "1.5s", "maxRetries": 2}}
    job = client.schedule.get_job("plain")
    assert (job.schedule, job.timezone, job.repeats, job.data) == (
        "30 9 * * MON", "Asia/Kathmandu", 3, {"a": [1, "two"]},
    )  # fmt: skip
    assert (job.target, job.failure_policy, job.misfire) == ("plain", Retry(2, 1.5), "once")
    # a ttl that counts from a moment which only the sidecar knows
    assert (job.expires_at, job.next_run, job.occurrences, job.created_at) == (None, None, None, None)
    client.schedule.delete_job("plain")


@pytest.mark.parametrize("data", [0.5, 2**60, None, "text", b"\x00", {"cloud_runtimes": 1}, [], {"n": -1}])
def test_data_comes_back_as_it_was(client: CloudRuntimesClient, data: Any) -> None:
    client.schedule.schedule_job("data", schedule="@yearly", data=data, overwrite=True)
    stored = client.schedule.get_job("data").data
    assert (stored, type(stored)) == (data, type(data))
    client.schedule.delete_job("data")


def test_what_others_have_scheduled(client: CloudRuntimesClient, sidecar: Sidecar) -> None:
    seen: list[Any] = []
    ask(sidecar, "POST", "v1.0/jobs/theirs", {"schedule": "15 0 0 1 1 *", "data": {"@type": 1, "a": None}})
    job = client.schedule.get_job("theirs")
    assert (job.schedule, job.timezone, job.data, job.target) == (
        "15 0 0 1 1 *", "UTC", {"@type": 1, "a": None}, "theirs",
    )  # fmt: skip
    assert job.failure_policy == Retry(3, 1.0)
    ask(sidecar, "DELETE", "v1.0/jobs/theirs")
    client.schedule.job("soon")(seen.append)
    with client.schedule.running():
        ask(sidecar, "POST", "v1.0/jobs/soon", {"dueTime": "0s", "data": "from another"})
        until(lambda: seen == ["from another"])


def test_what_dapr_cannot_is_refused_before_any_request(subtests: pytest.Subtests) -> None:
    for options, message in (
        ({"schedule": "0 0 L * *"}, "Dapr's scheduler has no 'L'"),
        ({"schedule": "0 0 * * 5#2"}, "Dapr's scheduler"),
        ({"schedule": "0 0 * * 7"}, "Sunday is 0"),
        ({"schedule": "0 0 * * 5-7"}, "Sunday is 0"),
        ({"schedule": "@hourly", "misfire": "all"}, "misfire='all' is not supported"),
    ):
        with subtests.test(options=options, message=message):
            with CloudRuntimesClient("http://127.0.0.1:1", app_id="shop") as client:
                with pytest.raises(UnsupportedError, match=message) as caught:
                    client.schedule.schedule_job("j", **options)
                assert not caught.value.maybe_applied
                for method in ("run_now", "list_runs"):
                    with pytest.raises(UnsupportedError, match=method):
                        getattr(client.schedule, method)("j")
                with pytest.raises(UnsupportedError, match="list_jobs"):
                    client.schedule.list_jobs()


def test_durations_and_names(client: CloudRuntimesClient, sidecar: Sidecar) -> None:
    for schedule, expected in (
        ("@every PT1H", "@every 3600000ms"),
        (timedelta(minutes=1), "@every 60000ms"),
        ("@Hourly", "CRON_TZ=UTC @hourly"),
        ("*/7 * * * * */7", "CRON_TZ=UTC */7 * * * * */7"),
    ):
        client.schedule.schedule_job("a b:c", schedule=schedule, overwrite=True)
        assert ask(sidecar, "GET", "v1.0/jobs/a%20b:c")["schedule"] == expected
    client.schedule.delete_job("a b:c")
