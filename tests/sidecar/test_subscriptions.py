"""Events to the application over HTTP: callbacks, what its answers mean, rules, dead letters, bulks, the end."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.dapr_server import Sidecar, SidecarSettings
from cloud_runtimes.dapr_server.settings import BulkSubscribe, Subscription
from cloud_runtimes.errors import InvalidArgumentError
from tests.sidecar.raw import send
from tests.support.apps import App, Got, Reply
from tests.support.ports import reserved_port
from tests.support.running import declared, serving, sidecar_process
from tests.support.sidecar_events import TRACE, beside, publish, settled, taken
from tests.support.waiting import until


@pytest.fixture
def home(request: pytest.FixtureRequest) -> str:
    return f"subscriptions-{request.node.name}"


def route(topic: str, path: str = "/in", **more: Any) -> dict[str, Any]:
    return {"pubsubname": "store", "topic": topic, "route": path, **more}


# -- HTTP -------------------------------------------------------------------


def test_an_event_arrives_as_daprs(home: str) -> None:
    with App([route("t")]) as app, beside(app, home, app_token="token") as sidecar:
        query = f"metadata.cloudevent.traceparent={TRACE}&metadata.cloudevent.subject=sub&metadata.cloudevent.id=i1"
        publish(sidecar, "t", b'{"n": 1.0}', query=query)
        (got,) = until(lambda: app.got)
        assert {each.path for each in app.asked} == {"/dapr/config", "/dapr/subscribe"}
        assert [each.header("dapr-app-id") for each in app.asked] == ["app", "app"]
        assert all(each.header("dapr-api-token") == "token" for each in [*app.asked, got])
    event = got.json
    assert (got.method, got.path) == ("POST", "/in")
    assert got.header("content-type") == "application/cloudevents+json"
    assert (got.header("pubsubname"), got.header("traceparent")) == ("store", TRACE)
    assert event.pop("time").endswith("Z")
    assert event == {
        "id": "i1",
        "source": "app",
        "specversion": "1.0",
        "type": "com.dapr.event.sent",
        "datacontenttype": "application/json",
        "subject": "sub",
        "topic": "t",
        "pubsubname": "store",
        "traceid": TRACE,
        "traceparent": TRACE,
        "tracestate": "",
        "data": {"n": 1},
    }


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (b"text", "text/plain", {"data": "text"}),
        (b"<a/>", "application/xml", {"data": "<a/>"}),
        (b"\x00\xff", "application/octet-stream", {"data_base64": "AP8="}),
        (b"\xff", "image/png", {"data_base64": "/w=="}),
        (b"no json", "application/json", {"data": "no json"}),
        (b"[1e400]", "application/json", {"data": "[1e400]"}),
    ],
)
def test_data_of_other_types(home: str, data: bytes, content_type: str, expected: dict[str, Any]) -> None:
    with App([route("t")]) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", data, content_type)
        (got,) = until(lambda: app.got)
    assert {
        name: value for name, value in got.json.items() if name.startswith("data") and name != "datacontenttype"
    } == (expected)


def test_attributes_that_cloud_events_does_not_know_arrive(home: str) -> None:
    event = {"id": "1", "source": "s", "my_own": {"deep": [1.5]}, "data": {"x": 1}, "topic": "lie"}
    with App([route("t")]) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", event, "application/cloudevents+json")
        (got,) = until(lambda: app.got)
    assert got.json["my_own"] == {"deep": [1.5]}
    assert got.json["data"] == {"x": 1}
    assert (got.json["topic"], got.json["pubsubname"], got.json["id"]) == ("t", "store", "1")
    assert got.json["type"] == "com.dapr.event.sent"


def test_an_event_of_a_plain_client_arrives_as_daprs(home: str) -> None:
    with App([route("t")]) as app, beside(app, home) as sidecar:
        attributes = {"id": "1", "topic": "lie", "mine": 5}
        sidecar.context.client.pubsub.publish("store", "t", {"n": 1}, attributes=attributes)
        (got,) = until(lambda: app.got)
    event = got.json
    assert (event["topic"], event["pubsubname"], event["type"]) == ("t", "store", "cloud_runtimes.event")
    assert (event["id"], event["mine"], event["data"], event["traceparent"]) == ("1", 5, {"n": 1}, "")


def once(reply: Reply) -> Callable[[Got], Reply | None]:
    """Answer so the first time, later with success."""
    replies = [reply]
    lock = threading.Lock()

    def answer(got: Got) -> Reply | None:
        with lock:
            return replies.pop() if replies else None

    return answer


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(400),
        Reply(200, b'{"status":"RETRY"}'),
        Reply(200, b'{"status":"WHAT"}'),
        Reply(302, headers=[("location", "/elsewhere")]),
    ],
)
def test_what_asks_for_another_try(home: str, reply: Reply) -> None:
    with App([route("t")], once(reply)) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", 1)
        until(lambda: len(app.got) == 2, "the second try")
        assert app.got[0].json == app.got[1].json


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200),
        Reply(204),
        Reply(201, b"no json"),
        Reply(200, b'{"status":""}'),
        Reply(200, b'{"status":"SUCCESS"}'),
        Reply(200, b"[]"),
        Reply(200, b'{"status":"DROP"}'),
        Reply(404),
    ],
)
def test_what_settles_an_event(home: str, reply: Reply) -> None:
    with App([route("t")], lambda got: reply) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", 1)
        until(lambda: app.got)
        until(lambda: settled(sidecar), "its end")
        assert len(app.got) == 1


def test_the_application_that_is_away_gets_it_later(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is its event a dead letter: it has said nothing against it."""
    subscriptions = [route("t", deadLetterTopic="dead")]
    with ExitStack() as stack:
        first = App(subscriptions, port=stack.enter_context(reserved_port()))
        first.closing = True
        with first:
            sidecar = stack.enter_context(beside(first, home))
        publish(sidecar, "t", 1)
        until(lambda: "the event comes again" in caplog.text, "a try in vain")
        with App(subscriptions, port=first.port) as second:
            until(lambda: second.got, "the event")
            assert second.got[0].json["data"] == 1
        assert not first.got


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(500), "deliveries"),
        (Reply(404), "dropped"),
        (Reply(200, b'{"status":"DROP"}'), "dropped"),
        (Reply(200, b'{"status":"RETRY"}'), "deliveries"),
    ],
)
def test_dead_letters(home: str, reply: Reply, reason: str) -> None:
    with App([route("t", deadLetterTopic="dead")], lambda got: reply) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", 7)
        event = taken(sidecar, "dead")
        assert (event.data, event.topic) == (7, "t")
        assert (event.extensions["dlreason"], event.extensions["dlcount"]) == (reason, 1)
        assert len(app.got) == 1


