"""What the suite does not ask of pub/sub on NATS: who reads what, what is held, what is trimmed, what a server may do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events as kernel
from cloud_runtimes.components.nats.protocol import Message, Session, publish
from cloud_runtimes.components.nats.streams import MAIN
from cloud_runtimes.errors import (
    DeadlineExceededError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    UnsupportedError,
)
from cloud_runtimes.spi.operation import Method, Operation
from cloud_runtimes.spi.pubsub import EventSource, OutgoingBatch, Settlement, Settlements, SubscribeRequest
from cloud_runtimes.testing import Api
from tests.support.fault_proxy import FaultProxy
from tests.support.harnesses.nats import NatsHome
from tests.support.nats import NatsServer
from tests.support.waiting import Stopwatch, until

SOON = 30.0
Make = Callable[..., CloudRuntimesClient]
Serve = Callable[..., NatsServer]


class Other:
    """Another program: bytes of NATS' protocol, and JetStream's API."""

    def __init__(self, port: int, prefix: str) -> None:
        self.prefix = prefix
        self.stream = f"{prefix}-pubsub-bus"
        self._session = Session()
        self._got: list[Message] = []
        self._session.callbacks[1] = self._got.append
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self.send(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB _INBOX.other 1\r\n')

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self, count: int = 1) -> list[Message]:
        while len(self._got) < count:
            data = self._socket.recv(1 << 20)
            assert data, self._session.error
            self._session.feed(data)
        found, self._got[:] = self._got[:count], self._got[count:]
        return found

    def ask(self, subject: str, data: bytes = b"", **headers: str) -> Message:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(publish(subject, data, b"_INBOX.other", given))
        return self.hear()[0]

    def api(self, verb: str, body: Any = None, rest: str = "") -> Any:
        answer = self.ask(f"$JS.API.{verb}.{self.stream}{rest}", b"" if body is None else json.dumps(body).encode())
        return json.loads(answer.data)

    def subject(self, topic: str = "t") -> str:
        return f"{self.prefix}.bus.t.{topic}"

    def publish(self, data: bytes, topic: str = "t", **headers: str) -> Any:
        return json.loads(self.ask(self.subject(topic), data, **headers).data)

    def stored(self, subject: str | None = None) -> int:
        state = self.api("STREAM.INFO", {"subjects_filter": ">"})["state"]
        return int(state["messages"] if subject is None else state.get("subjects", {}).get(subject, 0))

    def pending(self, consumer: str = "suite=t") -> int:
        """Return how many messages a group has not settled, those that come again among them."""
        found = 0
        for name in (consumer, f"{consumer}=again"):
            info = self.api("CONSUMER.INFO", None, f".{name}")
            found += info["num_pending"] + info["num_ack_pending"]
        return found

    def counter(self, what: str, group: str = "suite", topic: str = "t") -> int:
        subject = f"{self.prefix}-counters.bus.{what}.{group}.{topic}"
        answer = self.ask(f"$JS.API.DIRECT.GET.{self.prefix}-counters.{subject}")
        return int(json.loads(answer.data)["val"]) if answer.data else 0

    def pull(self, consumer: str, count: int) -> list[Message]:
        body = json.dumps({"batch": count, "expires": 5_000_000_000}).encode()
        self.send(publish(f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{consumer}", body, b"_INBOX.other"))
        return self.hear(count)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def beside(port: int, prefix: str = "cr") -> Iterator[Other]:
    made = Other(port, prefix)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def other(home: NatsHome) -> Iterator[Other]:
    with beside(home.server.port, home.prefix) as made:
        yield made


def on(home: NatsHome, **settings: Any) -> CloudRuntimesClient:
    given = {"url": home.server.url, "prefix": home.prefix, **settings}
    client = CloudRuntimesClient(app_id="suite", config={"capa": {"home": given}})
    home._clients.append(client)
    return client


def operation(seconds: float = 10.0) -> Operation:
    return Operation(Method("t", "t", repeatable=False), "bus", seconds)


def join(client: CloudRuntimesClient, **asked: Any) -> Any:
    """A member without a thread behind it."""
    driver: Any = client.pubsub._driver("bus")
    fields = dict.fromkeys(SubscribeRequest._fields) | {"topic": "t", "group": "suite", "raw": False} | asked
    made: EventSource = driver.subscribe(operation(), SubscribeRequest(**fields))
    return made


def poll(source: Any, settled: Any = (), want: int = 256, timeout: float = SOON) -> list[Any]:
    end = time.monotonic() + timeout
    while True:
        found = list(source.poll(settled, want, max(0.0, end - time.monotonic())))
        settled = ()
        if found or time.monotonic() >= end:
            return found


def die(source: Any) -> None:
    """End a member that does not leave."""
    source._disconnect()
    source._waker.close()


def answer(deliveries: list[Any], settlement: Settlement = Settlement.ACK, delay: float | None = None) -> Settlements:
    settled = Settlements()
    settled.add([each.token for each in deliveries], settlement, delay)
    return settled


def payloads(deliveries: list[Any]) -> list[bytes]:
    return [each.record.payload for each in deliveries]


# -- who reads what -----------------------------------------------------------


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


# -- frames -------------------------------------------------------------------


def test_a_frame_is_held_until_all_is_settled(home: NatsHome, other: Other) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1, 2, 3])
    source = join(client)
    found = poll(source)
    assert other.stored(other.subject()) == 1
    assert not poll(source, answer(found[:2]), want=0, timeout=0.05)
    assert other.pending() == 1
    asked = time.monotonic()
    assert not poll(source, answer(found[2:3], Settlement.RETRY, 0.3), want=0, timeout=0.05)
    until(lambda: other.pending() == 2)
    assert not poll(source, answer(found[3:]), want=0, timeout=0.05)
    until(lambda: other.pending() == 1)
    with Stopwatch() as watch:
        (again,) = poll(source)
        assert watch.seconds < 1
    assert (again.record.payload, again.deliveries) == (b"2", 2)
    assert time.monotonic() - asked > 0.25
    source.close(answer([again]))
    until(lambda: other.pending() == 0)


def test_a_whole_frame_comes_again_by_itself(home: NatsHome, other: Other) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    source = join(client)
    again = poll(source, answer(poll(source), Settlement.RETRY, 0.0))
    assert [(each.record.payload, each.deliveries) for each in again] == [(b"0", 2), (b"1", 2)]
    assert other.stored() == 1
    source.close(answer(again))
    until(lambda: other.pending() == 0)


def test_frames_fit_the_server(served: Serve, client: Make) -> None:
    server = served(max_payload=64 * 1024)
    made = client(server.url, layout="frame")
    made.pubsub.publish_bulk("bus", "t", [f"{number:05}" * 20 for number in range(3000)])
    with beside(server.port) as other, made.pubsub.subscribe("bus", "t", batch=500, max_in_flight=3000) as sub:
        assert other.stored() > 4
        got = 0
        while got < 3000:
            batch = sub.receive(SOON)
            got += len(batch)
        sub.close()  # all of it is given back, as frames that fit
        assert other.pending() > 4
    for layout in ("event", "frame"):
        with pytest.raises(ResourceExhaustedError, match="max_payload"):
            client(server.url, layout=layout).pubsub.publish("bus", "t", bytes(70_000))
    with pytest.raises(ResourceExhaustedError, match="max_payload"):
        made.pubsub.publish("bus", "t", bytes(70_000), delay=5)


def test_what_a_dead_member_settled_of_a_frame_comes_with_the_rest(home: NatsHome) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    source = join(client, ack_wait=0.3)
    found = poll(source)
    assert not poll(source, answer(found[:1]), want=0, timeout=0.02)
    die(source)
    other = join(home.client(), ack_wait=0.3)
    found = poll(other)
    assert [(each.record.payload, each.deliveries) for each in found] == [(b"0", 2), (b"1", 2)]
    other.close(answer(found))


# -- what is held -------------------------------------------------------------


def test_a_lease_is_renewed_while_a_handler_lives(home: NatsHome) -> None:
    for lease in (0.5, 2.5, 10.0):
        topic = f"t{lease}"
        source, other = (join(home.client(), topic=topic, ack_wait=lease) for _ in range(2))
        home.client().pubsub.publish("bus", topic, 1)
        found = poll(source)
        watched = threading.Thread(target=poll, args=(source, (), 0, 3 * lease))
        watched.start()
        taken = poll(other, timeout=3 * lease)
        watched.join()
        source.close(answer(found))
        if not taken:
            assert not poll(other, timeout=0.3)
        other.close(())
        if not taken:  # else a busy machine may have stood still for longer than that
            break
    assert not taken


def test_a_member_that_dies_is_followed(home: NatsHome) -> None:
    home.client().pubsub.publish_bulk("bus", "t", [0, 1, 2])
    dead = join(home.client(), ack_wait=0.4)
    asked = time.monotonic()
    assert len(poll(dead)) == 3
    with Stopwatch() as watch:
        die(dead)
        other = join(home.client(), ack_wait=0.4)
        found = poll(other)
        assert watch.seconds < 2
    assert time.monotonic() - asked > 0.35
    assert [(each.record.payload, each.deliveries) for each in found] == [(b"0", 2), (b"1", 2), (b"2", 2)]
    other.close(answer(found))


def test_a_group_keeps_the_lease_that_its_members_count_on(home: NatsHome, other: Other) -> None:
    client = home.client()

    def ack_wait() -> float:
        return float(other.api("CONSUMER.INFO", None, ".suite=t")["config"]["ack_wait"]) / 1e9

    one = join(client, ack_wait=2)
    assert not poll(one, timeout=0.05)
    two = join(client, ack_wait=1)
    assert ack_wait() == 2
    three = join(client, ack_wait=3)
    assert ack_wait() == 3
    for source in (one, two, three):
        source.close(())
    join(client, ack_wait=1).close(())
    assert ack_wait() == 1


def test_what_comes_again_does_not_wait_behind_what_is_there(home: NatsHome) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    on(home).pubsub.publish_bulk("bus", "t", list(range(2, 502)))
    source = join(client)
    found = poll(source, want=2)
    order: list[bytes] = []
    settled = [*answer(found[:1]), *answer(found[1:], Settlement.RETRY, 0.0)]
    while b"1" not in order:
        found = poll(source, settled, want=1)
        order += payloads(found)
        settled = answer(found)
    source.close(settled)
    assert len(order) < 250


def test_a_dead_letter_is_one_though_its_ack_is_lost(home: NatsHome, other: Other) -> None:
    """Two members publish it, and the server keeps one."""
    client = home.client()
    client.pubsub.publish("bus", "t", 1, raw=True)
    options = {"ack_wait": 0.3, "dead_letter_topic": "dead"}
    source = join(client, **options)
    found = poll(source)
    source._flush = lambda: None
    source.poll(answer(found, Settlement.DROP), 0, 0.0)
    die(source)
    second = join(home.client(), **options)
    second.close(answer(poll(second), Settlement.DROP))
    assert other.stored(other.subject("dead")) == 1
    assert other.counter("dead_lettered") == 1
    until(lambda: other.pending() == 0)


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_what_comes_no_more_is_counted(home: NatsHome, other: Other, layout: str) -> None:
    client = on(home, layout=layout)
    client.pubsub.publish("bus", "t", "old", ttl=0.05)
    client.pubsub.publish_bulk("bus", "t", list(range(5)))
    time.sleep(0.1)
    source = join(client)
    found: list[Any] = []
    while len(found) < 5:
        found += poll(source)
    for each in (found[:2], found[2:3]):
        assert not poll(source, answer(each, Settlement.DROP), want=0, timeout=0.0)
    source.close(answer(found[3:]))
    assert (other.counter("dropped"), other.counter("expired")) == (3, 1)
    until(lambda: other.pending() == 0)


def test_acknowledgements_that_a_connection_lost_are_sent_again(home: NatsHome, other: Other) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", [0, 1, 2])
    source = join(client)
    found = poll(source)
    connection = source._connection
    connection.send = lambda data, deadline: None  # the system takes it, and it never arrives
    source.poll(answer(found), 0, 0.0)
    connection._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(UnavailableError):
        poll(source)
    until(lambda: not poll(source, timeout=0.1) and other.pending() == 0)
    source.close(())


# -- what is published --------------------------------------------------------


def batch(topic: str, *numbers: int) -> OutgoingBatch:
    records = [kernel.encode_record(b"%d" % number, "application/json") for number in numbers]
    return OutgoingBatch(topic, [kernel.build_frame("suite", "t", topic, records)], len(records))


@pytest.mark.parametrize("settings", [{"layout": "frame"}, {"duplicate_window": 30}, {}])
def test_a_batch_that_is_sent_again(home: NatsHome, other: Other, settings: dict[str, Any]) -> None:
    driver: Any = on(home, **settings).pubsub._driver("bus")
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
    found = poll(source)
    source.close(answer(found[:1]))  # the other is given back
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
        found = poll(source, settled, want=1000)
        time.sleep(0.02)
        settled = answer(found)
        got += len(found)
    source.close(settled)
    assert got == 80
    until(lambda: other.pending() == 0)


# -- what is trimmed ----------------------------------------------------------


def test_nothing_is_trimmed_that_a_group_has_not_settled(home: NatsHome, other: Other) -> None:
    client = on(home, retention=0.2)
    driver: Any = client.pubsub._driver("bus")

    def publish_later(topic: str = "t", **options: Any) -> None:
        time.sleep(0.25)
        driver._trim_at = 0.0
        client.pubsub.publish("bus", topic, 1, **options)

    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    source = join(client)
    found = poll(source)
    publish_later()
    assert other.stored() == 11
    assert not poll(source, answer(found[:4]), want=0, timeout=0.1)
    publish_later()
    assert other.stored() == 12 - 4
    found = found[4:]
    while len(found) < 8:
        found += poll(source)
    source.close(answer(found))
    publish_later()
    assert other.stored() == 1
    other.api("CONSUMER.DELETE", None, ".suite=t")
    publish_later("u", delay=500)
    assert other.stored() == 1
    publish_later()
    publish_later()
    # what is published later holds what is behind it
    assert other.stored() == 3
    assert other.stored(other.subject()) == 2


def test_a_group_that_nobody_asks_for_goes(home: NatsHome, other: Other) -> None:
    source = join(on(home, group_expiry=2))
    source.close(())
    names = {"suite=t", "suite=t=again"}
    assert set(other.api("CONSUMER.NAMES")["consumers"]) == names
    until(lambda: not other.api("CONSUMER.NAMES")["consumers"])


# -- what a server may do -----------------------------------------------------


def test_a_group_that_has_gone_is_made_again(home: NatsHome, other: Other, rounds: Callable[[int, int], int]) -> None:
    """At once, while the server is still deleting it: the new one must not have its state, which holds back what was delivered."""
    client = home.client()
    for turn in range(rounds(1, 200)):
        topic = f"t{turn}"
        with client.pubsub.subscribe("bus", topic) as sub:
            client.pubsub.publish("bus", topic, 1)
            held = sub.receive(SOON)
            other.api("CONSUMER.DELETE", None, f".suite={topic}")
            client.pubsub.publish("bus", topic, 2)
            again, event = sub.receive(SOON), sub.receive(SOON)
            assert (again.data, event.data) == (1, 2)
            for each in (held, again, event):
                each.ack()
            until(lambda topic=topic: other.pending(f"suite={topic}") == 0)  # type: ignore[misc]


def test_a_stream_that_has_gone_is_made_again(home: NatsHome, other: Other, rounds: Callable[[int, int], int]) -> None:
    """Not at once: one that is made while the server is still deleting the other never answers."""
    client = home.client()
    with client.pubsub.subscribe("bus", "t") as sub:
        for turn in range(rounds(1, 200)):
            client.pubsub.publish("bus", "t", turn)
            sub.receive(SOON).ack()
            other.api("STREAM.DELETE")
            client.pubsub.publish("bus", "t", -turn)
            event = sub.receive(SOON)
            assert event.data == -turn
            event.ack()
            until(lambda: other.pending() == 0)


def test_a_stream_that_is_not_to_be_made(home: NatsHome, other: Other, api: Api) -> None:
    client = on(home, ensure="check")
    api.fails(NotFoundError, match="there is no stream")(client.pubsub, "publish", "bus", "t", 1)
    subjects = {"name": other.stream, "subjects": [f"{home.prefix}.bus.>"]}
    assert "error" not in other.api("STREAM.CREATE", subjects)
    api.fails(UnsupportedError, match="lacks allow_direct, allow_msg_schedules")(
        client.pubsub, "publish", "bus", "t", 1
    )
    other.api("STREAM.UPDATE", {**subjects, "allow_direct": True, "allow_msg_schedules": True})
    api.call(client.pubsub, "publish", "bus", "t", 1)


def test_a_connection_that_is_cut_loses_nothing(home: NatsHome, other: Other) -> None:
    with FaultProxy(home.server.port) as proxy:
        client = on(home, url=f"nats://127.0.0.1:{proxy.port}")
        seen: set[int] = set()
        with client.pubsub.subscribe("bus", "t", ack_wait=0.5) as sub:
            for number in range(6):
                sub.receive(0.01)
                proxy.break_all("reset")
                client.pubsub.publish("bus", "t", number, timeout=SOON)
                while number not in seen:
                    event = sub.receive(SOON)
                    seen.add(event.data)
                    event.ack()
            until(lambda: other.pending() == 0)


def test_a_request_that_its_leader_lost(home: NatsHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection lives, and brings what the group's other consumer says. It is asked again."""
    for name in ("_HEARTBEAT", "_GRACE"):
        monkeypatch.setattr(f"cloud_runtimes.components.nats.member.{name}", 0.2)
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    source = join(client)
    request = source._request

    def lose(origin: int, count: int) -> None:
        request(origin, count)
        if origin == MAIN:
            source._out.pop()
            source._request = request

    source._request = lose
    with Stopwatch() as watch:
        with pytest.raises(UnavailableError, match="does not answer"):
            poll(source)
        assert watch.seconds < 2
    (found,) = poll(source)
    source.close(answer([found]))


