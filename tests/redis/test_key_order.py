"""Order by key on Redis: its keys, what is trimmed, and answers that were lost."""

from __future__ import annotations

import pytest

from cloud_runtimes.spi.broker.ordered import PARTS
from cloud_runtimes.spi.pubsub import Settlement
from tests.redis.test_pubsub import Server, trimming
from tests.support.harnesses.redis import RedisHome
from tests.support.members import answer, collect, die, join, keyed, numbers, survey


@pytest.fixture
def server(home: RedisHome) -> Server:
    return Server(home)


def test_nothing_is_trimmed_that_a_group_has_not_settled(home: RedisHome, server: Server) -> None:
    server("CONFIG", "SET", "stream-node-max-entries", 1)
    client = trimming(home)
    client.pubsub.publish_bulk("bus", "t", keyed(*range(10)))
    source = join(client, order="key")
    deliveries = collect(source, 10)
    survey(source)
    home.advance(50)
    trimming(home).pubsub.publish("bus", "t", 10, key="k10")
    assert server("XLEN", server.key("topic", "t")) == 11
    assert client.pubsub.lag("bus", "t") == 11
    survey(source, answer(deliveries[:4]))
    assert client.pubsub.lag("bus", "t") == 7
    trimming(home).pubsub.publish("bus", "t", 11, key="k11")
    assert server("XLEN", server.key("topic", "t")) == 12 - 3  # the last that is settled stays
    source.close(answer(deliveries[4:]))
    assert client.pubsub.lag("bus", "t") == 2
    # a group that nobody asks for holds nothing
    home.advance(160)
    trimming(home).pubsub.publish("bus", "t", 12)
    assert server("XLEN", server.key("topic", "t")) == 1
    assert server("XINFO", "GROUPS", server.key("topic", "t")) == []
    assert server("EXISTS", server.key("parts", "suite", "t"), server.key("parts", "suite", "t", "members")) == 0
    server("CONFIG", "SET", "stream-node-max-entries", 100)


def test_a_group_that_has_gone_is_made_again(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(8)))
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        first = sub.receive(timeout=10)
        assert first is not None
        server("DEL", server.key("topic", "t"), server.key("parts", "suite", "t"))
        client.pubsub.publish_bulk("bus", "t", keyed(100, 101))
        seen = set()
        while not {100, 101} <= seen:
            event = sub.receive(timeout=20)
            assert event is not None
            seen.add(event.data)
            event.ack()


def test_a_bell_between_two_reads_is_heard(home: RedisHome, server: Server) -> None:
    client = home.client()
    source = join(client, order="key")
    survey(source)
    survey(source)
    client.pubsub.publish("bus", "t", 1, key="k", delay=60)
    assert not source.poll((), 10, 0.2)
    ((bell, _),) = server("XRANGE", server.key("retry", "suite", "t"), "-", "+")
    assert source._bell == bell
    source.close(())


def test_parts_of_an_answer_that_was_lost_are_taken_again(home: RedisHome) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(40)))
    source = join(client, order="key")
    survey(source)
    survey(source)
    assert len(source.in_flight._owned) == PARTS
    source.in_flight._owned.clear()
    assert numbers(collect(source, 40)) == list(range(40))
    source.close(())


def test_no_late_settlement_counts(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(*range(40)))
    source = join(client, order="key", ack_wait=10.0, max_deliveries=1, dead_letter_topic="dead")
    deliveries = collect(source, 40)
    home.advance(11)
    other = join(home.client(), order="key", ack_wait=10.0)
    assert numbers(collect(other, 40)) == list(range(40))
    survey(source, answer(deliveries[:20]))
    assert source.revision
    assert all(each.token.marks.void for each in deliveries[20:])
    assert client.pubsub.lag("bus", "t") == 40
    die(source)
    other.close(())


def test_a_dead_letter_frees_and_is_counted(home: RedisHome, server: Server) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus", "t", keyed(1, 2, 3))
    source = join(client, order="key", dead_letter_topic="dead")
    deliveries = collect(source, 3)
    survey(source, answer(deliveries[:1], Settlement.DROP))
    assert server("XLEN", server.key("topic", "dead")) == 1
    assert server.counter("dead_lettered") == 1
    assert client.pubsub.lag("bus", "t") == 2
    source.close(())
