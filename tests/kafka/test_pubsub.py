"""Events on Kafka: what others read and write, what a rebalance, a death and a fork leave, and order by key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from cloudevents.core.bindings import kafka as binding
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cloud_runtimes.components.kafka.cluster import Cluster
from cloud_runtimes.components.kafka.fetcher import Fetcher
from cloud_runtimes.components.kafka.member import KafkaMember
from cloud_runtimes.components.kafka.messages import Run
from cloud_runtimes.components.kafka.producer import KafkaProducer
from cloud_runtimes.errors import ConflictError, NotFoundError
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.testing import Api
from tests.support import Rounds
from tests.support.forked import in_child
from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import HOLDER, taken
from tests.support.waiting import until

SOON = 60.0


@pytest.fixture
def topic(home: KafkaHome) -> str:
    """Name of the topic ``t`` in the cluster."""
    return f"{home.prefix}bus.t"


# -- topics -------------------------------------------------------------------


def test_it_does_not_list_the_topics_of_others(home: KafkaHome, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    monkeypatch.setattr(Cluster, "metadata", lambda *_: listed.append(1))
    client = on()
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish("bus", "t", 1)
        taken(sub, 1)
    assert client.pubsub.lag("bus", "t") == 0
    assert [event.data for event in client.admin.peek("bus", "t")] == [1]
    assert not listed


def test_a_topic_that_another_makes_is_found(home: KafkaHome, on: Any, topic: str) -> None:
    client = on(ensure="check")
    with pytest.raises(NotFoundError, match="no topic"):
        client.pubsub.publish("bus", "t", 1)
    assert client.admin.peek("bus", "t") == []
    admin: Any = AdminClient({"bootstrap.servers": home.servers})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(SOON)
    client.pubsub.publish("bus", "t", 2)
    assert [event.data for event in client.admin.peek("bus", "t")] == [2]


# -- others -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_others_read_what_is_published(home: KafkaHome, on: Any, topic: str, mode: str) -> None:
    client = on(content_mode=mode)
    id = client.pubsub.publish("bus", "t", {"n": 1}, key="grün", attributes={"subject": "thing", "tenant": "blue"})
    consumer = Consumer({"bootstrap.servers": home.servers, "group.id": "other", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message: Any = until(lambda: consumer.poll(0.2))
    consumer.close()
    headers = dict(message.headers())
    assert message.key() == "grün".encode()
    read = binding.from_structured_event if mode == "structured" else binding.from_binary_event
    event = read(binding.KafkaMessage(headers=headers, key=message.key(), value=message.value()))
    assert (event.get_id(), event.get_subject(), event.get_extension("tenant")) == (id, "thing", "blue")
    data = event.get_data()
    assert (json.loads(data) if isinstance(data, (str, bytes)) else data) == {"n": 1}


def test_what_others_write_is_read(home: KafkaHome, on: Any, topic: str) -> None:
    client = on()
    with client.pubsub.subscribe("bus", "t") as sub:
        event = CloudEvent(
            {"id": "a", "source": "/o", "type": "made", "tenant": "blue", "datacontenttype": "application/json"},
            {"n": 1},
        )
        producer = Producer({"bootstrap.servers": home.servers})
        for message in (binding.to_structured_event(event), binding.to_binary_event(event)):
            producer.produce(topic, message.value, message.key, headers=list(message.headers.items()))
        producer.produce(
            topic, json.dumps({"specversion": "1.0", "id": "b", "source": "/o", "type": "made", "data": 2})
        )
        producer.produce(topic, b"\x00plain", b"k")
        producer.flush()
        events = taken(sub, 4)
    by_id = {each.id: each.data for each in events[:3]}
    assert by_id == {"a": {"n": 1}, "b": 2}
    assert {each.extensions.get("tenant") for each in events[:2]} <= {"blue", None}
    assert events[3].data == b"\x00plain"
    assert events[3].id == f"{topic}-0-3"


@pytest.mark.parametrize("layout", ["event", "frame"])
def test_both_layouts_in_one_topic(on: Any, layout: str) -> None:
    for each in (layout, "frame", "event"):
        on(layout=each).pubsub.publish_bulk("bus", "t", [each, each])
    with on().pubsub.subscribe("bus", "t") as sub:
        assert [event.data for event in taken(sub, 6)] == [layout, layout, "frame", "frame", "event", "event"]


# -- groups -------------------------------------------------------------------


def test_a_topic_that_is_missing(on: Any, api: Api) -> None:
    client = on(ensure="check")
    for method in ("publish", "subscribe"):
        arguments = ("bus", "t", 1) if method == "publish" else ("bus", "t")
        error = api.fails(NotFoundError, match='set ensure = "create"')(client.pubsub, method, *arguments)
        assert not error.maybe_applied


def test_what_is_held_survives_a_rebalance(on: Any) -> None:
    """A member that joins gets nothing that another still holds; both go on."""
    settings = {"partitions": 4, "options": {"sticky.partitioning.linger.ms": 0}}
    first, second = on(**settings), on(**settings)
    with first.pubsub.subscribe("bus", "t", max_in_flight=40) as one:
        first.pubsub.publish_bulk("bus", "t", list(range(40)))
        held = [one.receive(SOON) for _ in range(40)]
        with second.pubsub.subscribe("bus", "t") as other:
            assert other.receive(1.0) is None, "it got what the first holds"
            for event in held:
                event.ack()
            first.pubsub.publish_bulk("bus", "t", list(range(100, 300)))
            seen: dict[int, set[int]] = {0: set(), 1: set()}
            end = time.monotonic() + SOON
            while len(seen[0] | seen[1]) < 200 and time.monotonic() < end:
                for number, sub in enumerate((one, other)):
                    if (event := sub.receive(0.02)) is not None:
                        event.ack()
                        seen[number].add(event.data)
    assert seen[0] | seen[1] == set(range(100, 300)), "nothing is lost, and nothing that was settled comes again"
    assert not seen[0] & seen[1]
    assert all(seen.values())


def test_a_group_whose_position_cannot_be_read_does_not_begin_anew(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = on(retry="in_order")
    client.pubsub.publish_bulk("bus", "t", list(range(5)))
    with client.pubsub.subscribe("bus", "t") as sub:
        taken(sub, 5)
    asked: list[Any] = []

    class Unlucky(Consumer):
        def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
            asked.append(partitions)
            if len(asked) == 2:  # the first is asked before it joins
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return super().committed(partitions, timeout=timeout)

    monkeypatch.setattr("cloud_runtimes.components.kafka.fetcher.Consumer", Unlucky)
    client.pubsub.publish("bus", "t", 5)
    with client.pubsub.subscribe("bus", "t") as sub:
        assert [event.data for event in taken(sub, 1)] == [5]
    assert len(asked) == 3


def test_a_topic_that_is_made_again(home: KafkaHome, on: Any, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    """The subscription tells that it is gone, and waits. Its offsets begin anew, and what had them before is settled no more."""
    client = on(retry="in_order", options={"topic.metadata.refresh.interval.ms": 200})
    admin: Any = AdminClient({"bootstrap.servers": home.servers})
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish_bulk("bus", "t", list(range(10)))
        held = sub.receive(SOON)
        assert held.data == 0
        taken(sub, 9)
        time.sleep(0.5)  # a commit that meets the end of its topic may outlive it
        admin.delete_topics([topic])[topic].result(SOON)
        fetched = sub._fetcher._source._fetched  # type: ignore[attr-defined]
        gone = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)  # as librdkafka says where a fetch was under way
        fetched.add(topic, [Run(partition, False, [], [], gone) for partition in (0, -1)])
        fetched.tell()
        until(lambda: f"the topic '{topic}' is gone" in caplog.text)
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(SOON)
        client.pubsub.publish_bulk("bus", "t", ["new", "other"])
        new = sub.receive(SOON)
        held.ack()
        assert new.data == "new"
    with client.pubsub.subscribe("bus", "t") as sub:
        assert [event.data for event in taken(sub, 2)] == ["new", "other"]


def committed(home: KafkaHome, group: str) -> list[str]:
    """Return what a group has noted of partitions."""
    admin: Any = AdminClient({"bootstrap.servers": home.servers})
    (asked,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    return [each.metadata or "" for each in asked.result(SOON).topic_partitions]


def test_a_member_that_is_killed(home: KafkaHome, on: Any) -> None:
    """Events that it had settled do not come again, even after unsettled ones; the rest counts as delivered."""
    table = home.table("bus", session_timeout=6)
    client = on(session_timeout=6)
    client.pubsub.publish_bulk("bus", "t", list(range(10)))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, json.dumps(table)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        until(lambda: "cr1:1,3,5,7,9;1:0,2,4,6,8" in committed(home, f"{home.prefix}bus.suite"))
        holder.kill()
    with client.pubsub.subscribe("bus", "t") as sub:
        events = taken(sub, 5)
        assert sub.receive(0.3) is None
    assert [(each.data, each.delivery_count) for each in events] == [(number, 2) for number in range(0, 10, 2)]


def ended(home: KafkaHome, group: str) -> Counter[str]:
    """Return how many events of a group came to which end."""
    counts: Counter[str] = Counter()
    for text in committed(home, group):
        counts.update({how: int(events) for how, events in re.findall("([a-z_]+):([0-9]+)", text)})
    return counts


def test_what_nobody_acknowledged_is_counted(home: KafkaHome, on: Any) -> None:
    client = on()
    group = f"{home.prefix}bus.suite"
    for turn in (1, 2):
        client.pubsub.publish("bus", "t", "late", ttl=0.05)
        time.sleep(0.1)
        client.pubsub.publish_bulk("bus", "t", ["drop", "drop", "ack"])
        with client.pubsub.subscribe("bus", "t") as sub:
            for _ in range(3):
                event = sub.receive(SOON)
                event.drop() if event.data == "drop" else event.ack()
        assert ended(home, group) == {"dropped": 2 * turn, "expired": turn}
    with client.pubsub.subscribe("bus", "t", dead_letter_topic="dead", max_deliveries=1) as sub:
        client.pubsub.publish("bus", "t", "fails")
        sub.receive(SOON).retry()
    assert ended(home, group) == {"dropped": 4, "expired": 2, "dead_lettered": 1}


@pytest.mark.parametrize("alive", [False, True])
def test_what_the_broker_deletes_unread_is_counted(
    home: KafkaHome, on: Any, topic: str, alive: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events settled before, in any order, are not counted. A member may be there meanwhile, and late, or not."""
    client = on()
    group = f"{home.prefix}bus.suite"
    admin: Any = AdminClient({"bootstrap.servers": home.servers})

    def go_on() -> None:
        client.pubsub.publish_bulk("bus", "t", list(range(3, 40)))
        partition = TopicPartition(topic, 0, 30)
        admin.delete_records([partition])[partition].result(SOON)

    paused = threading.Event()

    def full(fetcher: Any) -> bool:
        if fetcher._topic == topic and sys._getframe(1).f_code.co_name == "_stand_by":
            paused.set()
        return True

    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish_bulk("bus", "t", [0, 1, 2])
        first, _, third = (sub.receive(SOON) for _ in range(3))
        first.ack()
        third.ack()
        until(lambda: "cr1:1;1:0" in committed(home, group))
        if alive:
            with monkeypatch.context() as late:
                late.setattr(Fetcher, "_full", full)
                assert paused.wait(SOON)
                go_on()
            events = taken(sub, 10)
    if not alive:
        go_on()
        with client.pubsub.subscribe("bus", "t") as sub:
            events = taken(sub, 10)
    assert [event.data for event in events] == list(range(30, 40))
    deleted = 27 if alive else 28  # its member had the second event
    assert ended(home, group) == {"deleted": deleted}
    assert f"{deleted} messages of {topic} (partition 0) were deleted" in caplog.text