@pytest.mark.parametrize("status", [404, 500])
def test_a_delivery_that_fails_is_logged(home: str, caplog: pytest.LogCaptureFixture, status: int) -> None:
    path = f"/logged-{status}"
    with App([route("t", path)], once(Reply(status))) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", 1)
        until(lambda: f"{path} answered an event of t with status {status}" in caplog.text, "a line of the log")


@pytest.mark.parametrize("reply", [Reply(500), Reply(200, b'{"status":"DROP"}')])
def test_a_dead_letter_of_its_own_topic_comes_again(home: str, reply: Reply) -> None:
    def answer(got: Got) -> Reply | None:
        return reply if len(app.got) == 1 else None

    with App([route("t", deadLetterTopic="t")], answer) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", 7)
        until(lambda: len(app.got) == 2)
        until(lambda: settled(sidecar), "its end")
        assert [each.json["data"] for each in app.got] == [7, 7]


def test_what_nobody_wants_is_no_dead_letter_of_its_own_topic(home: str) -> None:
    routes = {"rules": [{"match": "event.data == 1", "path": "/in"}]}
    subscriptions = [{"pubsubname": "store", "topic": "t", "routes": routes, "deadLetterTopic": "t"}]
    with App(subscriptions) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", 7)
        publish(sidecar, "t", 1)
        until(lambda: app.got)
        until(lambda: settled(sidecar), "their end")
        assert [each.json["data"] for each in app.got] == [1]


def test_a_dead_letter_topic_can_be_subscribed_to(home: str) -> None:
    def answer(got: Got) -> Reply | None:
        return Reply(500) if got.path == "/in" else None

    subscriptions = [route("t", deadLetterTopic="dead"), route("dead", "/failed")]
    with App(subscriptions, answer) as app, beside(app, home, 2) as sidecar:
        publish(sidecar, "t", 7)
        (got,) = until(lambda: app.at("/failed"))
        assert (got.json["data"], got.json["topic"]) == (7, "t")


