"""A sidecar on a Redis that it shares with daprd, and what a comparison with a real daprd has shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from grpc import StatusCode

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar
from cloud_runtimes.protocols.dapr.messages import messages
from tests.sidecar.raw import call, send
from tests.support.apps import App
from tests.support.redis import RedisServer
from tests.support.running import declared, serving
from tests.support.sidecar_events import publish
from tests.support.waiting import until

CLOUD_EVENT = "application/cloudevents+json"


@contextmanager
def shared(server: RedisServer, topic: str, app: App | None = None) -> Iterator[tuple[Sidecar, redis.Redis]]:
    """Serve a sidecar on Dapr's layout, and give a connection of the other side; a topic is the test's own."""
    component = {"component": "redis", "url": server.url, "layout": "dapr"}
    config = {"capa": {"home": f":memory:{topic}"}, **{kind: {"store": component} for kind in ("pubsub", "state")}}
    with redis.Redis.from_url(server.url) as other:
        other.delete(topic)
        with serving(config, app_port=None if app is None else app.port) as sidecar:
            if app is not None:
                until(lambda: len(sidecar.context.subscriptions) == 1, "the subscription")
            yield sidecar, other


def entry(other: redis.Redis, topic: str) -> tuple[dict[str, Any], Any]:
    """Return the newest event of a stream, and its metadata."""
    ((_, fields),) = other.xrevrange(topic, count=1)
    return json.loads(fields[b"data"]), json.loads(fields.get(b"metadata", b"null"))


def test_the_expiry_of_an_event_is_where_dapr_reads_it(redis_server: RedisServer) -> None:
    topic = "expiring"
    with shared(redis_server, topic) as (sidecar, other):
        publish(sidecar, topic, 1, query="metadata.ttlInSeconds=60")
        event, metadata = entry(other, topic)
        remaining = datetime.fromisoformat(event["expiration"]) - datetime.now(UTC)
        assert timedelta(seconds=30) < remaining < timedelta(seconds=61)
        assert event["expirytime"][:19] == event["expiration"][:19]  # what we have always written stays there
        assert metadata == {"ttlInSeconds": "60"}
        sidecar.context.client.pubsub.publish("store", topic, 2, ttl=60, attributes={"tenant": "blue"})
        event, _ = entry(other, topic)
        assert event["tenant"] == "blue"
        assert "expiration" in event


def test_metadata_of_an_event_reaches_the_subscriber(redis_server: RedisServer) -> None:
    topic = "noted"
    subscription = {"pubsubname": "store", "topic": topic, "route": "/in"}
    with App([subscription]) as app, shared(redis_server, topic, app) as (sidecar, other):
        publish(
            sidecar, topic, 1, query="metadata.Tenant=blue&metadata.ttlInSeconds=60&metadata.host=x&metadata.bad=%0A"
        )
        until(lambda: len(app.got) == 1)
        assert entry(other, topic)[1] == {"Tenant": "blue", "ttlInSeconds": "60", "host": "x", "bad": "\n"}
        theirs = {"source": "s", "type": "t", "specversion": "1.0", "data": 2, "traceid": "", "tracestate": ""}
        notes = [json.dumps(note) for note in ({"Tenant": "red", "n": 5}, [], "x" * 70_000)]
        for number, note in enumerate((*notes, b"\xff"), 2):
            other.xadd(topic, {"data": json.dumps({"id": str(number), **theirs}), "metadata": note})
        until(lambda: len(app.got) == 5)
    first, *others = app.got
    got = [first, *sorted(others, key=lambda got: got.json["id"])]  # the sidecar has many at the application at once
    assert [each.header("tenant") for each in got] == ["blue", "red", None, None, None]
    assert [each.header("bad") for each in got] == [None] * 5
    assert [each.json["data"] for each in got] == [1, 2, 2, 2, 2]


def test_metadata_reaches_the_subscriber_in_memory_too() -> None:
    subscription = {"pubsubname": "store", "topic": "t", "route": "/in"}
    config = declared(":memory:metadata")
    with App([subscription]) as app, serving(config, app_port=app.port) as sidecar:
        until(lambda: len(sidecar.context.subscriptions) == 1)
        publish(sidecar, "t", 1, query="metadata.tenant=blue&metadata.content-length=5&metadata.dapr-api-token=lie")
        (got,) = until(lambda: app.got)
    assert (got.header("tenant"), got.header("dapr-api-token"), got.json["data"]) == ("blue", None, 1)


def test_metadata_stands_in_the_entries_of_a_bulk() -> None:
    subscription = {"pubsubname": "store", "topic": "t", "route": "/in", "bulkSubscribe": {"enabled": True}}
    with App([subscription]) as app, serving(declared(":memory:bulk-metadata"), app_port=app.port) as sidecar:
        until(lambda: len(sidecar.context.subscriptions) == 1)
        publish(sidecar, "t", 1, query="metadata.tenant=blue")
        (got,) = until(lambda: app.got)
    assert [each["metadata"] for each in got.json["entries"]] == [{"tenant": "blue"}]


def test_an_event_without_data_has_none(redis_server: RedisServer) -> None:
    topic = "bare"
    subscription = {"pubsubname": "store", "topic": topic, "route": "/in"}
    with App([subscription]) as app, shared(redis_server, topic, app) as (sidecar, other):
        publish(sidecar, topic, {"id": "1", "source": "s", "type": "t", "specversion": "1.0"}, CLOUD_EVENT)
        event, metadata = entry(other, topic)
        assert not {"data", "data_base64"} & event.keys()
        assert metadata is None
        other.xadd(topic, {"data": json.dumps({"id": "2", "source": "s", "type": "t", "specversion": "1.0"})})
        publish(sidecar, topic, b"", "application/json")  # text, as daprd makes of what is no JSON
        until(lambda: len(app.got) == 3)
    bare, theirs, empty = (got.json for got in sorted(app.got, key=lambda got: "data" in got.json))
    assert not {"data", "data_base64"} & (bare.keys() | theirs.keys())
    assert (empty["data"], empty["datacontenttype"]) == ("", "application/json")


def test_an_etag_that_is_no_number_is_refused(redis_server: RedisServer) -> None:
    with shared(redis_server, "none") as (sidecar, _):
        for etag, status, code in (("x", 400, StatusCode.INVALID_ARGUMENT), ("77", 409, StatusCode.ABORTED)):
            key = f"k-{etag}"
            assert send(sidecar.http_address, "POST", "/v1.0/state/store", [{"key": key, "value": 1}]).status == 204
            answer = send(sidecar.http_address, "POST", "/v1.0/state/store", [{"key": key, "value": 2, "etag": etag}])
            assert (answer.status, answer.error) == (status, "ERR_STATE_SAVE")
            kinds = messages()
            item = kinds.StateItem(key=key, value=b"3", etag=kinds.Etag(value=etag))
            request = kinds.SaveStateRequest(store_name="store", states=[item])
            assert call(sidecar.grpc_address, "SaveState", request).code == code.name
            # as daprd: of a delete it is a stale one
            path = f"/v1.0/state/store/{key}"
            assert send(sidecar.http_address, "DELETE", path, headers={"if-match": etag}).status == 409


@pytest.mark.parametrize("layout", ["dapr", "event"])
def test_metadata_is_told_to_plain_clients(redis_server: RedisServer, layout: str) -> None:
    config = {"pubsub": {"store": {"component": "redis", "url": redis_server.url, "layout": layout}}}
    with CloudRuntimesClient(config=config, app_id="plain") as client:
        with client.pubsub.subscribe("store", f"plain-{layout}", start="latest") as subscription:
            client.pubsub.publish("store", f"plain-{layout}", 1, metadata={"tenant": "blue"})
            event = subscription.receive(timeout=60)
            assert event is not None
            event.ack()
            assert event.metadata == ({"tenant": "blue"} if layout == "dapr" else {})


# -- what a comparison with a real daprd (`against_daprd.py`) has shown, held here without one

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
    job = send(sidecar.http_address, "GET", "/v1.0/jobs/j").json
    assert job == {
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
        got = until(lambda: len(events := [got for got in app.got if got.path == "/events"]) == 2 and events)
    assert sorted(str(each.header("rawpayload")) for each in got) == ["None", "true"]


def test_entries_of_a_bulk_have_metadata() -> None:
    bulk = {"enabled": True, "maxMessagesCount": 1}
    subscription = {"pubsubname": "store", "topic": "t", "route": "/bulk", "bulkSubscribe": bulk}
    with App([subscription]) as app, serving(declared(":memory:entries"), app_port=app.port) as sidecar:
        assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", {"n": 1}).status == 204
        got = until(lambda: [got.json for got in app.got if got.path == "/bulk"])[0]
    assert [each["metadata"] for each in got["entries"]] == [{}]
