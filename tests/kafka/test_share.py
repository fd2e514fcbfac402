"""Share groups: what members share, what a lock, a death and the brokers' limit of deliveries leave, and who has none."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from cloud_runtimes.testing import Api
from tests.support.harnesses.kafka import KafkaHome, ShareHome
from tests.support.kafka import HOLDER, serve, taken
from tests.support.needs import present
from tests.support.waiting import until

SOON = 20.0
LOCK = 2.0
"""Seconds of a lock that ends in a test."""


@pytest.fixture
def home(kafka_servers: str) -> Iterator[ShareHome]:
    instance = ShareHome(kafka_servers)
    yield instance
    instance.close()


def set_up(home: KafkaHome, **settings: object) -> None:
    """Give the group of the tests settings."""
    entries = [
        ConfigEntry(f"share.{name.replace('_', '.')}", str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    which: Any = ConfigResource(ResourceType.GROUP, f"{home.prefix}bus.suite", incremental_configs=entries)
    admin: Any = AdminClient({"bootstrap.servers": home.servers})
    (done,) = admin.incremental_alter_configs([which]).values()
    done.result(SOON)

    def is_known() -> bool:
        (told,) = admin.describe_configs([ConfigResource(ResourceType.GROUP, f"{home.prefix}bus.suite")]).values()
        found = told.result(SOON)
        return all(each.name in found and found[each.name].value == each.value for each in entries)

    until(is_known)  # each broker learns it by itself


def locked_for(home: KafkaHome, seconds: float) -> None:
    set_up(home, record_lock_duration_ms=int(seconds * 1000))


# -- members ------------------------------------------------------------------


def test_more_members_than_partitions(on: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """All work, and the warning of librdkafka that this is a preview floods nobody."""
    clients = [on(partitions=1) for _ in range(3)]
    members = [client.pubsub.subscribe("bus", "t", max_in_flight=2) for client in clients]
    sent = range(600)
    clients[0].pubsub.publish_bulk("bus", "t", list(sent))
    got: list[list[int]] = [[] for _ in members]
    end = time.monotonic() + SOON
    while sum(map(len, got)) < len(sent) and time.monotonic() < end:
        for mine, member in zip(got, members, strict=True):
            if (event := member.receive(0.02)) is not None:
                mine.append(event.data)
                event.ack()
    assert sorted(itertools.chain.from_iterable(got)) == list(sent)
    assert all(got)
    for member in members:
        member.close()
    assert "preview" not in capfd.readouterr().err.lower()


def test_a_slow_event_holds_up_no_other_member(on: Any) -> None:
    client, other = on(), on()
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", "slow")
        slow = sub.receive(SOON)
        with other.pubsub.subscribe("bus", "t") as rest:
            client.pubsub.publish_bulk("bus", "t", [1, 2])
            assert [event.data for event in taken(rest, 2)] == [1, 2]
        client.pubsub.publish("bus", "t", 3)
        assert sub.receive(0.3) is None
        slow.ack()
        assert [event.data for event in taken(sub, 1)] == [3]


def test_a_slow_event_holds_up_its_member_until_its_lock_is_over(home: ShareHome, on: Any) -> None:
    locked_for(home, LOCK)
    client = on()
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", "slow")
        slow = sub.receive(SOON)
        client.pubsub.publish("bus", "t", 1)
        deliveries = {event.data: event.delivery_count for event in taken(sub, 2)}
        slow.retry(0)  # too late to count
        assert deliveries == {"slow": 2, 1: 1}
        assert sub.receive(2 * LOCK) is None


def test_a_member_that_is_killed(home: ShareHome, on: Any) -> None:
    """Events that it had settled do not come again; the rest counts as delivered."""
    client = on()
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    table = json.dumps(home.table("bus"))
    with subprocess.Popen([sys.executable, "-c", HOLDER, table], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with client.pubsub.subscribe("bus", "t") as sub:
        events = taken(sub, 5)
        assert sub.receive(0.3) is None
    assert [(each.data, each.delivery_count) for each in events] == [(number, 2) for number in range(0, 10, 2)]


def test_what_is_not_settled_comes_again_at_once(on: Any) -> None:
    """Only what was handed out counts as delivered, though the brokers count all that a member had."""
    client = on(layout="frame")
    for first in (0, 4):
        client.pubsub.publish_bulk("bus", "t", list(range(first, first + 4)))
    with client.pubsub.subscribe("bus", "t", max_in_flight=3) as sub:
        held, settled = sub.receive(SOON), sub.receive(SOON)
        settled.ack()
        until(lambda: sub._fetcher._open == 3)  # type: ignore[attr-defined]
    begun = time.monotonic()
    with client.pubsub.subscribe("bus", "t") as sub:
        counts = {event.data: event.delivery_count for event in taken(sub, 7)}
        assert sub.receive(0.3) is None
    assert counts == {number: 1 + (number == held.data) for number in range(8) if number != settled.data}
    assert time.monotonic() < begun + 10, "it waited for the lock"


def test_a_member_that_leaves_fetches_nothing_more(on: Any) -> None:
    """The brokers would count it as delivered, as they do with a fetch that is under way."""
    client = on(partitions=1)

    def has_fetched(sub: Any) -> bool:
        source = sub._fetcher._source
        return any(topic == source._topic for topic, _ in source._fetched.ledgers)

    for first in range(0, 2000, 100):
        client.pubsub.publish_bulk("bus", "t", list(range(first, first + 100)))
    settled = set()
    for _ in range(3):
        with client.pubsub.subscribe("bus", "t") as sub:
            event = sub.receive(SOON)
            event.ack()
            settled.add(event.data)
            until(partial(has_fetched, sub))
    with client.pubsub.subscribe("bus", "t") as sub:
        counts = {event.data: event.delivery_count for event in taken(sub, 2000 - len(settled))}
    assert counts == dict.fromkeys(set(range(2000)) - settled, 1)


# -- limits -------------------------------------------------------------------


def test_what_the_brokers_would_drop_goes_on(home: ShareHome, on: Any) -> None:
    """They let go of an event once it was lent so often as the group's limit says, settled or not."""
    locked_for(home, LOCK)
    set_up(home, delivery_count_limit=2)
    client = on()
    client.pubsub.publish("bus", "t", "poison")
    with client.pubsub.subscribe("bus", "t") as sub:
        first = sub.receive(SOON)
        again = sub.receive(SOON)
        assert sub.receive(2 * LOCK) is None, "no lock ends in the retry topic"
    for count in (3, 4):
        with client.pubsub.subscribe("bus", "t") as sub:
            event = sub.receive(SOON)
            assert (event.data, event.delivery_count) == ("poison", count)
    with client.pubsub.subscribe("bus", "t") as sub:
        (last,) = taken(sub, 1)
    assert (first.delivery_count, again.delivery_count, last.delivery_count) == (1, 2, 5)


