"""Rows of the table of APIs: publishing, subscribing, service invocation, jobs."""

from __future__ import annotations

from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.rows import Api, Case, Http

PUBSUB, INVOKE, JOBS = "Publish and subscribe", "Service invocation", "Jobs"
CLOUD_EVENT = {"content-type": "application/cloudevents+json"}
APP = "application"


def _publishing(path: str, body: Any, **fields: Any) -> tuple[Case, ...]:
    """Return the cases that publishing one and several events share."""
    prefix = f"/v1.0/publish{path}"
    return (
        Case(
            "no such pub/sub component",
            "404 ERR_PUBSUB_NOT_FOUND, INVALID_ARGUMENT DAPR_PUBSUB_NOT_FOUND",
            Http("POST", f"{prefix}/nope/t", body),
            {"pubsub_name": "nope", "topic": "t", **fields},
        ),
        Case("no name", "-, INVALID_ARGUMENT DAPR_PUBSUB_NAME_EMPTY", rpc={"topic": "t", **fields}),
        Case("no topic", "-, INVALID_ARGUMENT DAPR_PUBSUB_TOPIC_NAME_EMPTY", rpc={"pubsub_name": "store", **fields}),
        Case(
            "`rawPayload` is neither true nor false",
            "400 ERR_PUBSUB_REQUEST_METADATA, INVALID_ARGUMENT DAPR_PUBSUB_METADATA_DESERIALIZATION",
            Http("POST", f"{prefix}/store/t?metadata.rawPayload=maybe", body),
            {"pubsub_name": "store", "topic": "t", "metadata": {"rawPayload": "maybe"}, **fields},
        ),
    )


ENTRY = {"entryId": "1", "event": 1, "contentType": "application/json"}
ENTRIES = [{"entry_id": "1", "event": b"1", "content_type": "application/json"}]


def _bulk(name: str, path: str, rpc: str, note: str = "") -> Api:
    return Api(
        block=PUBSUB,
        name=name,
        http=f"POST, PUT {path}/{{pubsub}}/{{topic}}",
        rpc=rpc,
        request="BulkPublishRequest",
        reply="BulkPublishResponse",
        note=note,
        cases=(
            Case(
                "published",
                "204, OK",
                Http("POST", f"{path}/store/t", [ENTRY]),
                {"pubsub_name": "store", "topic": "t", "entries": ENTRIES},
            ),
            Case(
                "two entries of one id",
                "400 ERR_PUBSUB_EVENTS_SER, INVALID_ARGUMENT DAPR_PUBSUB_MARSHAL_EVENTS",
                Http("POST", f"{path}/store/t", [ENTRY, ENTRY]),
                {"pubsub_name": "store", "topic": "t", "entries": ENTRIES * 2},
            ),
            Case(
                "a body that is no array",
                "400 ERR_PUBSUB_EVENTS_SER, -",
                Http("POST", f"{path}/store/t", {"entryId": "1"}),
            ),
            Case(
                "one of them fails",
                "500 ERR_PUBSUB_PUBLISH_MESSAGE, INTERNAL DAPR_PUBSUB_PUBLISH_MESSAGE",
                Http("POST", f"{path}/store/t", [{**ENTRY, "contentType": "no media type"}]),
                {"pubsub_name": "store", "topic": "t", "entries": [{**ENTRIES[0], "content_type": "no media type"}]},
            ),
            *(_publishing("/bulk", [ENTRY]) if rpc == "BulkPublishEvent" else ()),
        ),
    )


def _streamed(what: str, answer: str = "OK", **fields: str) -> Case:
    initial = {"pubsub_name": "store", "topic": "t", **fields}
    return Case(what, f"-, {answer}", rpc={"initial_request": initial})


def _no_job(client: CloudRuntimesClient) -> None:
    client.schedule.delete_job("j")


