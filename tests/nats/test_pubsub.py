"""Pub/sub on NATS beyond the suite: who reads what, and what is published."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from cloud_runtimes.testing import Api
from tests.support.harnesses.nats import NatsHome
from tests.support.members import SOON, answer, join, operation, poll
from tests.support.nats_other import Other, batch, on
from tests.support.waiting import Stopwatch, until


def test_others_read_what_is_published(home: NatsHome, other: Other) -> None:
    client = home.client()
    client.pubsub.publish("bus", "shop.orders", {"n": 1})
    client.pubsub.publish("bus", "shop.orders", b"\x00", raw=True)
    config = {"durable_name": "theirs", "ack_policy": "explicit", "filter_subject": other.subject("shop.*")}
    body = {"stream_name": other.stream, "config": config, "action": "create"}
    assert "error" not in other.api("CONSUMER.CREATE", body, f".theirs.{other.subject('shop.*')}")
    event, raw = other.pull("theirs", 2)
    assert (json.loads(event.data)["specversion"], json.loads(event.data)["data"]) == ("1.0", {"n": 1})
    assert event.head == b""
    assert (raw.data, raw.headers) == (b"\x00", {"Content-Type": "application/octet-stream"})


def test_what_others_publish_is_read(home: NatsHome, other: Other) -> None:
    with home.client().pubsub.subscribe("bus", "t") as sub:
        other.publish(b"\xff plain")
        plain = sub.receive(SOON)
        other.publish(b'{"n":1}', Content_Type="application/json")
        typed = sub.receive(SOON)
        head = {"ce_specversion": "1.0", "ce_id": "i", "ce_source": "/s", "ce_type": "t", "ce_subject": "gr%C3%BC n"}
        other.publish(b"<x/>", **head, ce_partitionkey="k", ce_tenant="blue", content_type="application/xml")
        binary = sub.receive(SOON)
        structured = {"specversion": "1.0", "id": "j", "source": "/s", "type": "t", "data": [1]}
        other.publish(json.dumps(structured).encode(), Content_Type="application/cloudevents+json")
        json_event = sub.receive(SOON)
        other.publish(b"no event", ce_specversion="1.0")
        broken = sub.receive(SOON)
        for event in (plain, typed, binary, json_event, broken):
            event.ack()
        until(lambda: other.pending() == 0)
    assert (plain.data, plain.content_type, plain.topic) == (b"\xff plain", "application/octet-stream", "t")
    assert (typed.data, typed.content_type) == ({"n": 1}, "application/json")
    assert (binary.id, binary.subject, binary.key, binary.data) == ("i", "grü n", "k", "<x/>")
    assert dict(binary.extensions) == {"tenant": "blue"}
    assert (json_event.id, json_event.data) == ("j", [1])
    assert broken.data == b"no event"


def test_a_message_without_an_envelope_keeps_its_id(home: NatsHome, other: Other) -> None:
    with home.client().pubsub.subscribe("bus", "t") as sub:
        other.publish(b"x")
        event = sub.receive(SOON)
        event.retry(0)
        again = sub.receive(SOON)
        assert (again.id, again.delivery_count) == (event.id, 2)
        again.ack()


def test_names_of_any_kind(home: NatsHome, api: Api) -> None:
    names = ["a b", "*", "é.>", "..", "x" * 253, "é" * 253, "_", "a.b"]
    client = home.client()
    subs = [api.call(client.pubsub, "subscribe", "b u.s", name, group=f"g {name}") for name in names]
    for name in names:
        api.call(client.pubsub, "publish", "b u.s", name, name)
    for name, sub in zip(names, subs, strict=True):
        event = api.call(sub, "receive", SOON)
        assert (event.data, event.topic) == (name, name)
        event.ack()
        assert api.call(sub, "receive", 0.01) is None
        api.call(sub, "close")


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_both_layouts_in_one_topic(home: NatsHome, other: Other, layout: str) -> None:
    on(home, layout=layout).pubsub.publish_bulk("bus", "t", [0, 1])
    for more in ("frame", "event"):
        on(home, layout=more).pubsub.publish_bulk("bus", "t", [more, more])
    with on(home).pubsub.subscribe("bus", "t") as sub:
        got = []
        while len(got) < 6:
            event = sub.receive(SOON)
            got.append(event.data)
            event.ack()
    assert sorted(map(str, got)) == ["0", "1", "event", "event", "frame", "frame"]
    until(lambda: other.pending() == 0)


# -- what is published --------------------------------------------------------


@pytest.mark.parametrize("settings", [{"layout": "frame"}, {"duplicate_window": 30}, {}])
def test_a_batch_that_is_sent_again(home: NatsHome, other: Other, settings: dict[str, Any]) -> None:
    driver: Any = on(home, **settings).pubsub._frame.driver("bus")
    sent = batch("t", *range(3))
    for _ in range(2):
        assert driver.publish(operation(), sent) == {}
    assert driver.publish(operation(), batch("t", *range(3))) == {}
    one = 1 if settings == {"layout": "frame"} else 3
    assert other.stored() == one * (2 if settings else 3)


def test_many_at_once(home: NatsHome, api: Api, other: Other) -> None:
    """Batches of 10,000, while others use the same connection."""
    client = home.client()
    numbers = list(range(20_000))
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            assert client.state.get("s", "k") is None

    beside = threading.Thread(target=look)
    beside.start()
    try:
        assert len(api.call(client.pubsub, "publish_bulk", "bus", "t", numbers)) == 20_000
    finally:
        done.set()
        beside.join()
    assert other.stored(other.subject()) == 20_000
    with client.pubsub.subscribe("bus", "t", batch=1000, max_in_flight=5000) as sub:
        got: list[int] = []
        while len(got) < 20_000:
            events = sub.receive(SOON)
            got += [event.data for event in events]
            events.ack()
    assert got == numbers
    until(lambda: other.pending() == 0)


@pytest.mark.parametrize("delay", [0.4, 2.6])
def test_a_delay_is_exact(home: NatsHome, delay: float) -> None:
    client = home.client()
    with client.pubsub.subscribe("bus", "t", group="a b") as sub:
        started = time.monotonic()
        with Stopwatch() as watch:
            for number in range(3):
                client.pubsub.publish("bus", "t", number, delay=delay)
            client.pubsub.publish("bus", "t", b"raw", delay=delay, raw=True)
            events = [sub.receive(SOON) for _ in range(4)]
            assert watch.seconds < delay + 1
        assert time.monotonic() - started > delay - 0.02
        events.sort(key=lambda event: str(event.data))  # they are due in one millisecond or two
        assert [event.data for event in events] == [0, 1, 2, b"raw"]
        assert {event.delivery_count for event in events} == {1}
        events[0].retry(0.1)
        again = sub.receive(SOON)
        assert (again.data, again.delivery_count) == (0, 2)
        for event in (*events[1:], again):
            event.ack()


def test_a_group_that_begins_anew_has_nothing_of_the_old(home: NatsHome, other: Other) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    source = join(client)
    deliveries = poll(source)
    source.close(answer(deliveries[:1]))  # the other is given back
    for name in ("suite=t", "suite=t=again"):
        other.api("CONSUMER.DELETE", None, f".{name}")
    source = join(client, start="latest")
    assert not poll(source, timeout=0.2)
    source.close(())


def test_frames_where_events_were_expected(home: NatsHome, other: Other) -> None:
    """More than a server has ready for a client that does not read it."""
    sender = on(home, layout="frame")
    for _ in range(10):
        sender.pubsub.publish_bulk("bus", "t", [bytes(1_000_000)] * 8)
    source = join(on(home))
    settled: Any = ()
    got = 0
    while got < 80:
        deliveries = poll(source, settled, want=1000)
        time.sleep(0.02)
        settled = answer(deliveries)
        got += len(deliveries)
    source.close(settled)
    assert got == 80
    until(lambda: other.pending() == 0)