def test_the_clock_is_known_while_a_stream_is_looked_for(home: NatsHome) -> None:
    """Other members of the process take in messages meanwhile."""
    client = home.client()
    client.pubsub.publish("bus", "t", 1)
    source = join(client)
    source._stream.forget()
    source.close(answer(poll(source)))


def test_a_server_that_restarts_and_hangs(served: Serve, client: Make) -> None:
    server = served(jetstream={"sync_interval": "always"}, ping_interval="500ms", ping_max=2)
    made = client(server.url)
    assert server.process is not None
    with made.pubsub.subscribe("bus", "t", ack_wait=1) as sub:
        made.pubsub.publish("bus", "t", 1)
        event = sub.receive(SOON)
        time.sleep(1.6)  # the server asks whether the client is there
        event.ack()
        server.kill()
        server.start()
        made.pubsub.publish("bus", "t", 2, timeout=SOON)
        got = set()
        while 2 not in got:
            event = sub.receive(SOON)
            got.add(event.data)
            event.ack()
        server.signal(signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)
        timer = threading.Timer(0.5, server.signal, (signal.SIGCONT,))
        try:
            with pytest.raises(DeadlineExceededError) as caught:
                made.pubsub.publish("bus", "t", 3, timeout=0.3)
        finally:
            timer.start()
        assert caught.value.maybe_applied
        made.pubsub.publish("bus", "t", 4, timeout=SOON)
        while 4 not in got:
            event = sub.receive(SOON)
            got.add(event.data)
            event.ack()
        assert got <= {1, 2, 3, 4}
        timer.join()


