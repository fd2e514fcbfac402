"""Over HTTP alone a real daprd posts events and due jobs to the application's server; without a daprd this is skipped."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import DropEvent
from cloud_runtimes.testing import Api
from tests.support.daprd import Daprd, component, redis_component, redis_process, tried_again
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.process
if not os.environ.get("DAPRD"):
    pytest.skip("DAPRD names no daprd", allow_module_level=True)
SOON = 30.0
SENT = [b"", b"\x00\xff", 1, 2**63 - 1, 0.1, 1e300, 2.0, None, "", "text", "ünïcødé 🎉", {"a": [1.5, None]}, []]
Beside = Callable[..., AbstractContextManager[tuple[Daprd, CloudRuntimesClient]]]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_process(tmp_path_factory.mktemp("redis")) as port:
        if port is None:
            pytest.skip("there is no redis-server")
        yield port


@pytest.fixture
def beside(tmp_path: Path, request: pytest.FixtureRequest) -> Beside:
    """Start a daprd that looks for an application, which does not listen yet, and the client that becomes it."""

    @contextmanager
    def start(*, memory: bool = False, **options: Any) -> Iterator[tuple[Daprd, CloudRuntimesClient]]:
        if memory:
            resource = component("bus", "pubsub.in-memory")
        else:
            settings = {"consumerID": tmp_path.name, "processingTimeout": "2000", "redeliverInterval": "500"}
            resource = redis_component("bus", "pubsub.redis", request.getfixturevalue("redis"), **settings)
        resources = {"bus": resource, "policy": tried_again("bus")}
        daprd = Daprd(os.environ["DAPRD"], tmp_path, resources, port=free_port(), **options)
        try:
            with CloudRuntimesClient(f"http://127.0.0.1:{daprd.http}", app_id="suite") as client:
                yield daprd, client
        finally:
            daprd.close()

    return start


@pytest.fixture
def topic(tmp_path: Path) -> str:
    """A topic of the test's own."""
    return f"{tmp_path.name}/x y"


def subscribed(daprd: Daprd, count: int = 1) -> None:
    """Wait until daprd has asked for the subscriptions, and has them."""

    def listed() -> bool:
        with urlopen(f"http://127.0.0.1:{daprd.http}/v1.0/metadata", timeout=SOON) as answer:
            return len(json.loads(answer.read()).get("subscriptions") or ()) == count

    until(listed)


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "redis"])
def test_events_arrive_as_they_were(beside: Beside, api: Api, topic: str, memory: bool) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = {"id": "mine", "subject": "s", "time": "2025-01-15T09:30:12Z", "level": 7, "urgent": True}
    events: list[Any] = []
    with beside(memory=memory) as (daprd, client):
        handler = api.handler(events.append)
        with api.opened(api.call(client.pubsub, "subscribe", "bus", topic, handler)):
            with client.rpc.serving(port=daprd.port):
                subscribed(daprd)
                for value in SENT:
                    api.call(client.pubsub, "publish", "bus", topic, value)
                api.call(client.pubsub, "publish_bulk", "bus", topic, SENT)
                options = {"key": "k", "attributes": {**given, "traceparent": trace, "tracestate": "a=b"}}
                api.call(client.pubsub, "publish", "bus", topic, "x", content_type="text/plain", **options)
                assert api.until(lambda: len(events) >= 2 * len(SENT) + 1, SOON)
    got = sorted((event.data for event in events if event.id != "mine"), key=repr)
    assert got == sorted([*SENT, *SENT], key=repr)
    assert [type(value) for value in got] == [type(value) for value in sorted([*SENT, *SENT], key=repr)]
    [last] = [event for event in events if event.id == "mine"]
    assert (last.data, last.subject, last.key, last.traceparent) == ("x", "s", "k", trace)
    assert dict(last.extensions) == {"level": 7, "urgent": True, "tracestate": "a=b"}
    assert (last.source, last.type, last.topic, last.pubsub_name, last.delivery_count) == (
        "suite", "cloud_runtimes.event", topic, "bus", None,
    )  # fmt: skip


