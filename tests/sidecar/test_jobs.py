"""Jobs: what is stored and told, what is refused, and how due ones come to the application."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from grpc import StatusCode

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import Answer, call, send
from tests.support.apps import App, Got, GrpcApp, Reply, serving_grpc
from tests.support.running import declared, serving
from tests.support.waiting import until

VALUE = "type.googleapis.com/google.protobuf.Value"


def post(sidecar: Sidecar, name: str, body: Any, version: str = "v1.0") -> Answer:
    return send(sidecar.http_address, "POST", f"/{version}/jobs/{name}", body)


def get(sidecar: Sidecar, name: str) -> Answer:
    return send(sidecar.http_address, "GET", f"/v1.0/jobs/{name}")


def delete(sidecar: Sidecar, name: str) -> Answer:
    return send(sidecar.http_address, "DELETE", f"/v1.0/jobs/{name}")


def rpc(sidecar: Sidecar, method: str, **fields: Any) -> Answer:
    kinds = messages()
    request = getattr(kinds, f"{method.removesuffix('Alpha1')}Request")(**fields)
    return call(sidecar.grpc_address, method, request, f"{method.removesuffix('Alpha1')}Response")


@pytest.mark.parametrize("version", ["v1.0", "v1.0-alpha1"])
def test_a_job_is_told_as_it_was_given(sidecar: Sidecar, version: str) -> None:
    given = {
        "schedule": "TZ=Europe/Paris 0 30 4 * * mon-fri",
        "repeats": 3,
        "dueTime": "2100-01-01T00:00:00Z",
        "ttl": "24h",
        "data": {"x": [1, "a", None]},
        "failurePolicy": {"constant": {"interval": "1.5s", "maxRetries": 4}},
    }
    assert post(sidecar, "my-job", given, version).status == 204
    answer = send(sidecar.http_address, "GET", f"/{version}/jobs/my-job")
    assert answer.status == 200
    assert answer.json == {"name": "my-job", **given, "data": {"@type": VALUE, "value": given["data"]}}
    job = rpc(sidecar, "GetJob", name="my-job").message.job
    assert (job.schedule, job.repeats, job.due_time, job.ttl) == (given["schedule"], 3, given["dueTime"], "24h")
    assert job.data.type_url == VALUE
    assert json_format.MessageToDict(messages().Value.FromString(job.data.value)) == given["data"]
    constant = job.failure_policy.constant
    assert (constant.interval.ToMilliseconds(), constant.max_retries) == (1500, 4)
    stored = sidecar.context.client.schedule.get_job("my-job")
    assert (stored.schedule, stored.timezone, stored.repeats) == ("0 30 4 * * mon-fri", "Europe/Paris", 3)


def test_names_in_snake_case_are_taken_too(sidecar: Sidecar) -> None:
    body = {"due_time": "1h", "failure_policy": {"drop": {}}}
    assert post(sidecar, "j", body).status == 204
    assert get(sidecar, "j").json == {"name": "j", "dueTime": "1h", "failurePolicy": {"drop": {}}}


@pytest.mark.parametrize("suffix", ["", "Alpha1"])
def test_over_grpc(sidecar: Sidecar, suffix: str) -> None:
    kinds = messages()
    data = kinds.Any(type_url="mine/Thing", value=b"\x00bytes")
    job = kinds.Job(name="j1", schedule="@every 1h", data=data, failure_policy={"drop": {}})
    assert rpc(sidecar, f"ScheduleJob{suffix}", job=job).code == "OK"
    assert rpc(sidecar, f"ScheduleJob{suffix}", job=kinds.Job(name="k", due_time="1h")).code == "OK"
    stored = rpc(sidecar, f"GetJob{suffix}", name="j1").message.job
    assert stored == job
    listed = rpc(sidecar, f"ListJobs{suffix}").message.jobs
    assert [each.name for each in listed] == ["j1", "k"]
    # where none was given, the default is told, as daprd does
    constant = listed[1].failure_policy.constant
    assert (constant.interval.ToSeconds(), constant.max_retries) == (1, 3)
    assert not listed[1].HasField("data")
    # a type that nobody here knows is told by its bytes
    assert get(sidecar, "j1").json["data"] == {"@type": "mine/Thing", "value": "AGJ5dGVz"}
    assert rpc(sidecar, f"DeleteJobsByPrefix{suffix}", name_prefix="j").code == "OK"
    assert [each.name for each in rpc(sidecar, f"ListJobs{suffix}").message.jobs] == ["k"]
    assert rpc(sidecar, f"DeleteJob{suffix}", name="k").code == "OK"
    assert rpc(sidecar, f"DeleteJob{suffix}", name="k").code == "OK"
    assert not rpc(sidecar, f"ListJobs{suffix}").message.jobs


def test_a_job_that_is_there_is_not_overwritten_unasked(sidecar: Sidecar) -> None:
    assert post(sidecar, "j", {"dueTime": "1h"}).status == 204
    answer = post(sidecar, "j", {"dueTime": "2h"})
    assert (answer.status, answer.error) == (409, "DAPR_SCHEDULER_SCHEDULE_JOB")
    assert answer.json["details"][0]["metadata"] == {"appID": "app", "namespace": "default"}
    over = rpc(sidecar, "ScheduleJob", job={"name": "j", "due_time": "2h"})
    assert (over.code, over.reason) == ("ALREADY_EXISTS", "DAPR_SCHEDULER_SCHEDULE_JOB")
    assert get(sidecar, "j").json["dueTime"] == "1h"
    assert post(sidecar, "j", {"dueTime": "2h", "overwrite": True}).status == 204
    assert get(sidecar, "j").json["dueTime"] == "2h"


def test_absent(sidecar: Sidecar) -> None:
    answer = get(sidecar, "gone")
    assert (answer.status, answer.error) == (500, "DAPR_SCHEDULER_GET_JOB")
    assert answer.json["message"] == "failed to get job due to: rpc error: code = NotFound desc = job not found: gone"
    over = rpc(sidecar, "GetJob", name="gone")
    assert (over.code, over.reason) == ("INTERNAL", "DAPR_SCHEDULER_GET_JOB")
    assert delete(sidecar, "gone").status == 204
    assert get(sidecar, "no||name").status == 500
    assert delete(sidecar, "no||name").status == 204


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "DAPR_SCHEDULER_SCHEDULE_EMPTY"),
        ({"name": "x", "dueTime": "1s"}, 400, "DAPR_SCHEDULER_JOB_NAME"),
        ({"schedule": "* * * * *"}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"schedule": "what"}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"schedule": "TZ=No/Where 0 * * * * *"}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"schedule": "CRON_TZ=Europe/Paris @every 1s"}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"dueTime": "tomorrow"}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"dueTime": "1s", "ttl": "1s"}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"dueTime": "1s", "repeats": 2}, 400, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"schedule": "@every 1s", "repeats": -1}, 400, "ERR_MALFORMED_REQUEST"),
        ({"schedule": 1}, 400, "ERR_MALFORMED_REQUEST"),
        ({"dueTime": "1s", "overwrite": "yes"}, 400, "ERR_MALFORMED_REQUEST"),
        ({"dueTime": "1s", "failurePolicy": {"constant": {"interval": "soon"}}}, 400, "ERR_MALFORMED_REQUEST"),
        (b"{", 400, "ERR_MALFORMED_REQUEST"),
        ([], 400, "ERR_MALFORMED_REQUEST"),
    ],
)
def test_what_is_refused(sidecar: Sidecar, body: Any, status: int, code: str) -> None:
    answer = post(sidecar, "j", body)
    assert (answer.status, answer.error) == (status, code), answer.body


def test_what_is_refused_over_grpc(sidecar: Sidecar) -> None:
    for job, reason in (
        ({"name": "", "due_time": "1s"}, "DAPR_SCHEDULER_JOB_NAME_EMPTY"),
        ({"name": "j"}, "DAPR_SCHEDULER_SCHEDULE_EMPTY"),
        ({"name": "j||k", "due_time": "1s"}, "DAPR_SCHEDULER_SCHEDULE_JOB"),
        ({"name": "j", "schedule": "1 2 3 4 5"}, "DAPR_SCHEDULER_SCHEDULE_JOB"),
    ):
        answer = rpc(sidecar, "ScheduleJob", job=job)
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", reason)
    assert rpc(sidecar, "ScheduleJob").reason == "DAPR_SCHEDULER_EMPTY"
    for method in ("GetJob", "DeleteJob"):
        assert rpc(sidecar, method).reason == "DAPR_SCHEDULER_JOB_NAME_EMPTY"


def test_jobs_of_others_are_not_told(sidecar: Sidecar) -> None:
    sidecar.context.client.schedule.schedule_job("plain", due_time=3600, data={"x": 1})
    assert post(sidecar, "j", {"dueTime": "1h"}).status == 204
    assert [each.name for each in rpc(sidecar, "ListJobs").message.jobs] == ["j"]
    assert get(sidecar, "plain").status == 500
    rpc(sidecar, "DeleteJobsByPrefix")
    assert [each.name for each in sidecar.context.client.schedule.list_jobs()] == ["plain"]


# -- due --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"), [({"x": 1.5}, b'{"x":1.5}'), ("text", b'"text"'), (None, b"null"), (..., b"")]
)
def test_a_due_job_comes_to_the_application(tmp_path: Path, data: Any, expected: bytes) -> None:
    with App() as app, serving(declared(str(tmp_path)), app_port=app.port, app_token="token") as sidecar:
        body = {"dueTime": "0s"} if data is ... else {"dueTime": "0s", "data": data}
        assert post(sidecar, "my%20job", body).status == 204
        (got,) = until(lambda: app.got)
    assert (got.method, got.path, got.body) == ("POST", "/job/my%20job", expected)
    assert (got.header("content-type"), got.header("dapr-api-token")) == ("application/json", "token")


def test_data_of_grpc_is_bytes_over_http(tmp_path: Path) -> None:
    kinds = messages()
    with App() as app, serving(declared(str(tmp_path)), app_port=app.port) as sidecar:
        data = kinds.Any(type_url="mine/Thing", value=b' {"a":1} ')
        assert rpc(sidecar, "ScheduleJob", job=kinds.Job(name="a", due_time="0s", data=data)).code == "OK"
        value = json_format.ParseDict({"b": [1, None]}, kinds.Value())
        data = kinds.Any(type_url=VALUE, value=value.SerializeToString())
        assert rpc(sidecar, "ScheduleJob", job=kinds.Job(name="b", due_time="0s", data=data)).code == "OK"
        until(lambda: len(app.got) == 2)
        assert app.at("/job/a")[0].body == b'{"a":1}'
        assert json.loads(app.at("/job/b")[0].body) == {"b": [1, None]}


def test_a_schedule_comes_so_often_and_is_then_gone(tmp_path: Path) -> None:
    with App() as app, serving(declared(str(tmp_path)), app_port=app.port) as sidecar:
        assert post(sidecar, "j", {"schedule": "@every 100ms", "repeats": 3}).status == 204
        until(lambda: get(sidecar, "j").status == 500, "its last run")
        ends = [each.status for each in sidecar.context.client.schedule.list_runs("j")]
        assert len(ends) == 3
        # of those that are due at once, on a machine that stands still, the latest alone is run
        until(lambda: len(app.got) == 3 - ends.count("skipped") > 0)


def failing(times: int, reply: Reply) -> Callable[[Got], Reply | None]:
    replies = [reply] * times
    lock = threading.Lock()

    def answer(got: Got) -> Reply | None:
        with lock:
            return replies.pop() if replies else None

    return answer


@pytest.mark.parametrize(
    ("policy", "times", "tries"),
    [
        ({"constant": {"interval": "0.05s", "maxRetries": 2}}, 9, 3),
        ({"constant": {"interval": "0.05s"}}, 6, 7),
        ({"drop": {}}, 9, 1),
    ],
)
def test_the_failure_policy(tmp_path: Path, policy: Any, times: int, tries: int) -> None:
    with App(answer=failing(times, Reply(500))) as app, serving(declared(str(tmp_path)), app_port=app.port) as sidecar:
        assert post(sidecar, "j", {"dueTime": "0s", "failurePolicy": policy}).status == 204
        runs = sidecar.context.client.schedule.list_runs
        (run,) = until(lambda: [each for each in runs("j") if each.status in ("succeeded", "failed")], "its end")
        assert len(app.got) == tries == run.attempt
        assert run.status == ("succeeded" if times < tries else "failed")


def test_an_application_that_does_not_know_a_job_has_had_it(tmp_path: Path) -> None:
    with App(answer=lambda got: Reply(404)) as app, serving(declared(str(tmp_path)), app_port=app.port) as sidecar:
        assert post(sidecar, "j", {"dueTime": "0s"}).status == 204
        runs = sidecar.context.client.schedule.list_runs
        until(lambda: [each for each in runs("j") if each.status == "succeeded"])
        assert len(app.got) == 1


@pytest.mark.parametrize("method", ["OnJobEvent", "OnJobEventAlpha1"])
def test_over_grpc_a_due_job_is_on_job_event(tmp_path: Path, method: str) -> None:
    app = GrpcApp(**{method: ("JobEventRequest", lambda request, context: messages().JobEventResponse())})
    with serving_grpc(app), serving(declared(str(tmp_path)), app_port=app.port, app_protocol="grpc") as sidecar:
        assert post(sidecar, "j", {"dueTime": "0s", "data": {"x": 1}}).status == 204
        (request,) = until(lambda: app.named(method))
    assert (request.name, request.method, request.content_type) == ("j", "job/j", VALUE)
    assert (request.data.type_url, request.http_extension.verb) == (VALUE, 3)
    assert json_format.MessageToDict(messages().Value.FromString(request.data.value)) == {"x": 1}


def test_over_grpc_a_job_without_data_has_none(tmp_path: Path) -> None:
    app = GrpcApp(OnJobEvent=("JobEventRequest", lambda request, context: messages().JobEventResponse()))
    with serving_grpc(app), serving(declared(str(tmp_path)), app_port=app.port, app_protocol="grpc") as sidecar:
        assert post(sidecar, "j", {"dueTime": "0s"}).status == 204
        (request,) = until(lambda: app.named("OnJobEvent"))
    assert (request.name, request.HasField("data"), request.content_type) == ("j", False, "")


def test_over_grpc_failures(tmp_path: Path) -> None:
    def answer(request: Any, context: Any) -> Any:
        if request.name == "unknown":
            context.abort(StatusCode.NOT_FOUND, "what job")
        if len([each for each in app.named("OnJobEvent") if each.name == "j"]) == 1:
            context.abort(StatusCode.INTERNAL, "no")
        return messages().JobEventResponse()

    app = GrpcApp(OnJobEvent=("JobEventRequest", answer))
    with serving_grpc(app), serving(declared(str(tmp_path)), app_port=app.port, app_protocol="grpc") as sidecar:
        runs = sidecar.context.client.schedule.list_runs
        constant = {"constant": {"interval": "0.05s"}}
        for name in ("j", "unknown"):
            assert post(sidecar, name, {"dueTime": "0s", "failurePolicy": constant}).status == 204
        for name, attempts in (("j", 2), ("unknown", 1)):
            (run,) = until(lambda name=name: [each for each in runs(name) if each.status == "succeeded"])
            assert run.attempt == attempts


def test_jobs_wait_for_a_sidecar_with_an_application_and_survive(tmp_path: Path) -> None:
    config = declared(str(tmp_path))
    due = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
    with serving(config) as sidecar:
        assert post(sidecar, "j", {"dueTime": due, "data": 7}).status == 204
    with App() as app, serving(config, app_port=app.port):
        (got,) = until(lambda: app.got)
        assert got.json == 7


def test_a_run_that_does_not_end_in_time_comes_again(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def answer(got: Got) -> Reply | None:
        entered.set()
        assert leave.wait(60)
        return None

    config = declared(str(tmp_path))
    with App(answer=answer) as app:
        with serving(config, app_port=app.port, grace=0.2) as sidecar:
            assert post(sidecar, "j", {"dueTime": "0s"}).status == 204
            assert entered.wait(60)
        leave.set()
        with serving(config, app_port=app.port):
            until(lambda: len(app.got) == 2, "it again")