def _job(client: CloudRuntimesClient) -> None:
    from cloud_runtimes.dapr_server.jobs.api import HANDLER

    handler = client.schedule._frame.handlers[HANDLER].function
    client.schedule.schedule_job("j", due_time="1h", data={"dueTime": "1h"}, target=handler, overwrite=True)


def _schedule(version: str, suffix: str) -> Api:
    path = f"/{version}/jobs/{{name}}"
    at = f"/{version}/jobs/j"

    def refused(what: str, body: Any, job: dict[str, Any] | None, reason: str) -> Case:
        return Case(
            what,
            f"400 DAPR_SCHEDULER_{reason}, INVALID_ARGUMENT DAPR_SCHEDULER_{reason}",
            Http("POST", at, body),
            None if job is None else {"job": job},
        )

    return Api(
        block=JOBS,
        name="Schedule job" + (" (alpha)" if suffix else ""),
        http=f"POST {path}",
        rpc=f"ScheduleJob{suffix}",
        cases=(
            Case(
                "scheduled",
                "204, OK",
                Http("POST", at, {"schedule": "@every 1h"}),
                {"job": {"name": "j", "schedule": "0 30 4 * * *"}},
                before=_no_job,
            ),
            Case(
                "there is one of the name",
                "409 DAPR_SCHEDULER_SCHEDULE_JOB, ALREADY_EXISTS DAPR_SCHEDULER_SCHEDULE_JOB",
                Http("POST", at, {"dueTime": "1h"}),
                {"job": {"name": "j", "due_time": "1h"}},
                before=_job,
            ),
            Case(
                "overwritten",
                "204, OK",
                Http("POST", at, {"dueTime": "1h", "overwrite": True}),
                {"job": {"name": "j", "due_time": "1h"}, "overwrite": True},
                before=_job,
            ),
            refused("neither schedule nor due time", {}, {"name": "j"}, "SCHEDULE_EMPTY"),
            refused(
                "cron of five fields", {"schedule": "* * * * *"}, {"name": "j", "schedule": "* * * * *"}, "SCHEDULE_JOB"
            ),
            refused("a name in the body", {"name": "j", "dueTime": "1h"}, None, "JOB_NAME"),
            Case("no name", "-, INVALID_ARGUMENT DAPR_SCHEDULER_JOB_NAME_EMPTY", rpc={"job": {"due_time": "1h"}}),
        ),
    )


def _jobs(version: str, suffix: str) -> tuple[Api, ...]:
    at = f"/{version}/jobs/j"
    named = {"name": "j"}
    alpha = " (alpha)" if suffix else ""
    nameless = Case("no name", "-, INVALID_ARGUMENT DAPR_SCHEDULER_JOB_NAME_EMPTY", rpc={})
    return (
        _schedule(version, suffix),
        Api(
            block=JOBS,
            name=f"Get job{alpha}",
            http=f"GET /{version}/jobs/{{name}}",
            rpc=f"GetJob{suffix}",
            cases=(
                Case("found", "200, OK", Http("GET", at), named, before=_job),
                Case(
                    "absent",
                    "500 DAPR_SCHEDULER_GET_JOB, INTERNAL DAPR_SCHEDULER_GET_JOB",
                    Http("GET", at),
                    named,
                    before=_no_job,
                ),
                nameless,
            ),
        ),
        Api(
            block=JOBS,
            name=f"Delete job{alpha}",
            http=f"DELETE /{version}/jobs/{{name}}",
            rpc=f"DeleteJob{suffix}",
            cases=(
                Case("deleted", "204, OK", Http("DELETE", at), named, before=_job),
                Case("absent", "204, OK", Http("DELETE", at), named, before=_no_job),
                nameless,
            ),
        ),
        Api(
            block=JOBS,
            name=f"List jobs{alpha}",
            rpc=f"ListJobs{suffix}",
            cases=(Case("listed", "-, OK", rpc={}, before=_job),),
        ),
        Api(
            block=JOBS,
            name=f"Delete jobs by prefix{alpha}",
            rpc=f"DeleteJobsByPrefix{suffix}",
            cases=(Case("deleted", "-, OK", rpc={"name_prefix": "j"}, before=_job),),
        ),
    )


