"""Rows of the table of APIs: publishing, subscribing, service invocation, jobs."""

from __future__ import annotations

from typing import Any

from cloud_runtimes import CloudRuntimesClient
from tests.sidecar.rows import Api, Case, Http, Rpc

PUBSUB, INVOKE, JOBS = "Publish and subscribe", "Service invocation", "Jobs"
CLOUD_EVENT = {"content-type": "application/cloudevents+json"}
APP = "application"


def _publishing(path: str, body: Any, **fields: Any) -> tuple[Case, ...]:
    """Return the cases that publishing one and several events share."""
    prefix = f"/v1.0/publish{path}"
    return (
        Case(
            what="no such pub/sub component",
            http=Http("POST", f"{prefix}/nope/t", body),
            status=404,
            error="ERR_PUBSUB_NOT_FOUND",
            rpc=Rpc({"pubsub_name": "nope", "topic": "t", **fields}),
            code="INVALID_ARGUMENT",
            reason="DAPR_PUBSUB_NOT_FOUND",
        ),
        Case(
            what="no name",
            rpc=Rpc({"topic": "t", **fields}),
            code="INVALID_ARGUMENT",
            reason="DAPR_PUBSUB_NAME_EMPTY",
        ),
        Case(
            what="no topic",
            rpc=Rpc({"pubsub_name": "store", **fields}),
            code="INVALID_ARGUMENT",
            reason="DAPR_PUBSUB_TOPIC_NAME_EMPTY",
        ),
        Case(
            what="`rawPayload` is neither true nor false",
            http=Http("POST", f"{prefix}/store/t?metadata.rawPayload=maybe", body),
            status=400,
            error="ERR_PUBSUB_REQUEST_METADATA",
            rpc=Rpc({"pubsub_name": "store", "topic": "t", "metadata": {"rawPayload": "maybe"}, **fields}),
            code="INVALID_ARGUMENT",
            reason="DAPR_PUBSUB_METADATA_DESERIALIZATION",
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
                what="published",
                http=Http("POST", f"{path}/store/t", [ENTRY]),
                status=204,
                rpc=Rpc({"pubsub_name": "store", "topic": "t", "entries": ENTRIES}),
            ),
            Case(
                what="two entries of one id",
                http=Http("POST", f"{path}/store/t", [ENTRY, ENTRY]),
                status=400,
                error="ERR_PUBSUB_EVENTS_SER",
                rpc=Rpc({"pubsub_name": "store", "topic": "t", "entries": ENTRIES * 2}),
                code="INVALID_ARGUMENT",
                reason="DAPR_PUBSUB_MARSHAL_EVENTS",
            ),
            Case(
                what="a body that is no array",
                http=Http("POST", f"{path}/store/t", {"entryId": "1"}),
                status=400,
                error="ERR_PUBSUB_EVENTS_SER",
            ),
            Case(
                what="one of them fails",
                http=Http("POST", f"{path}/store/t", [{**ENTRY, "contentType": "no media type"}]),
                status=500,
                error="ERR_PUBSUB_PUBLISH_MESSAGE",
                rpc=Rpc(
                    {"pubsub_name": "store", "topic": "t", "entries": [{**ENTRIES[0], "content_type": "no media type"}]}
                ),
                code="INTERNAL",
                reason="DAPR_PUBSUB_PUBLISH_MESSAGE",
            ),
            *(_publishing("/bulk", [ENTRY]) if rpc == "BulkPublishEvent" else ()),
        ),
    )


def _streamed(what: str, code: str = "OK", reason: str | None = None, **fields: str) -> Case:
    initial = {"pubsub_name": "store", "topic": "t", **fields}
    return Case(what=what, rpc=Rpc({"initial_request": initial}), code=code, reason=reason)


def _no_job(client: CloudRuntimesClient) -> None:
    client.schedule.delete_job("j")


def _job(client: CloudRuntimesClient) -> None:
    from cloud_runtimes.dapr_server.jobs.api import HANDLER

    handler = client.schedule._handlers[HANDLER].function
    client.schedule.schedule_job("j", due_time="1h", data={"dueTime": "1h"}, target=handler, overwrite=True)


