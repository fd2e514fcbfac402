"""Subscriptions of the runtime dapr over HTTP alone: by callbacks of the application's server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.request import Request, urlopen

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.errors import InvalidArgumentError, UnsupportedError
from cloud_runtimes.pubsub import DropEvent
from cloud_runtimes.testing import Api
from tests.support.ports import reserved_port
from tests.support.waiting import until

SOON = 20.0
_homes = count()


@contextmanager
def beside(*, token: str | None = None) -> Iterator[tuple[Sidecar, int, CloudRuntimesClient]]:
    """A sidecar that looks for an application, which does not listen yet, and the client that becomes it."""
    beneath = CloudRuntimesClient(config={"capa": {"home": f":memory:callbacks-{next(_homes)}"}}, app_id="shop")
    with reserved_port() as port, beneath:
        settings = SidecarSettings(
            app_id="shop", app_port=port, http_port=0, grpc_port=None, app_token=token, grace=1.0
        )
        with Sidecar(beneath, settings) as sidecar:
            with CloudRuntimesClient(sidecar.http_address, app_id="shop") as client:
                yield sidecar, port, client


def get(port: int, path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=SOON) as answer:
        return json.loads(answer.read())


def post(port: int, path: str, document: Any) -> Any:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = Request(f"http://127.0.0.1:{port}/{path}", data, {"content-type": "application/cloudevents+json"})
    with urlopen(request, timeout=SOON) as answer:
        return json.loads(answer.read())


def test_events_arrive_as_they_were(api: Api) -> None:
    sent = [b"", b"\x00\xff", 1, 2**63 - 1, 0.1, 1e300, 2.0, None, "", "text", "ünïcødé 🎉", {"a": [1.5, None]}, []]
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = {"id": "mine", "subject": "s", "time": "2025-01-15T09:30:12Z", "level": 7, "urgent": True}
    events: list[Any] = []
    with beside() as (_, port, client):
        assert client.supports("pubsub.subscribe", "bus")
        with client.pubsub.subscribe("bus", "t/x y", events.append), client.rpc.serving(port=port):
            for value in sent:
                api.call(client.pubsub, "publish", "bus", "t/x y", value)
            api.call(client.pubsub, "publish_bulk", "bus", "t/x y", sent)
            options = {"key": "k", "attributes": {**given, "traceparent": trace, "tracestate": "a=b"}}
            api.call(client.pubsub, "publish", "bus", "t/x y", "x", content_type="text/plain", **options)
            until(lambda: len(events) == 2 * len(sent) + 1)
    got = sorted((event.data for event in events if event.id != "mine"), key=repr)
    assert got == sorted([*sent, *sent], key=repr)
    assert [type(value) for value in got] == [type(value) for value in sorted([*sent, *sent], key=repr)]
    [last] = [event for event in events if event.id == "mine"]
    assert (last.data, last.subject, last.key, last.traceparent) == ("x", "s", "k", trace)
    assert dict(last.extensions) == {"level": 7, "urgent": True, "tracestate": "a=b"}
    assert (last.source, last.type, last.topic, last.pubsub_name, last.delivery_count) == (
        "shop", "cloud_runtimes.event", "t/x y", "bus", None,
    )  # fmt: skip


def test_answers(api: Api) -> None:
    """An exception comes again, a drop goes to the dead letters, and each is asked for in the answer of its own request."""
    seen: list[Any] = []
    dead: list[Any] = []

    def handle(event: Any) -> None:
        seen.append(event.data)
        if event.data == "again" and seen.count("again") < 3:
            event.retry(0)
        if event.data == "bad":
            raise DropEvent

    with beside() as (_, port, client):
        with (
            client.pubsub.subscribe("bus", "t", api.handler(handle)),
            client.pubsub.subscribe("bus", "u", handle, dead_letter_topic="dead"),
            client.pubsub.subscribe("bus", "dead", dead.append),
            client.rpc.serving(port=port),
        ):
            for topic, data in (("t", "again"), ("t", "good"), ("u", "bad")):
                api.call(client.pubsub, "publish", "bus", topic, data)
            until(lambda: seen.count("again") == 3 and "good" in seen and len(dead) == 1)
    assert dead[0].data == "bad"
    assert seen.count("good") == seen.count("bad") == 1


def test_batches(api: Api) -> None:
    batches: list[list[Any]] = []

    def handle(batch: Any) -> None:
        batches.append([event.data for event in batch])
        for event in batch:
            if event.data == 7 and sum(7 in each for each in batches) == 1:
                event.retry(0)

    with beside() as (_, port, client):
        with client.pubsub.subscribe("bus", "t", handle, batch=50), client.rpc.serving(port=port):
            [subscription] = get(port, "dapr/subscribe")
            assert subscription["bulkSubscribe"] == {"enabled": True, "maxMessagesCount": 50, "maxAwaitDurationMs": 10}
            api.call(client.pubsub, "publish_bulk", "bus", "t", list(range(100)))
            until(lambda: sum(map(len, batches)) == 101)
    assert sorted(data for each in batches for data in each) == sorted([*range(100), 7])
    assert max(map(len, batches)) > 1


def test_what_is_told() -> None:
    with beside() as (_, port, client):
        with (
            client.pubsub.subscribe("bus", "a", raw=True, metadata={"k": "v"}) as sub,
            client.pubsub.subscribe("bus", "b.c/d", dead_letter_topic="dead"),
            client.pubsub.subscribe("bus", "gone"),
        ):
            client.pubsub.subscribe("bus", "closed").close()
            with pytest.raises(InvalidArgumentError, match="subscribed to with other options"):
                client.pubsub.subscribe("bus", "a")
            with client.rpc.serving(port=port):
                assert get(port, "dapr/subscribe") == [
                    {
                        "pubsubname": "bus",
                        "topic": "a",
                        "route": "/cloud-runtimes/events/bus/a",
                        "metadata": {"k": "v", "rawPayload": "true"},
                    },
                    {
                        "pubsubname": "bus",
                        "topic": "b.c/d",
                        "route": "/cloud-runtimes/events/bus/b.c/d",
                        "deadLetterTopic": "dead",
                    },
                    {"pubsubname": "bus", "topic": "gone", "route": "/cloud-runtimes/events/bus/gone"},
                ]
                client.pubsub.publish("bus", "a", b"\x01\x02", raw=True)
                event = sub.receive(SOON)
                assert event is not None
                assert event.data == b"\x01\x02"
                event.ack()


def test_a_subscription_comes_before_the_sidecar_asks(api: Api) -> None:
    with beside() as (_, port, client):
        with client.pubsub.subscribe("bus", "early"), client.rpc.serving(port=port):
            assert len(get(port, "dapr/subscribe")) == 1
            with pytest.raises(UnsupportedError, match="before it serves, or give the sidecar's gRPC address"):
                api.call(client.pubsub, "subscribe", "bus", "late")
            # one that the sidecar knows may come back
            with client.pubsub.subscribe("bus", "early"):
                pass


def test_what_nobody_takes_comes_again() -> None:
    with beside() as (_, port, client):
        sub = client.pubsub.subscribe("bus", "t")
        with client.rpc.serving(port=port):
            assert len(get(port, "dapr/subscribe")) == 1
            client.pubsub.publish("bus", "t", 1)
            event = sub.receive(SOON)
            assert event is not None
            sub.close()  # gives it back
            with client.pubsub.subscribe("bus", "t") as second:
                again = second.receive(SOON)
                assert again is not None
                assert again.id == event.id
                again.ack()


def test_what_sidecars_post_and_others() -> None:
    seen: list[Any] = []
    route = "cloud-runtimes/events/bus/t"
    plain = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "topic": "t", "pubsubname": "bus"}
    with beside() as (_, port, client):
        with client.pubsub.subscribe("bus", "t", seen.append), client.rpc.serving(port=port):
            done = {"status": "SUCCESS"}
            assert post(port, route, {**plain, "datacontenttype": "application/json", "data": {"a": 1}}) == done
            assert post(port, route, {**plain, "datacontenttype": "text/plain", "data": "x", "odd_name": {}}) == done
            assert post(port, route, {**plain, "data_base64": base64.b64encode(b"\0").decode()}) == done
            assert post(port, route, {**plain, "data_base64": "?"}) == {"status": "DROP"}
            assert post(port, route, {**plain, "id": 5}) == {"status": "DROP"}
            until(lambda: len(seen) == 3)
            for body in (b"nothing", b"[]", b""):
                with pytest.raises(OSError, match="400"):
                    post(port, route, body)
            bulk = {
                "id": "b",
                "type": "com.dapr.event.sent.bulk",
                "entries": [
                    {"entryId": "e1", "event": {**plain, "data": 1, "datacontenttype": "application/json"}},
                    {"entryId": "e2", "event": "AQI=", "contentType": "application/octet-stream"},
                    {"entryId": "e3", "event": {**plain, "data_base64": "?"}},
                    "none",
                ],
            }
            assert post(port, route, bulk)["statuses"] == [
                {"entryId": "e1", "status": "SUCCESS"},
                {"entryId": "e2", "status": "SUCCESS"},
                {"entryId": "e3", "status": "DROP"},
                {"entryId": "", "status": "RETRY"},
            ]
            assert post(port, "cloud-runtimes/events/bus/other", plain) == {"status": "RETRY"}
            with pytest.raises(OSError, match="404"):
                urlopen(f"http://127.0.0.1:{port}/{route}", timeout=SOON)
    assert sorted((event.data for event in seen), key=repr) == sorted([{"a": 1}, "x", b"\0", 1, b"\1\2"], key=repr)


def test_who_has_no_token_posts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_API_TOKEN", "of the app")
    seen: list[Any] = []
    with beside(token="of the app") as (_, port, client):
        with client.pubsub.subscribe("bus", "t", seen.append), client.rpc.serving(port=port):
            with pytest.raises(OSError, match="401"):
                post(port, "cloud-runtimes/events/bus/t", {"id": "1", "data": 1})
            client.pubsub.publish("bus", "t", "mine")
            until(lambda: len(seen) == 1)
    assert seen[0].data == "mine"
