"""What a comparison with a real daprd (`against_daprd.py`) has shown, held here without one."""

from __future__ import annotations

import pytest

from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send
from tests.support.apps import App
from tests.support.running import declared, serving
from tests.support.waiting import until

MIB = 1 << 20


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1.0/nothing"), ("PATCH", "/v1.0/state/store/k"), ("GET", "/")])
def test_what_no_route_takes_is_a_call_without_a_target(sidecar: Sidecar, method: str, path: str) -> None:
    answer = send(sidecar.http_address, method, path)
    assert (answer.status, answer.error) == (404, "ERR_DIRECT_INVOKE")
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("size", [4 * MIB + 1, 24 * MIB])
def test_a_body_that_is_too_large_is_answered_whatever_it_weighs(sidecar: Sidecar, size: int) -> None:
    for _ in range(5):  # a connection closed too early loses the answer only sometimes
        answer = send(sidecar.http_address, "POST", "/v1.0/state/store", b"x" * size)
        assert (answer.status, answer.body) == (413, b"request body too large")


def test_a_body_of_just_the_limit_is_taken(sidecar: Sidecar) -> None:
    answer = send(sidecar.http_address, "POST", "/v1.0/state/store", b" " * (4 * MIB - 2) + b"[]")
    assert answer.status == 204


def test_an_unknown_consistency_of_a_read_is_left_out(sidecar: Sidecar) -> None:
    assert send(sidecar.http_address, "GET", "/v1.0/state/store/absent?consistency=wrong").status == 204


def test_the_resource_of_a_refusal_is_described_over_grpc_too(sidecar: Sidecar) -> None:
    answer = call(sidecar.grpc_address, "PublishEvent", messages().PublishEventRequest(pubsub_name="store"))
    resource = answer.details["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name) == ("pubsub", "store")
    assert resource.description


def test_the_root_of_an_application_is_reached() -> None:
    with App() as app, serving(declared(":memory:root"), app_port=app.port) as sidecar:
        assert send(sidecar.http_address, "GET", "/v1.0/invoke/app/method/").status == 200
        assert [got.path for got in app.got if got.method == "GET"][-1] == "/"


@pytest.mark.parametrize("content_type", ["image/png", "text/plain", "application/octet-stream"])
def test_bytes_of_an_event_that_was_one_already_stay_bytes(content_type: str) -> None:
    subscription = {"pubsubname": "store", "topic": "t", "route": "/events"}
    event = {"id": "1", "source": "s", "type": "t", "datacontenttype": content_type, "data_base64": "AAFh"}
    with App([subscription]) as app, serving(declared(":memory:bytes"), app_port=app.port) as sidecar:
        kind = {"content-type": "application/cloudevents+json"}
        assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", event, kind).status == 204
        got = until(lambda: [got.json for got in app.got if got.path == "/events"])[0]
    assert (got["datacontenttype"], got["data_base64"]) == (content_type, "AAFh")
    assert "data" not in got


def test_a_job_without_a_failure_policy_tells_the_default(sidecar: Sidecar) -> None:
    assert send(sidecar.http_address, "POST", "/v1.0/jobs/j", {"schedule": "@every 1h"}).status == 204
    told = send(sidecar.http_address, "GET", "/v1.0/jobs/j").json
    assert told == {
        "name": "j",
        "schedule": "@every 1h",
        "failurePolicy": {"constant": {"interval": "1s", "maxRetries": 3}},
    }


@pytest.mark.parametrize(
    ("event", "absent"),
    [
        ({"id": "1"}, {"data", "data_base64", "datacontenttype"}),
        ({"id": "1", "data": {"a": 1}}, {"data_base64", "datacontenttype"}),
        ({"id": "1", "datacontenttype": "text/plain"}, {"data", "data_base64"}),
        ({"id": "1", "data_base64": "AAE="}, {"data", "datacontenttype"}),
        ({"id": "1", "data": None, "datacontenttype": "application/json"}, {"data_base64"}),
        ({"id": "1", "N_t": [1]}, {"data", "data_base64", "datacontenttype"}),
    ],
)
def test_what_an_event_that_was_one_already_lacks_stays_absent(event: dict[str, object], absent: set[str]) -> None:
    subscription = {"pubsubname": "store", "topic": "t", "route": "/events"}
    with App([subscription]) as app, serving(declared(":memory:absent"), app_port=app.port) as sidecar:
        kind = {"content-type": "application/cloudevents+json"}
        assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", event, kind).status == 204
        got = until(lambda: [got for got in app.got if got.path == "/events"])[0]
    assert {name for name in ("data", "data_base64", "datacontenttype") if name not in got.json} == absent
    assert got.json | event == got.json
    assert (got.json["source"], got.json["type"]) == ("Dapr", "com.dapr.event.sent")
    assert got.header("rawpayload") is None


@pytest.mark.parametrize("metadata", [{}, {"rawPayload": "true"}])
def test_a_delivery_tells_that_the_event_was_published_raw(metadata: dict[str, str]) -> None:
    subscription = {"pubsubname": "store", "topic": "t", "route": "/events", "metadata": metadata}
    with App([subscription]) as app, serving(declared(":memory:told"), app_port=app.port) as sidecar:
        for query in ("?metadata.rawPayload=true", ""):
            assert send(sidecar.http_address, "POST", f"/v1.0/publish/store/t{query}", {"id": "r"}).status == 204
        got = until(lambda: len(found := [got for got in app.got if got.path == "/events"]) == 2 and found)
    assert sorted(str(each.header("rawpayload")) for each in got) == ["None", "true"]


def test_entries_of_a_bulk_have_metadata() -> None:
    bulk = {"enabled": True, "maxMessagesCount": 1}
    subscription = {"pubsubname": "store", "topic": "t", "route": "/bulk", "bulkSubscribe": bulk}
    with App([subscription]) as app, serving(declared(":memory:entries"), app_port=app.port) as sidecar:
        assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", {"n": 1}).status == 204
        got = until(lambda: [got.json for got in app.got if got.path == "/bulk"])[0]
    assert [each["metadata"] for each in got["entries"]] == [{}]