def _schedule(version: str, suffix: str) -> Api:
    path = f"/{version}/jobs/{{name}}"
    at = f"/{version}/jobs/j"

    def refused(what: str, body: Any, job: dict[str, Any] | None, reason: str) -> Case:
        return Case(
            what=what,
            http=Http("POST", at, body),
            status=400,
            error=f"DAPR_SCHEDULER_{reason}",
            rpc=None if job is None else Rpc({"job": job}),
            code="INVALID_ARGUMENT",
            reason=f"DAPR_SCHEDULER_{reason}",
        )

    return Api(
        block=JOBS,
        name="Schedule job" + (" (alpha)" if suffix else ""),
        http=f"POST {path}",
        rpc=f"ScheduleJob{suffix}",
        request="ScheduleJobRequest",
        reply="ScheduleJobResponse",
        cases=(
            Case(
                what="scheduled",
                http=Http("POST", at, {"schedule": "@every 1h"}),
                status=204,
                rpc=Rpc({"job": {"name": "j", "schedule": "0 30 4 * * *"}}),
                before=_no_job,
            ),
            Case(
                what="there is one of the name",
                http=Http("POST", at, {"dueTime": "1h"}),
                status=409,
                error="DAPR_SCHEDULER_SCHEDULE_JOB",
                rpc=Rpc({"job": {"name": "j", "due_time": "1h"}}),
                code="ALREADY_EXISTS",
                reason="DAPR_SCHEDULER_SCHEDULE_JOB",
                before=_job,
            ),
            Case(
                what="overwritten",
                http=Http("POST", at, {"dueTime": "1h", "overwrite": True}),
                status=204,
                rpc=Rpc({"job": {"name": "j", "due_time": "1h"}, "overwrite": True}),
                before=_job,
            ),
            refused("neither schedule nor due time", {}, {"name": "j"}, "SCHEDULE_EMPTY"),
            refused(
                "cron of five fields", {"schedule": "* * * * *"}, {"name": "j", "schedule": "* * * * *"}, "SCHEDULE_JOB"
            ),
            refused("a name in the body", {"name": "j", "dueTime": "1h"}, None, "JOB_NAME"),
            Case(
                what="no name",
                rpc=Rpc({"job": {"due_time": "1h"}}),
                code="INVALID_ARGUMENT",
                reason="DAPR_SCHEDULER_JOB_NAME_EMPTY",
            ),
        ),
    )