def test_a_retry_that_is_written_slowly_holds_up_nothing(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = on()
    send = KafkaProducer.send
    waiting: list[Callable[[], Any]] = []

    def slowly(producer: KafkaProducer, op: Any, topic: str, messages: Any) -> Future[Any]:
        if not topic.endswith(".retry"):
            return send(producer, op, topic, messages)
        future: Future[Any] = Future()
        waiting.append(lambda: future.set_result(send(producer, op, topic, messages).result(SOON)))
        return future

    monkeypatch.setattr(KafkaProducer, "send", slowly)
    with client.pubsub.subscribe("bus", "t") as sub:
        client.pubsub.publish_bulk("bus", "t", ["fails", "first"])
        failing, first = sub.receive(SOON), sub.receive(SOON)
        failing.retry(0)
        first.ack()
        for number in range(3):
            client.pubsub.publish("bus", "t", number)
            assert [event.data for event in taken(sub, 1)] == [number]
        (write,) = waiting
        write()
        (again,) = taken(sub, 1)
        assert (again.data, again.delivery_count) == ("fails", 2)


def test_a_child_publishes(on: Any) -> None:
    client = on()
    client.pubsub.publish("bus", "t", "parent")
    in_child(lambda: client.pubsub.publish("bus", "t", "child"))
    client.pubsub.publish("bus", "t", "parent again")
    with client.pubsub.subscribe("bus", "t") as sub:
        assert [event.data for event in taken(sub, 3)] == ["parent", "child", "parent again"]


# -- order --------------------------------------------------------------------


def test_order_by_key_holds_through_retries_and_rebalances(on: Any, rounds: Rounds) -> None:
    """Members come and go, handlers fail: the events of a key are settled in their order, one at a time."""
    settings = {"retry": "in_order", "partitions": 4}
    keys, count = 8, rounds(20, 500)
    settled: dict[str, list[int]] = {f"k{number}": [] for number in range(keys)}
    busy: set[str] = set()
    overlaps: list[str] = []
    lock = threading.Lock()
    over = threading.Event()

    def handle(event: Any) -> None:
        with lock:
            if event.key in busy:
                overlaps.append(event.key)
            busy.add(event.key)
        time.sleep(0.001)
        with lock:
            busy.discard(event.key)
            if hash((event.key, event.data, event.delivery_count)) % 5 == 0 and event.delivery_count < 4:
                event.retry(0.02)
                return
            settled[event.key].append(event.data)
        event.ack()

    def consume(stay: bool) -> None:
        with on(**settings) as client:
            while not over.is_set():
                with client.pubsub.subscribe("bus", "t", handle, workers=4, start="earliest"):
                    over.wait(None if stay else 0.7)

    def missing() -> dict[str, set[int]]:
        return {key: gone for key, values in settled.items() if (gone := set(range(count)) - set(values))}

    threads = [threading.Thread(target=consume, args=(stay,)) for stay in (True, False)]
    client = on(**settings)
    client.pubsub.publish("bus", "t", -1, key="k0")
    for thread in threads:
        thread.start()
    try:
        for number in range(count):
            client.pubsub.publish_bulk("bus", "t", [OutgoingEvent(number, key) for key in settled])
        end = time.monotonic() + 60 + count / 5
        while (left := missing()) and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert left == {}
    assert not overlaps
    for key, values in settled.items():
        first = list(dict.fromkeys(each for each in values if each >= 0))
        assert first == sorted(first), key


def test_a_group_keeps_its_order(home: KafkaHome, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commits of one with an order say so; whoever missed that leaves with the first partition that it gets."""
    group = f"{home.prefix}bus.suite"
    client = on(partitions=2)
    client.pubsub.subscribe("bus", "t", order="key").close()
    assert all("order:key" in text for text in committed(home, group))
    client.pubsub.publish("bus", "t", 1)
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        taken(sub, 1)
    assert all("order:key" in text for text in committed(home, group))
    with monkeypatch.context() as early:
        early.setattr(KafkaMember, "_check_order", lambda member, op, marked: "")
        other = client.pubsub.subscribe("bus", "t")
        until(lambda: isinstance(other.health.problem, ConflictError))
    assert re.search('the group .* has order="key" and this member asks for none', str(other.health.problem))
    with client.pubsub.subscribe("bus", "t", order="key") as sub, other:
        client.pubsub.publish_bulk("bus", "t", [2, 3])
        assert [event.data for event in taken(sub, 2)] == [2, 3]
        assert isinstance(other.health.problem, ConflictError)


@pytest.mark.parametrize("ask", [{"order": "key"}, {}], ids=["option", "setting"])
def test_a_group_without_a_mark_gets_its_order(home: KafkaHome, on: Any, topic: str, ask: Any) -> None:
    """As earlier versions left it; one that has a position in its retry topic only by the setting, or without that."""
    group = f"{home.prefix}bus.suite"
    client = on() if ask else on(retry="in_order")
    client.pubsub.publish_bulk("bus", "t", list(range(3)))
    reader = Consumer({"bootstrap.servers": home.servers, "group.id": group})
    reader.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    with client.pubsub.subscribe("bus", "t", **ask) as sub:
        assert [event.data for event in taken(sub, 2)] == [1, 2]
    assert {*committed(home, group)} == {"cr1:;order:key"}  # of the topic, and of what is redriven
    on().pubsub.subscribe("bus", "t", group="other").close()
    reader.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    on(retry="in_order").pubsub.subscribe("bus", "t", group="other").close()
    with pytest.raises(ConflictError, match="has no order"):
        on().pubsub.subscribe("bus", "t", group="third").close()
        on().pubsub.subscribe("bus", "t", group="third", order="key")
    admin: Any = AdminClient({"bootstrap.servers": home.servers})
    admin.delete_consumer_groups([f"{topic}.third.retry"])[f"{topic}.third.retry"].result(SOON)
    on().pubsub.subscribe("bus", "t", group="third", order="key").close()
    reader.close()


def test_the_key_of_another_program_is_one(home: KafkaHome, on: Any, topic: str) -> None:
    """Also in another place than that of the event, and where it is no text."""
    client = on()
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        producer = Producer({"bootstrap.servers": home.servers})
        event = {"specversion": "1.0", "source": "/o", "type": "made", "partitionkey": "own"}
        headers = {f"ce_{name}": value for name, value in {**event, "id": "e"}.items() if name != "partitionkey"}
        for value, key, more in (
            (json.dumps({**event, "id": "a", "data": 1}), b"own", None),
            (json.dumps({**event, "id": "b", "data": 2}), b"else", None),
            (b"\x00", b"k", None),
            (b"\x01", b"k", None),
            (b"\x02", b"\x00\xff", None),
            (b"\x03", b"\x00\xff", None),
            (b"\x04", None, None),
            (b"5", b"k", list(headers.items())),
        ):
            producer.produce(topic, value, key, headers=more)
        producer.flush()
        firsts = [sub.receive(SOON) for _ in range(4)]
        assert [(each.data, each.key) for each in firsts] == [
            (1, "own"),
            (b"\x00", "k"),
            (b"\x02", "00ff"),
            (b"\x04", None),
        ]
        assert sub.receive(0.2) is None
        for each in firsts:
            each.ack()
        assert {each.data for each in (sub.receive(SOON) for _ in range(3))} == {2, b"\x01", b"\x03"}


def test_failed_deliveries_count_from_member_to_member(on: Any) -> None:
    client = on()
    client.pubsub.publish_bulk("bus", "t", [OutgoingEvent(number, "k") for number in range(2)])
    for count in (1, 3):
        with client.pubsub.subscribe("bus", "t", order="key", start="earliest") as sub:
            for deliveries in (count, count + 1):
                event = sub.receive(SOON)
                assert (event.data, event.delivery_count) == (0, deliveries)
                event.retry(0.0 if deliveries == count else 60.0)
            assert sub.receive(0.2) is None
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        assert [(event.data, event.delivery_count) for event in taken(sub, 2)] == [(0, 5), (1, 1)]


def test_nothing_begins_while_commits_are_not_taken(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It might be another's."""
    silent = threading.Event()

    class Unheard(Consumer):
        def commit(self, **arguments: Any) -> Any:  # type: ignore[override]
            if silent.is_set() and arguments["asynchronous"]:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return super().commit(**arguments)

    monkeypatch.setattr("cloud_runtimes.components.kafka.fetcher.Consumer", Unheard)
    client = on()
    with client.pubsub.subscribe("bus", "t", order="key") as sub:
        sub._fetcher._source._fetchers[0]._lease = 1.0  # type: ignore[attr-defined]
        for number in range(3):
            client.pubsub.publish("bus", "t", number, key="k")
        taken(sub, 1)
        time.sleep(2)  # what an idle member commits is enough
        taken(sub, 1)
        silent.set()
        time.sleep(1.5)
        assert sub.receive(0.5) is None
        silent.clear()
        assert [event.data for event in taken(sub, 1)] == [2]


def test_a_key_that_waits_for_its_retry_moves_at_once(on: Any) -> None:
    settings = {"partitions": 4, "handover": 30}
    first, second = on(**settings), on(**settings)
    with first.pubsub.subscribe("bus", "t", order="key") as one:
        first.pubsub.publish_bulk("bus", "t", [OutgoingEvent(number, f"k{number % 20}") for number in range(40)])
        for event in [one.receive(SOON) for _ in range(20)]:
            event.retry(60)
        with second.pubsub.subscribe("bus", "t", order="key") as other:
            began = time.monotonic()
            firsts = [other.receive(SOON)]
            assert time.monotonic() - began < 15
            while (event := other.receive(0.5)) is not None:
                firsts.append(event)
            assert all(event.data < 20 for event in firsts)
            assert len({event.key for event in firsts}) == len(firsts)
