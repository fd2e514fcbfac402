"""A sidecar on a Redis that it shares with daprd: what is there for the other, and what the other has left there (components-contrib, ``pubsub/redis``, ``state/redis``)."""

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
        left = datetime.fromisoformat(event["expiration"]) - datetime.now(UTC)
        assert timedelta(seconds=30) < left < timedelta(seconds=61)
        assert event["expirytime"][:19] == event["expiration"][:19]  # what we have always written stays there
        assert metadata == {"ttlInSeconds": "60"}
        sidecar.context.client.pubsub.publish("store", topic, 2, ttl=60, attributes={"tenant": "blue"})
        event, _ = entry(other, topic)
        assert event["tenant"] == "blue"
        assert "expiration" in event


def test_metadata_of_an_event_reaches_the_subscriber(redis_server: RedisServer) -> None:
    topic = "noted"
    told = {"pubsubname": "store", "topic": topic, "route": "/in"}
    with App([told]) as app, shared(redis_server, topic, app) as (sidecar, other):
        publish(
            sidecar, topic, 1, query="metadata.Tenant=blue&metadata.ttlInSeconds=60&metadata.host=x&metadata.bad=%0A"
        )
        until(lambda: len(app.got) == 1)
        assert entry(other, topic)[1] == {"Tenant": "blue", "ttlInSeconds": "60", "host": "x", "bad": "\n"}
        theirs = {
            "id": "1",
            "source": "s",
            "type": "t",
            "specversion": "1.0",
            "data": 2,
            "traceid": "",
            "tracestate": "",
        }
        for note in ({"Tenant": "red", "n": 5}, [], "x" * 70_000):
            other.xadd(topic, {"data": json.dumps(theirs), "metadata": json.dumps(note)})
        other.xadd(topic, {"data": json.dumps(theirs), "metadata": b"\xff"})
        until(lambda: len(app.got) == 5)
    assert [got.header("tenant") for got in app.got] == ["blue", "red", None, None, None]
    assert [got.header("bad") for got in app.got] == [None] * 5
    assert [got.json["data"] for got in app.got] == [1, 2, 2, 2, 2]


def test_metadata_reaches_the_subscriber_in_memory_too() -> None:
    told = {"pubsubname": "store", "topic": "t", "route": "/in"}
    config = declared(":memory:metadata")
    with App([told]) as app, serving(config, app_port=app.port) as sidecar:
        until(lambda: len(sidecar.context.subscriptions) == 1)
        publish(sidecar, "t", 1, query="metadata.tenant=blue&metadata.content-length=5&metadata.dapr-api-token=lie")
        (got,) = until(lambda: app.got)
    assert (got.header("tenant"), got.header("dapr-api-token"), got.json["data"]) == ("blue", None, 1)


def test_metadata_stands_in_the_entries_of_a_bulk() -> None:
    told = {"pubsubname": "store", "topic": "t", "route": "/in", "bulkSubscribe": {"enabled": True}}
    with App([told]) as app, serving(declared(":memory:bulk-metadata"), app_port=app.port) as sidecar:
        until(lambda: len(sidecar.context.subscriptions) == 1)
        publish(sidecar, "t", 1, query="metadata.tenant=blue")
        (got,) = until(lambda: app.got)
    assert [each["metadata"] for each in got.json["entries"]] == [{"tenant": "blue"}]


def test_an_event_without_data_has_none(redis_server: RedisServer) -> None:
    topic = "bare"
    told = {"pubsubname": "store", "topic": topic, "route": "/in"}
    with App([told]) as app, shared(redis_server, topic, app) as (sidecar, other):
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