def test_who_may_do_what(served: Serve, client: Make, api: Api) -> None:
    def user(name: str, *denied: str) -> dict[str, Any]:
        return {"user": name, "password": "p", "permissions": {"publish": {"deny": list(denied)}}}

    users = [
        user("reader", "cr.bus.t.>"),
        user("deaf", "$JS.API.CONSUMER.MSG.NEXT.>"),
        user("writer", "$JS.API.CONSUMER.>"),
    ]
    server = served(authorization={"users": users})

    def pubsub(name: str) -> Any:
        return client(f"nats://{name}:p@127.0.0.1:{server.port}").pubsub

    api.call(pubsub("writer"), "publish", "bus", "t", 1)
    api.fails(PermissionDeniedError, match="may not")(pubsub("writer"), "subscribe", "bus", "t")
    api.fails(PermissionDeniedError, match="may not")(pubsub("reader"), "publish", "bus", "t", 1)
    sub = api.call(pubsub("reader"), "subscribe", "bus", "t")
    event = api.call(sub, "receive", SOON)
    assert event.data == 1
    event.ack()
    api.call(sub, "close")
    sub = api.call(pubsub("deaf"), "subscribe", "bus", "t")
    api.fails(PermissionDeniedError, match="may not")(sub, "receive", SOON)
    api.call(sub, "close")