MESSAGE = {"method": "x", "http_extension": {"verb": 3}}

APIS: tuple[Api, ...] = (
    Api(
        block=PUBSUB,
        name="Publish event",
        http="POST, PUT /v1.0/publish/{pubsub}/{topic}",
        rpc="PublishEvent",
        cases=(
            Case(
                "published",
                "204, OK",
                Http("POST", "/v1.0/publish/store/a/topic", {"x": 1}),
                {"pubsub_name": "store", "topic": "a/topic", "data": b"1"},
            ),
            Case(
                "a CloudEvent that is none",
                "500 ERR_PUBSUB_CLOUD_EVENTS_SER, INVALID_ARGUMENT DAPR_PUBSUB_CLOUD_EVENT_CREATION",
                Http("POST", "/v1.0/publish/store/t", b"what", CLOUD_EVENT),
                {
                    "pubsub_name": "store",
                    "topic": "t",
                    "data": b"what",
                    "data_content_type": CLOUD_EVENT["content-type"],
                },
            ),
            Case(
                "the component takes it not",
                "500 ERR_PUBSUB_PUBLISH_MESSAGE, INTERNAL DAPR_PUBSUB_PUBLISH_MESSAGE",
                Http("POST", f"/v1.0/publish/store/{'x' * 300}", {"x": 1}),
                {"pubsub_name": "store", "topic": "x" * 300},
            ),
            Case("no topic in the path", "404 ERR_TOPIC_NAME_EMPTY, -", Http("POST", "/v1.0/publish/store", {"x": 1})),
            *_publishing("", {"x": 1}),
        ),
    ),
    _bulk(
        "Publish several events",
        "/v1.0/publish/bulk",
        "BulkPublishEvent",
        "Over HTTP the answer to a failure names the entries that failed, over gRPC not.",
    ),
    _bulk("Publish several events (alpha)", "/v1.0-alpha1/publish/bulk", "BulkPublishEventAlpha1"),
    Api(
        block=PUBSUB,
        name="Subscribe by a stream",
        rpc="SubscribeTopicEventsAlpha1",
        streams=True,
        cases=(
            _streamed("subscribed"),
            _streamed("no name", "UNKNOWN", pubsub_name=""),
            _streamed("no topic", "UNKNOWN", topic=""),
            _streamed("no such pub/sub component", "INVALID_ARGUMENT DAPR_PUBSUB_NOT_FOUND", pubsub_name="nope"),
            Case("the first request is not the initial one", "-, UNKNOWN", rpc={}),
        ),
    ),
    Api(
        block=INVOKE,
        name="Invoke a method",
        http="ANY /v1.0/invoke/{app}/method/{path}",
        rpc="InvokeService",
        reply="InvokeResponse",
        note="Or any other path with the header `dapr-app-id`, and any other method of gRPC with that metadata. Status, headers and body of the application pass through.",
        cases=(
            Case(
                "answered",
                "200, OK",
                Http("POST", "/v1.0/invoke/app/method/x", {"x": 1}),
                {"id": "app", "message": MESSAGE},
                over=APP,
            ),
            Case(
                "the application refuses",
                "404, NOT_FOUND Not Found",
                Http("POST", "/v1.0/invoke/app/method/missing", {"x": 1}),
                {"id": "app", "message": {**MESSAGE, "method": "missing"}},
                over=APP,
            ),
            Case(
                "no such application",
                "500 ERR_DIRECT_INVOKE, INTERNAL",
                Http("POST", "/v1.0/invoke/nobody/method/x", {"x": 1}),
                {"id": "nobody", "message": MESSAGE},
            ),
            Case("no application named", "404 ERR_DIRECT_INVOKE, -", Http("POST", "/v1.0/invoke/app", {"x": 1})),
        ),
    ),
    *_jobs("v1.0", ""),
    *_jobs("v1.0-alpha1", "Alpha1"),
)
