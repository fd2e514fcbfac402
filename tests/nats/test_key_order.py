"""Order by key on NATS: its bucket, what is trimmed, and answers that were lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from cloud_runtimes.errors import NotFoundError, UnavailableError
from cloud_runtimes.spi.broker.ordered import PARTS, WRITE_EVERY
from cloud_runtimes.spi.pubsub import Settlement
from tests.support.harnesses.nats import NatsHome
from tests.support.members import SOON, answer, collect, die, join, keyed, numbers, survey
from tests.support.nats_other import Other, on


def test_nothing_is_trimmed_that_a_group_has_not_settled(home: NatsHome, other: Other) -> None:
    client = on(home, retention=0.2, group_expiry=3)
    driver: Any = client.pubsub._frame.driver("bus")

    def publish_later() -> None:
        time.sleep(0.25)
        driver._trim_at = 0.0
        client.pubsub.publish("bus", "t", 10)

    client.pubsub.publish_bulk("bus", "t", keyed(*range(10)))
    source = join(client, order="key")
    deliveries = collect(source, 10)
    publish_later()
    assert other.stored() == 11
    assert client.pubsub.lag("bus", "t") == 11
    survey(source, answer(deliveries[:4]))
    assert client.pubsub.lag("bus", "t") == 7
    publish_later()
    assert other.stored() == 12 - 4
    rest = collect(source, 2)
    source.close(answer(deliveries[4:] + rest))
    assert client.pubsub.lag("bus", "t") == 0
    publish_later()
    assert other.stored() == 1
    time.sleep(3)  # a group that nobody asks for holds nothing
    publish_later()
    publish_later()
    assert other.stored() == 1
    with pytest.raises(NotFoundError):
        client.pubsub.lag("bus", "t")


def test_a_group_that_has_gone_is_made_again(home: NatsHome, other: Other) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(8)))
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        held = sub.receive(SOON)
        other.ask(sub._fetcher._source._parts._group, **{"KV-Operation": "DEL"})
        seen: set[int] = set()
        held.ack()
        while len(seen) < 8:  # all of them, though one was settled in the group that has gone
            event = sub.receive(SOON)
            seen.add(event.data)
            event.ack()


def test_members_that_begin_at_once_make_one_group(home: NatsHome) -> None:
    """A second one, written over the first, is its end for those that have joined."""
    clients = [home.client() for _ in range(4)]
    with ThreadPoolExecutor(len(clients)) as pool:
        for number in range(20):
            together = partial(join, order="key", group=f"g{number}")
            sources = list(pool.map(together, clients))
            assert len({source._place.id for source in sources}) == 1
            for source in sources:
                source.close(())


def test_parts_of_an_answer_that_was_lost_are_taken_again(home: NatsHome) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(40)))
    source = join(client, order="key")
    survey(source)
    assert len(source.in_flight._owned) == PARTS
    source.in_flight._owned.clear()
    assert numbers(collect(source, 40)) == list(range(40))
    source.close(())


def test_a_write_of_which_nothing_is_known_is_looked_for(home: NatsHome, monkeypatch: pytest.MonkeyPatch) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(40)))
    source = join(client, order="key")
    deliveries = collect(source, 40)
    run = source._run

    def lose(flow: Any) -> Any:
        run(flow)
        monkeypatch.undo()
        raise UnavailableError("the answer was lost", maybe_applied=True)

    time.sleep(WRITE_EVERY)
    monkeypatch.setattr(source, "_run", lose)
    with pytest.raises(UnavailableError):
        source.poll(answer(deliveries[:20]), 0, 0.0)
    survey(source, answer(deliveries[20:]))
    assert source.revision == 0
    assert client.pubsub.lag("bus", "t") == 0
    source.close(())


def test_no_late_settlement_counts(home: NatsHome) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(40)))
    source = join(client, order="key", ack_wait=1.0)
    deliveries = collect(source, 40)
    time.sleep(1.2)
    assert source.valid_until < time.monotonic()
    other = join(home.client(), order="key", ack_wait=1.0)
    assert numbers(collect(other, 40)) == list(range(40))
    survey(source, answer(deliveries[:20]))
    assert all(each.token.marks.void for each in deliveries[20:])
    assert client.pubsub.lag("bus", "t") == 40
    die(source)
    other.close(())


def test_what_comes_no_more_is_counted(home: NatsHome, other: Other) -> None:
    client = on(home)
    client.pubsub.publish("bus", "t", 7, ttl=0.05)
    client.pubsub.publish_bulk("bus", "t", keyed(1, 2, 3))
    time.sleep(0.1)
    source = join(client, order="key", dead_letter_topic="dead")
    deliveries = collect(source, 3)
    survey(source, answer(deliveries[:1], Settlement.DROP))
    assert other.stored(other.subject("dead")) == 1
    assert (other.counter("dead_lettered"), other.counter("expired")) == (1, 1)
    assert client.pubsub.lag("bus", "t") == 2
    source.close(())


def test_a_delayed_event_comes_when_it_is_due(home: NatsHome) -> None:
    client = home.client()
    begun = time.monotonic()
    client.pubsub.publish("bus", "t", "late", key="a", delay=1.2)
    client.pubsub.publish("bus", "t", "now", key="a")
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        for data in ("now", "late"):
            event = sub.receive(SOON)
            assert event.data == data
            event.ack()
    assert 1.2 <= time.monotonic() - begun < 2.2