def test_rules(home: str) -> None:
    routes = {
        "rules": [
            {"match": 'event.type == "a"', "path": "/a"},
            {"match": "has(event.data.n) && event.data.n > 5", "path": "/many"},
        ],
        "default": "/other",
    }
    with App([{"pubsubname": "store", "topic": "t", "routes": routes}]) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", {}, query="metadata.cloudevent.type=a")
        publish(sidecar, "t", {"n": 6})
        publish(sidecar, "t", {"n": 5})
        until(lambda: len(app.got) == 3)
        assert sorted((each.path, each.json["data"].get("n")) for each in app.got) == [
            ("/a", None),
            ("/many", 6),
            ("/other", 5),
        ]


def test_what_no_rule_takes_or_a_rule_fails_for(home: str) -> None:
    routes = {"rules": [{"match": "event.data.n == 1", "path": "/one"}]}
    subscriptions = [{"pubsubname": "store", "topic": "t", "routes": routes, "deadLetterTopic": "dead"}]
    with App(subscriptions) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", {"n": 2})
        assert taken(sidecar, "dead").data == {"n": 2}
        publish(sidecar, "t", {"n": 1})
        until(lambda: app.at("/one"))
        assert len(app.got) == 1


def test_a_rule_that_is_none_is_told_and_the_rest_is_left(home: str, caplog: pytest.LogCaptureFixture) -> None:
    routes = {"rules": [{"match": "event.data.foo(", "path": "/one"}]}
    with App([{"pubsubname": "store", "topic": "t", "routes": routes}]) as app, beside(app, home, 0):
        until(lambda: "cannot be used" in caplog.text, "the log")
        assert "'t' of 'store'" in caplog.text


def test_raw_payloads(home: str) -> None:
    with App([route("t", metadata={"rawPayload": "true"})]) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", b"\x00raw", "application/octet-stream", "metadata.rawPayload=true")
        (got,) = until(lambda: app.got)
        assert (got.json["data_base64"], got.json["datacontenttype"]) == ("AHJhdw==", "application/octet-stream")
        assert (got.json["type"], got.json["source"], got.json["topic"]) == ("com.dapr.event.sent", "Dapr", "t")
        publish(sidecar, "t", 1)
        until(lambda: len(app.got) == 2)
        inner = json.loads(base64.b64decode(app.got[1].json["data_base64"]))
        assert (inner["data"], inner["topic"]) == (1, "t")


def test_what_is_no_event_is_dropped(home: str) -> None:
    with App([route("t", deadLetterTopic="dead")]) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", b"\x00", "application/octet-stream", "metadata.rawPayload=true")
        assert taken(sidecar, "dead").extensions["dlreason"] == "undecodable"
        assert not app.got


def test_what_has_expired_is_a_dead_letter(home: str) -> None:
    event = {"id": "1", "source": "s", "type": "t", "data": 7, "expiration": "2001-02-03T04:05:06Z"}
    with App([route("t", deadLetterTopic="dead")]) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", event, "application/cloudevents+json")
        assert taken(sidecar, "dead").data == 7
        publish(sidecar, "t", {**event, "expiration": "2901-02-03T04:05:06Z"}, "application/cloudevents+json")
        (got,) = until(lambda: app.got)
        assert got.json["expiration"].startswith("2901")


def test_the_sidecar_serves_before_the_application_listens(home: str) -> None:
    with reserved_port() as port, serving(declared(f":memory:{home[:90]}"), app_port=port) as sidecar:
        assert send(sidecar.http_address, "GET", "/v1.0/healthz/outbound").status == 204
        publish(sidecar, "t", 1)
        assert not sidecar.context.subscriptions
        with App([route("t")], port=port) as app:
            (got,) = until(lambda: app.got, "the event")
            assert got.json["data"] == 1