@pytest.mark.parametrize("group_type", ["consumer", "share"])
def test_a_dead_letter_of_what_nobody_answers(on: Any, group_type: str) -> None:
    """It is written though nothing else happens to the member."""
    client = on(group_type=group_type)
    options = {"dead_letter_topic": "dead", "max_deliveries": 1}
    with client.pubsub.subscribe("bus", "dead") as dead:
        client.pubsub.publish("bus", "t", "fatal")
        with client.pubsub.subscribe("bus", "t", **options) as sub:
            assert sub.receive(SOON) is not None
        with client.pubsub.subscribe("bus", "t", **options):
            (letter,) = taken(dead, 1)
    assert (letter.data, letter.extensions["dlreason"], letter.extensions["dlcount"]) == ("fatal", "deliveries", 1)


def test_what_nobody_acknowledged_is_told(on: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = on()
    with client.pubsub.subscribe("bus", "t", group="told") as sub:
        client.pubsub.publish("bus", "t", "drop")
        sub.receive(SOON).drop()
        until(lambda: "bus/t/told: 1 events were dropped" in caplog.text)


def receive(api: Api, client: CloudRuntimesClient, group: str) -> Any:
    """Subscribe and receive, since a busy broker may refuse a member later."""
    with api.opened(client.pubsub.subscribe("bus", "t", group=group)) as sub:
        return api.call(sub, "receive", SOON)


# -- who has none -------------------------------------------------------------


def test_a_group_that_would_miss_events(home: ShareHome, on: Any, api: Api) -> None:
    on().pubsub.publish("bus", "t", 1)
    on().pubsub.publish("bus", "t.suite.retry", 1)
    client = on(ensure="check")
    wanted = "--entity-name .*suite --add-config share.auto.offset.reset=earliest"
    api.fails(NotFoundError, match=wanted)(client.pubsub, "subscribe", "bus", "t")
    set_up(home, auto_offset_reset="earliest")
    with api.opened(client.pubsub.subscribe("bus", "t")) as sub:
        assert api.call(sub, "receive", SOON).data == 1


def test_a_group_of_the_other_type(on: Any, api: Api) -> None:
    shares, consumes = on(), on(group_type="consumer")
    for first, second in ((shares, consumes), (consumes, shares)):
        group = f"{api.name}-{first is shares}"
        with api.opened(first.pubsub.subscribe("bus", "t", group=group)) as sub:
            api.call(first.pubsub, "publish", "bus", "t", 1)
            assert api.call(sub, "receive", SOON) is not None  # it has joined
            with pytest.raises(InvalidArgumentError, match="the group is there with another group_type"):
                receive(api, second, group)


def test_a_client_without_share_groups(api: Api, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(confluent_kafka, "ShareConsumer")
    monkeypatch.delitem(sys.modules, "cloud_runtimes.components.kafka.share", raising=False)
    match = 'pip install "confluent-kafka>=2.16"'
    api.fails(UnsupportedError, match=match)(on().pubsub, "subscribe", "bus", "t")


@pytest.mark.soak
def test_brokers_without_share_groups(api: Api) -> None:
    with present(serve(features=["share.version=0"])) as server:
        table = KafkaHome(server.url).table("bus", group_type="share")
        with CloudRuntimesClient(config={"pubsub": {"bus": table}}, timeout=15) as client:
            with pytest.raises(UnsupportedError, match=r'share\.version: set group_type = "consumer"'):
                receive(api, client, "g")