def test_answers(beside: Beside, api: Api, topic: str) -> None:
    """Retried events come again, and a dropped event goes to the dead letters."""
    seen: list[Any] = []
    dead: list[Any] = []

    def handle(event: Any) -> None:
        seen.append(event.data)
        if event.data == "again" and seen.count("again") < 3:
            event.retry(0)
        if event.data == "failing" and seen.count("failing") < 2:
            raise ValueError("once")
        if event.data == "bad":
            raise DropEvent

    async def handle_async(event: Any) -> None:
        await asyncio.sleep(0)
        handle(event)

    handler = handle if api.name == "sync" else handle_async
    with beside() as (daprd, client):
        with (
            client.pubsub.subscribe("bus", topic, handler),
            client.pubsub.subscribe("bus", f"{topic} u", handler, dead_letter_topic=f"{topic} dead"),
            client.pubsub.subscribe("bus", f"{topic} dead", dead.append),
            client.rpc.serving(port=daprd.port),
        ):
            for data in ("again", "failing", "good"):
                api.call(client.pubsub, "publish", "bus", topic, data)
            api.call(client.pubsub, "publish", "bus", f"{topic} u", "bad")
            assert api.until(lambda: len(seen) == 7 and len(dead) == 1, SOON)
            api.pause(0.5)
    assert dead[0].data == "bad"
    assert sorted(seen) == sorted([*["again"] * 3, *["failing"] * 2, "good", "bad"])


def test_batches(beside: Beside, topic: str) -> None:
    batches: list[list[Any]] = []

    def handle(batch: Any) -> None:
        batches.append([event.data for event in batch])
        for event in batch:
            if event.data == 7 and sum(7 in each for each in batches) == 1:
                event.retry(0)

    with beside() as (daprd, client):
        with client.pubsub.subscribe("bus", topic, handle, batch=50), client.rpc.serving(port=daprd.port):
            subscribed(daprd)
            client.pubsub.publish_bulk("bus", topic, list(range(100)))
            until(lambda: sum(map(len, batches)) >= 101)
    flat = [data for each in batches for data in each]
    assert set(flat) == set(range(100))
    assert flat.count(7) >= 2
    assert max(map(len, batches)) > 1


def test_raw(beside: Beside, api: Api, topic: str) -> None:
    with beside() as (daprd, client):
        with api.opened(api.call(client.pubsub, "subscribe", "bus", topic, raw=True)) as sub:
            with client.rpc.serving(port=daprd.port):
                api.call(client.pubsub, "publish", "bus", topic, b"\x01\x02", raw=True)
                event = api.call(sub, "receive", SOON)
                assert event is not None
                assert event.data == b"\x01\x02"
                event.ack()


def test_an_application_that_comes_back(beside: Beside, topic: str) -> None:
    """An unanswered event comes to the next application; daprd goes on with the subscriptions of the first."""
    with beside() as (daprd, client):
        sub = client.pubsub.subscribe("bus", topic)
        with client.rpc.serving(port=daprd.port):
            client.pubsub.publish("bus", topic, "first")
            held = sub.receive(SOON)
            assert held is not None
            sub.close()  # gives it back
        with CloudRuntimesClient(f"http://127.0.0.1:{daprd.http}", app_id="suite") as second:
            second.pubsub.publish("bus", topic, "second")
            seen: dict[str, Any] = {}
            with second.pubsub.subscribe("bus", topic, lambda event: seen.update({event.id: event.data})):
                with second.rpc.serving(port=daprd.port):
                    until(lambda: len(seen) == 2)
    assert sorted(seen.values()) == ["first", "second"]
    assert seen[held.id] == "first"


def test_jobs_beside_events(beside: Beside, topic: str) -> None:
    """The same server takes both."""
    events: list[Any] = []
    runs: list[Any] = []
    with beside(jobs=True) as (daprd, client):
        if not daprd.scheduler:
            pytest.skip("there is no scheduler beside daprd")

        @client.schedule.job("due")
        def due(data: Any) -> None:
            runs.append(data)
            client.pubsub.publish("bus", topic, data)

        with (
            client.pubsub.subscribe("bus", topic, lambda event: events.append(event.data)),
            client.rpc.serving(port=daprd.port),
        ):
            client.schedule.schedule_job("due", due_time="500ms", data={"a": 0.5})
            until(lambda: bool(events))
    assert (runs, events) == ([{"a": 0.5}], [{"a": 0.5}])
