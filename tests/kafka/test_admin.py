"""The suite of ``client.admin`` on Kafka, on topics of one partition and of two."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from cloud_runtimes.components.kafka.mending import KafkaMender
from cloud_runtimes.testing import AdminSuite
from cloud_runtimes.testing.suites._base import Suite
from tests.support.harnesses.kafka import KAFKA, KAFKA_FRAMED, KAFKA_PROMPT, KAFKA_SHARED, KafkaHome
from tests.support.harnesses.rows import rows
from tests.support.waiting import until

SOON = 60.0


class TestAdmin(AdminSuite):
    harness = rows({}, kafka_servers=KAFKA)

    test_redriven_events_move_with_the_parts_of_their_keys = None  # see `TestMoving`


class TestShared(Suite):
    """Cases in which events lie in several partitions."""

    harness = rows({}, kafka_servers=KAFKA_SHARED)
    service = AdminSuite.service
    store = AdminSuite.store
    bus = AdminSuite.bus

    test_topics = AdminSuite.test_topics
    test_groups = AdminSuite.test_groups
    test_dead_letters = AdminSuite.test_dead_letters
    test_all_dead_letters_are_counted = AdminSuite.test_all_dead_letters_are_counted
    failed = AdminSuite.failed
    _left = AdminSuite._left

    test_redrive_to_a_group_with_an_order = AdminSuite.test_redrive_to_a_group_with_an_order
    test_discard = AdminSuite.test_discard
    test_seek_keeps_redriven_events = AdminSuite.test_seek_keeps_redriven_events
    test_delete_group = AdminSuite.test_delete_group
    test_delete_group_with_an_order = AdminSuite.test_delete_group_with_an_order


class TestMoving(Suite):
    """A case in which a partition moves that has events in hand."""

    harness = rows({}, kafka_servers=KAFKA_PROMPT)
    service = AdminSuite.service
    store = AdminSuite.store
    bus = AdminSuite.bus

    test_redriven_events_move_with_the_parts_of_their_keys = (
        AdminSuite.test_redriven_events_move_with_the_parts_of_their_keys
    )


class TestFrames(Suite):
    """Cases in which a message has several events, and not all of them are removed."""

    harness = rows({}, kafka_servers=KAFKA_FRAMED)
    service = AdminSuite.service
    store = AdminSuite.store
    bus = AdminSuite.bus
    failed = AdminSuite.failed
    _left = AdminSuite._left

    test_peek = AdminSuite.test_peek
    test_redrive_to_the_group_that_failed = AdminSuite.test_redrive_to_the_group_that_failed
    test_redrive_needs_the_group = AdminSuite.test_redrive_needs_the_group
    test_redrive_to_all_groups = AdminSuite.test_redrive_to_all_groups
    test_two_redrivers_double_nothing = AdminSuite.test_two_redrivers_double_nothing


def test_looking_leaves_no_trace(home: KafkaHome) -> None:
    client = home.client()
    client.pubsub.publish_bulk("bus-0", "t", list(range(6)))
    with client.pubsub.subscribe("bus-0", "t", group="g", dead_letter_topic="dead") as events:
        taken = [events.receive(timeout=SOON) for _ in range(3)]
        taken[0].drop()
        taken[2].ack()
        assert until(lambda: client.pubsub.lag("bus-0", "t", group="g") == 4)
    admin: Any = AdminClient({"bootstrap.servers": home.servers})
    group = f"{home.prefix}bus-0.g"

    def state() -> Any:
        mine = home.prefix, "cloud-runtimes"
        groups = sorted(each.group_id for each in admin.list_consumer_groups().result(10).valid)
        (asked,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        offsets = [
            (each.topic, each.partition, each.offset, each.metadata) for each in asked.result(10).topic_partitions
        ]
        names = groups, sorted(admin.list_topics(timeout=10).topics)
        return *([each for each in those if each.startswith(mine)] for those in names), offsets

    before = state()
    assert group in before[0]
    assert [topic.name for topic in client.admin.topics("bus-0")] == ["dead", "t"]
    (info,) = client.admin.groups("bus-0", "t")
    assert (info.name, info.lag) == ("g", 4)
    assert [event.data for event in client.admin.peek("bus-0", "t", group="g")] == [1, 3, 4, 5]
    assert len(client.admin.peek("bus-0", "t", start="latest", limit=2)) == 2
    assert [each.count for each in client.admin.dead_letters("bus-0", "dead")] == [1]
    assert state() == before


def test_members_get_nothing_that_was_removed(home: KafkaHome) -> None:
    """A group that has begun, one with a member that has not read so far, and one that is new."""
    client = home.client()
    client.pubsub.subscribe("bus-0", "t", group="g").close()
    for group in ("begun", "member"):
        client.pubsub.subscribe("bus-0", "dead", group=group).close()
    with client.pubsub.publisher("bus-0", "dead") as publisher:
        for number in range(3000):
            reason = "dropped" if number % 2 else "deliveries"
            publisher.send(number, attributes={"dlgroup": "g", "dltopic": "t", "dlreason": reason})
    with client.pubsub.subscribe("bus-0", "dead", group="member", max_in_flight=10) as events:
        got = [event for _ in range(10) if (event := events.receive(timeout=SOON)) is not None]
        assert client.admin.redrive("bus-0", "dead", reason="dropped").count == 1500
        time.sleep(6)  # until the member has looked
        for event in got:
            event.ack()
        while (event := events.receive(timeout=2)) is not None:
            got.append(event)
            event.ack()
        numbers = [event.data for event in got]
        assert {*numbers} >= {*range(0, 3000, 2)}
        assert len(numbers) == len({*numbers}) < 2500  # the odd ones of those that it had fetched already
    assert until(lambda: client.pubsub.lag("bus-0", "dead", group="member") == 0)
    assert client.pubsub.lag("bus-0", "dead", group="begun") == 1500
    assert client.admin.topics("bus-0", prefix="dead")[0].events == 1500
    for group in ("begun", "new"):
        with client.pubsub.subscribe("bus-0", "dead", group=group, start="earliest", batch=1000) as batches:
            seen: list[int] = []
            while (batch := batches.receive(timeout=5)) is not None:
                seen += [event.data for event in batch]
                batch.ack()
            assert seen == list(range(0, 3000, 2))


def test_a_target_is_looked_up_once_a_page(home: KafkaHome, monkeypatch: pytest.MonkeyPatch) -> None:
    client, asked = home.client(), list[Any]()
    client.pubsub.subscribe("bus-0", "t", group="g").close()
    with client.pubsub.publisher("bus-0", "dead") as publisher:
        for number in range(500):
            publisher.send(number, attributes={"dlgroup": "g", "dltopic": "t", "dlreason": "dropped"})
    target, remove, pages = KafkaMender._target, KafkaMender.remove, list[Any]()
    monkeypatch.setattr(KafkaMender, "_target", lambda self, *names: asked.append(names) or target(self, *names))
    monkeypatch.setattr(KafkaMender, "remove", lambda self, *page: pages.append(page) or remove(self, *page))
    assert client.admin.redrive("bus-0", "dead").count == 500
    assert len(asked) == len(pages) < 10  # of a full machine a page may be short


def test_an_overview_takes_few_requests(home: KafkaHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many topics there are: one more for each consumer group, and none for a topic."""
    monkeypatch.chdir(tmp_path)  # where its other services are
    client, asked = home.client(), Counter[str]()

    def counting(name: str, real: Any) -> Any:
        def count(*arguments: Any, **options: Any) -> Any:
            asked[name] += 1
            return real(*arguments, **options)

        return count

    for name in ("list_topics", "list_consumer_groups", "list_consumer_group_offsets", "list_offsets"):
        monkeypatch.setattr(AdminClient, name, counting(name, getattr(AdminClient, name)))
    seen = []
    for topics in (2, 6):
        for number in range(topics):
            client.pubsub.publish("bus-0", f"t{number}", number)
            client.pubsub.subscribe("bus-0", f"t{number}", group="g", start="earliest").close()
        counts = []
        for _ in range(3):  # a busy broker is looked at once more
            asked.clear()
            found = client.admin.overview().groups
            assert sorted(each.group.topic for each in found) == [f"t{number}" for number in range(topics)]
            assert all(each.group.lag and each.group.oldest for each in found)
            # one of all topics, and each topic has one that reads what comes again
            assert asked.pop("list_consumer_group_offsets") == 1 + topics
            counts.append(asked.copy())
        seen.append(min(counts, key=Counter.total))
    assert seen[0] == seen[1]
    assert seen[0].total() < 40  # of four names


def test_deleting_a_group_of_many_topics(home: KafkaHome) -> None:
    client = home.client()
    for topic in ("t", "u"):
        client.pubsub.publish_bulk("bus-0", topic, [0, 1, 2])
        client.pubsub.subscribe("bus-0", topic, group="g", start="earliest").close()
    assert client.admin.delete_group("bus-0", "t", "g") == 3
    assert [group.name for group in client.admin.groups("bus-0", "t")] == []
    assert client.pubsub.lag("bus-0", "u", group="g") == 3
    client.pubsub.subscribe("bus-0", "t", group="g", start="latest").close()
    assert client.pubsub.lag("bus-0", "t", group="g") == 0
    for topic in ("t", "u"):
        client.admin.delete_topic("bus-0", topic)
    assert client.admin.topics("bus-0") == []
