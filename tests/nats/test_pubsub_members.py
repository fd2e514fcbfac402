"""Group members on NATS beyond the suite: frames, leases, and counts."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from cloud_runtimes.errors import ResourceExhaustedError, UnavailableError
from cloud_runtimes.spi.pubsub import Settlement
from tests.support import Make
from tests.support.harnesses.nats import NatsHome
from tests.support.members import SOON, answer, collect, die, join, poll
from tests.support.nats import Serve
from tests.support.nats_other import Other, beside, on, payloads
from tests.support.waiting import Stopwatch, running, until

# -- frames -------------------------------------------------------------------


def test_a_frame_is_held_until_all_is_settled(home: NatsHome, other: Other) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1, 2, 3])
    source = join(client)
    deliveries = poll(source)
    assert other.stored(other.subject()) == 1
    assert not poll(source, answer(deliveries[:2]), want=0, timeout=0.05)
    assert other.pending() == 1
    asked = time.monotonic()
    assert not poll(source, answer(deliveries[2:3], Settlement.RETRY, 0.3), want=0, timeout=0.05)
    until(lambda: other.pending() == 2)
    assert not poll(source, answer(deliveries[3:]), want=0, timeout=0.05)
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
    app_client = client(server.url, layout="frame")
    app_client.pubsub.publish_bulk("bus", "t", [f"{number:05}" * 20 for number in range(3000)])
    with beside(server.port) as other, app_client.pubsub.subscribe("bus", "t", batch=500, max_in_flight=3000) as sub:
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
        app_client.pubsub.publish("bus", "t", bytes(70_000), delay=5)


def test_what_a_dead_member_settled_of_a_frame_comes_with_the_rest(home: NatsHome) -> None:
    client = on(home, layout="frame")
    client.pubsub.publish_bulk("bus", "t", [0, 1])
    source = join(client, ack_wait=0.3)
    deliveries = poll(source)
    assert not poll(source, answer(deliveries[:1]), want=0, timeout=0.02)
    die(source)
    other = join(home.client(), ack_wait=0.3)
    deliveries = poll(other)
    assert [(each.record.payload, each.deliveries) for each in deliveries] == [(b"0", 2), (b"1", 2)]
    other.close(answer(deliveries))


# -- what is held -------------------------------------------------------------


def test_a_lease_is_renewed_while_a_handler_lives(home: NatsHome) -> None:
    for lease in (0.5, 2.5, 10.0):
        topic = f"t{lease}"
        source, other = (join(home.client(), topic=topic, ack_wait=lease) for _ in range(2))
        home.client().pubsub.publish("bus", topic, 1)
        deliveries = poll(source)
        with running(*[threading.Thread(target=poll, args=(source, (), 0, 3 * lease))]):
            taken = poll(other, timeout=3 * lease)
        source.close(answer(deliveries))
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
    collect(dead, 3)
    with Stopwatch() as watch:
        die(dead)
        other = join(home.client(), ack_wait=0.4)
        deliveries = collect(other, 3)
        assert watch.seconds < 2
    assert time.monotonic() - asked > 0.35
    assert [(each.record.payload, each.deliveries) for each in deliveries] == [(b"0", 2), (b"1", 2), (b"2", 2)]
    other.close(answer(deliveries))


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
    deliveries = poll(source, want=2)
    order: list[bytes] = []
    settled = [*answer(deliveries[:1]), *answer(deliveries[1:], Settlement.RETRY, 0.0)]
    while b"1" not in order:
        deliveries = poll(source, settled, want=1)
        order += payloads(deliveries)
        settled = answer(deliveries)
    source.close(settled)
    assert len(order) < 250


def test_a_dead_letter_is_one_though_its_ack_is_lost(home: NatsHome, other: Other) -> None:
    """Two members publish it, and the server keeps one."""
    client = home.client()
    client.pubsub.publish("bus", "t", 1, raw=True)
    options = {"ack_wait": 0.3, "dead_letter_topic": "dead"}
    source = join(client, **options)
    deliveries = poll(source)
    source._flush = lambda: None
    source.poll(answer(deliveries, Settlement.DROP), 0, 0.0)
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
    deliveries: list[Any] = []
    while len(deliveries) < 5:
        deliveries += poll(source)
    for each in (deliveries[:2], deliveries[2:3]):
        assert not poll(source, answer(each, Settlement.DROP), want=0, timeout=0.0)
    source.close(answer(deliveries[3:]))
    assert (other.counter("dropped"), other.counter("expired")) == (3, 1)
    until(lambda: other.pending() == 0)


def test_acknowledgements_that_a_connection_lost_are_sent_again(home: NatsHome, other: Other) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", [0, 1, 2])
    source = join(client)
    deliveries = collect(source, 3)
    connection = source._connection
    connection.send = lambda data, deadline: None  # the system takes it, and it never arrives
    source.poll(answer(deliveries), 0, 0.0)
    connection._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(UnavailableError):
        poll(source)
    until(lambda: not poll(source, timeout=0.1) and other.pending() == 0)
    source.close(())