def test_an_answer_may_take_longer_than_the_lease(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.dapr_server.pubsub.subscriber._LEASE", 5.0)
    leave = threading.Event()

    def answer(got: Got) -> Reply | None:
        if got.json["data"] == "slow":
            assert leave.wait(60)
        return None

    with App([route("t")], answer) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", "slow")
        until(lambda: app.got)
        for number in range(5):  # meanwhile the lease is over
            time.sleep(1.2)
            publish(sidecar, "t", number)
        until(lambda: len(app.got) == 6)
        leave.set()
        until(lambda: settled(sidecar))
        assert len(app.got) == 6


def bulk(count: int = 100, wait_ms: int = 300) -> dict[str, Any]:
    return {"bulkSubscribe": {"enabled": True, "maxMessagesCount": count, "maxAwaitDurationMs": wait_ms}}


def test_a_bulk(home: str) -> None:
    def answer(got: Got) -> Reply:
        said = {1: "SUCCESS", 2: "DROP", 3: ""}
        statuses = [
            {"entryId": each["entryId"], "status": said.get(each["event"]["data"], "RETRY")}
            for each in got.json["entries"]
            if each["event"]["data"] != 5
        ]
        if len(app.got) > 1:
            statuses = [{**each, "status": "SUCCESS"} for each in statuses]
        return Reply(200, json.dumps({"statuses": statuses}).encode())

    with App([route("t", **bulk(5, 60_000))], answer) as app, beside(app, home) as sidecar:
        for number in range(1, 6):
            publish(sidecar, "t", number)
        (got,) = until(lambda: app.got)
        document = got.json
        assert got.header("content-type") == "application/json"
        assert (document["type"], document["topic"], document["pubsubname"]) == (
            "com.dapr.event.sent.bulk",
            "t",
            "store",
        )
        assert [each["event"]["data"] for each in document["entries"]] == [1, 2, 3, 4, 5]
        assert {each["contentType"] for each in document["entries"]} == {"application/cloudevents+json"}


def test_of_a_bulk_comes_again_what_was_not_settled(home: str) -> None:
    done: list[int] = []

    def answer(got: Got) -> Reply:
        statuses = []
        for each in got.json["entries"]:
            number = each["event"]["data"]
            if number == 3 and len(app.got) == 1:
                continue  # nothing is said of it
            status = "RETRY" if number == 2 and len(app.got) == 1 else "SUCCESS"
            if status == "SUCCESS":
                done.append(number)
            statuses.append({"entryId": each["entryId"], "status": status})
        return Reply(200, json.dumps({"statuses": statuses}).encode())

    with App([route("t", **bulk(3, 1000))], answer) as app, beside(app, home) as sidecar:
        for number in (1, 2, 3):
            publish(sidecar, "t", number)
        until(lambda: sorted(done) == [1, 2, 3], "all")
        assert len(app.got) >= 2


def test_a_bulk_of_raw_payloads_by_rule(home: str) -> None:
    subscription = route("t", metadata={"rawPayload": "true"}, **bulk(2, 200))
    with App([subscription], lambda got: Reply(404)) as app, beside(app, home) as sidecar:
        publish(sidecar, "t", b"abc", "text/plain", "metadata.rawPayload=true")
        (got,) = until(lambda: app.got)
        (entry,) = got.json["entries"]
        assert (entry["event"], entry["contentType"]) == ("YWJj", "application/octet-stream")


# -- declared ---------------------------------------------------------------


def test_declared_subscriptions(home: str) -> None:
    subscriptions = (
        Subscription("store", "t", "/declared", (('event.type == "a"', "/a"),)),
        Subscription("store", "u", "/u"),
        Subscription("store", "other", "/never", scopes=("another-app",)),
        Subscription("store", "many", "/many", bulk=BulkSubscribe(10, 0.05), scopes=("app",)),
    )
    with App([route("u", "/told")]) as app, beside(app, home, 3, subscriptions=subscriptions) as sidecar:
        publish(sidecar, "t", 1)
        publish(sidecar, "t", 2, query="metadata.cloudevent.type=a")
        publish(sidecar, "many", 3)
        until(lambda: app.at("/declared") and app.at("/a") and app.at("/many"))
        assert [(each.topic, each.kind) for each in sidecar.context.subscriptions] == [
            ("t", "DECLARATIVE"),
            ("u", "PROGRAMMATIC"),
            ("many", "DECLARATIVE"),
        ]


def test_a_declared_rule_that_is_none_ends_the_start() -> None:
    wrong = (Subscription("store", "t", "/x", (("event.type = 1", "/a"),)),)
    with CloudRuntimesClient(config={"capa": {"home": ":memory:wrong-rule"}}, app_id="app") as client:
        settings = SidecarSettings(app_id="app", http_port=0, grpc_port=0, subscriptions=wrong)
        with pytest.raises(InvalidArgumentError, match="the subscription to 't' of 'store'"):
            Sidecar(client, settings).__enter__()


def test_a_component_that_is_not_there_is_told(home: str, caplog: pytest.LogCaptureFixture) -> None:
    subscriptions = [{"pubsubname": "gone", "topic": "t", "route": "/x"}, route("t")]
    with App(subscriptions) as app, beside(app, home, 1) as sidecar:
        assert "the subscription to 't' of 'gone' cannot work now" in caplog.text
        publish(sidecar, "t", 1)
        until(lambda: app.got)


@pytest.mark.parametrize(
    "subscriptions", [None, [], [{"pubsubname": "store", "topic": "t"}], {"a": 1}, [{"pubsubname": 1}]]
)
def test_no_subscriptions(home: str, subscriptions: Any) -> None:
    with App(subscriptions) as app, beside(app, home, 0) as sidecar:
        until(lambda: any(each.path == "/dapr/subscribe" for each in app.asked))
        assert send(sidecar.http_address, "POST", "/v1.0/publish/store/t", b"1").status == 204
        assert not sidecar.context.subscriptions


# -- the end ----------------------------------------------------------------


def test_at_the_end_callbacks_end_and_the_rest_goes_back(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def answer(got: Got) -> Reply | None:
        entered.set()
        assert leave.wait(60)
        return None

    config = declared(str(tmp_path / "home"))
    single = {"concurrencyMode": "single"}
    with App([route("t", metadata=single)], answer) as app:
        with serving(config, app_port=app.port, grace=60.0) as sidecar:
            until(lambda: sidecar.context.subscriptions)
            for number in range(5):
                publish(sidecar, "t", number)
            assert entered.wait(60)

            def go_on() -> None:
                until(lambda: not sidecar.context.subscriptions, "the end's beginning")
                leave.set()

            threading.Thread(target=go_on).start()
        assert [each.json["data"] for each in app.got] == [0]
        with serving(config, app_port=app.port):
            until(lambda: len(app.got) == 5, "what had gone back")
        # the first was settled, and does not come again
        assert [each.json["data"] for each in app.got] == [0, 1, 2, 3, 4]


def test_what_does_not_end_in_time_comes_again(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def answer(got: Got) -> Reply | None:
        entered.set()
        assert leave.wait(60)
        return None

    config = declared(str(tmp_path / "home"))
    with App([route("t", deadLetterTopic="dead")], answer) as app:
        with serving(config, app_port=app.port, grace=0.2) as sidecar:
            until(lambda: sidecar.context.subscriptions)
            publish(sidecar, "t", 1)
            assert entered.wait(60)
        leave.set()
        with serving(config, app_port=app.port):
            until(lambda: len(app.got) == 2, "it again")


@pytest.mark.process
def test_a_sidecar_that_is_killed_loses_nothing_that_it_has_taken(tmp_path: Path) -> None:
    home, count = str(tmp_path / "home"), 60
    stuck = threading.Event()

    def answer(got: Got) -> Reply | None:
        if not stuck.is_set() and got.json["data"] % 3 == 0:
            stuck.wait(60)  # under way when the sidecar dies
        return None

    with App([route("t")], answer) as app:
        with sidecar_process(home, app_port=app.port) as first:
            for number in range(count):
                body = json.dumps(number).encode()
                headers = {"content-type": "application/json"}
                assert send(first.http, "POST", "/v1.0/publish/store/t", body, headers).status == 204
            until(lambda: any(each.json["data"] % 3 == 0 for each in app.got))
            os.kill(first.pid, signal.SIGKILL)
        stuck.set()
        with sidecar_process(home, app_port=app.port):
            until(lambda: {each.json["data"] for each in app.got} == set(range(count)), "all events")
            # what was under way came again
            until(lambda: len(app.got) > len({each.json["data"] for each in app.got}), "a repeat")