def _jobs(version: str, suffix: str) -> tuple[Api, ...]:
    at = f"/{version}/jobs/j"
    named = {"name": "j"}
    alpha = " (alpha)" if suffix else ""
    nameless = Case(what="no name", rpc=Rpc(), code="INVALID_ARGUMENT", reason="DAPR_SCHEDULER_JOB_NAME_EMPTY")
    return (
        _schedule(version, suffix),
        Api(
            block=JOBS,
            name=f"Get job{alpha}",
            http=f"GET /{version}/jobs/{{name}}",
            rpc=f"GetJob{suffix}",
            request="GetJobRequest",
            reply="GetJobResponse",
            cases=(
                Case(what="found", http=Http("GET", at), status=200, rpc=Rpc(named), before=_job),
                Case(
                    what="absent",
                    http=Http("GET", at),
                    status=500,
                    error="DAPR_SCHEDULER_GET_JOB",
                    rpc=Rpc(named),
                    code="INTERNAL",
                    reason="DAPR_SCHEDULER_GET_JOB",
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
            request="DeleteJobRequest",
            reply="DeleteJobResponse",
            cases=(
                Case(what="deleted", http=Http("DELETE", at), status=204, rpc=Rpc(named), before=_job),
                Case(what="absent", http=Http("DELETE", at), status=204, rpc=Rpc(named), before=_no_job),
                nameless,
            ),
        ),
        Api(
            block=JOBS,
            name=f"List jobs{alpha}",
            rpc=f"ListJobs{suffix}",
            request="ListJobsRequest",
            reply="ListJobsResponse",
            cases=(Case(what="listed", rpc=Rpc(), before=_job),),
        ),
        Api(
            block=JOBS,
            name=f"Delete jobs by prefix{alpha}",
            rpc=f"DeleteJobsByPrefix{suffix}",
            request="DeleteJobsByPrefixRequest",
            reply="DeleteJobsByPrefixResponse",
            cases=(Case(what="deleted", rpc=Rpc({"name_prefix": "j"}), before=_job),),
        ),
    )


MESSAGE = {"method": "x", "http_extension": {"verb": 3}}

APIS: tuple[Api, ...] = (
    Api(
        block=PUBSUB,
        name="Publish event",
        http="POST, PUT /v1.0/publish/{pubsub}/{topic}",
        rpc="PublishEvent",
        request="PublishEventRequest",
        cases=(
            Case(
                what="published",
                http=Http("POST", "/v1.0/publish/store/a/topic", {"x": 1}),
                status=204,
                rpc=Rpc({"pubsub_name": "store", "topic": "a/topic", "data": b"1"}),
            ),
            Case(
                what="a CloudEvent that is none",
                http=Http("POST", "/v1.0/publish/store/t", b"what", CLOUD_EVENT),
                status=500,
                error="ERR_PUBSUB_CLOUD_EVENTS_SER",
                rpc=Rpc(
                    {
                        "pubsub_name": "store",
                        "topic": "t",
                        "data": b"what",
                        "data_content_type": CLOUD_EVENT["content-type"],
                    }
                ),
                code="INVALID_ARGUMENT",
                reason="DAPR_PUBSUB_CLOUD_EVENT_CREATION",
            ),
            Case(
                what="the component takes it not",
                http=Http("POST", f"/v1.0/publish/store/{'x' * 300}", {"x": 1}),
                status=500,
                error="ERR_PUBSUB_PUBLISH_MESSAGE",
                rpc=Rpc({"pubsub_name": "store", "topic": "x" * 300}),
                code="INTERNAL",
                reason="DAPR_PUBSUB_PUBLISH_MESSAGE",
            ),
            Case(
                what="no topic in the path",
                http=Http("POST", "/v1.0/publish/store", {"x": 1}),
                status=404,
                error="ERR_TOPIC_NAME_EMPTY",
            ),
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
        request="SubscribeTopicEventsRequestAlpha1",
        reply="SubscribeTopicEventsResponseAlpha1",
        streams=True,
        cases=(
            _streamed("subscribed"),
            _streamed("no name", "UNKNOWN", pubsub_name=""),
            _streamed("no topic", "UNKNOWN", topic=""),
            _streamed("no such pub/sub component", "INVALID_ARGUMENT", "DAPR_PUBSUB_NOT_FOUND", pubsub_name="nope"),
            Case(what="the first request is not the initial one", rpc=Rpc(), code="UNKNOWN"),
        ),
    ),
    Api(
        block=INVOKE,
        name="Invoke a method",
        http="ANY /v1.0/invoke/{app}/method/{path}",
        rpc="InvokeService",
        request="InvokeServiceRequest",
        reply="InvokeResponse",
        note="Or any other path with the header `dapr-app-id`, and any other method of gRPC with that metadata. Status, headers and body of the application pass through.",
        cases=(
            Case(
                what="answered",
                http=Http("POST", "/v1.0/invoke/app/method/x", {"x": 1}),
                status=200,
                rpc=Rpc({"id": "app", "message": MESSAGE}),
                over=APP,
            ),
            Case(
                what="the application refuses",
                http=Http("POST", "/v1.0/invoke/app/method/missing", {"x": 1}),
                status=404,
                rpc=Rpc({"id": "app", "message": {**MESSAGE, "method": "missing"}}),
                code="NOT_FOUND",
                reason="Not Found",
                over=APP,
            ),
            Case(
                what="no such application",
                http=Http("POST", "/v1.0/invoke/nobody/method/x", {"x": 1}),
                status=500,
                error="ERR_DIRECT_INVOKE",
                rpc=Rpc({"id": "nobody", "message": MESSAGE}),
                code="INTERNAL",
            ),
            Case(
                what="no application named",
                http=Http("POST", "/v1.0/invoke/app", {"x": 1}),
                status=404,
                error="ERR_DIRECT_INVOKE",
            ),
        ),
    ),
    *_jobs("v1.0", ""),
    *_jobs("v1.0-alpha1", "Alpha1"),
)