MEMBER = """
import sys, time
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(app_id="suite", config={"capa": {"home": {"url": sys.argv[1], "prefix": sys.argv[2]}}}) as client:
    with client.pubsub.subscribe("bus", "t", max_in_flight=10) as sub:
        print("ready", flush=True)
        for event in sub:
            time.sleep(0.005)
            event.ack()
            print(event.data, flush=True)
"""


def test_two_processes_share(home: NatsHome) -> None:
    command = [sys.executable, "-c", MEMBER, home.server.url, home.prefix]
    members = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for member in members:
        assert member.stdout is not None
        assert member.stdout.readline() == "ready\n"
    got: list[list[int]] = [[], []]

    def read(mine: list[int], said: Any) -> None:
        for line in said:
            mine.append(int(line))

    readers = [
        threading.Thread(target=read, args=(mine, member.stdout)) for mine, member in zip(got, members, strict=True)
    ]
    for reader in readers:
        reader.start()
    home.client().pubsub.publish_bulk("bus", "t", list(range(200)))
    try:
        until(lambda: len(got[0]) + len(got[1]) >= 200)
    finally:
        for reader, member in zip(readers, members, strict=True):
            member.kill()
            reader.join()
            member.communicate()
    assert sorted(got[0] + got[1]) == list(range(200))
    assert min(map(len, got)) > 5
