"""Producers, consumers and the broker are killed, their network parted, the broker harmed, members come and go: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import (
    BulkError,
    DeadlineExceededError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.pubsub.sender import PUBLISHER
from cloud_runtimes.spi.operation import Operation
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support import PEM, STRANGER, Figure, Rounds
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import PASSWORD, USER, KafkaServer, serve, stopped
from tests.support.loss import KILLS, come_and_go, dead, kill_all, outlast, slow
from tests.support.needs import present
from tests.support.waiting import until


@contextmanager
def hung(server: KafkaServer, proxy: FaultProxy) -> Iterator[None]:
    """Have it stand still."""
    with stopped(server):
        yield


HARMS = (
    (slow, DeadlineExceededError, "0.3 s"),
    (hung, DeadlineExceededError, "0.3 s"),
    (dead, UnavailableError, "could not be sent in time; "),
)


ACLS = {
    "authorizer_class_name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow_everyone_if_no_acl_found": "true",
}


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    """A broker behind a proxy, which tests may break; they leave it whole, since another takes long to start."""
    with present(serve(proxied=True, group_min_session_timeout_ms=1000, **ACLS)) as instance:
        yield instance


def proxy(server: KafkaServer) -> FaultProxy:
    assert server.proxy is not None
    return server.proxy


def client(server: KafkaServer, prefix: str) -> CloudRuntimesClient:
    """Return a client that goes through the proxy."""
    url = server.url.replace(str(server.port), str(proxy(server).port))
    return CloudRuntimesClient(app_id="suite", config=at({"url": url, "prefix": f"{prefix}."}), timeout=10)


def at(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a bus."""
    settings = dict(settings)
    table = {"component": "kafka", "ensure": "create", "servers": settings.pop("url"), **settings}
    return {"pubsub": {"bus": table}}


@pytest.mark.promise("A2")
@pytest.mark.soak
@pytest.mark.parametrize("retry", ["topic", "in_order"])
@pytest.mark.parametrize("instance", ["one", None])
def test_nothing_acknowledged_is_lost(
    server: KafkaServer, retry: str, instance: str | None, rounds: Rounds, figure: Figure, tmp_path: Path
) -> None:
    """With a name, a consumer takes the place of the one that was killed; without, that must be noticed first."""
    more = {"prefix": f"{retry}-{instance}.", "retry": retry, "instance": instance, "session_timeout": 6}
    result = kill_all(server, rounds(1, 30), tmp_path, more, None, None, at, server.proxy, patience=20)
    figure(f"{KILLS}, Kafka with retry = {retry}, {'static' if instance else 'dynamic'} membership", result)


@pytest.mark.promise("A2")
@pytest.mark.soak
def test_nothing_acknowledged_is_lost_in_a_share_group(
    server: KafkaServer, rounds: Rounds, figure: Figure, tmp_path: Path
) -> None:
    """Events of a dead member come again once its connection or its lock ends."""
    more = {"prefix": "share.", "group_type": "share", "session_timeout": 6}
    result = kill_all(server, rounds(1, 30), tmp_path, more, None, None, at, server.proxy, patience=40)
    figure(f"{KILLS}, Kafka with group_type = share", result)


@pytest.mark.promise("B1")
def test_publishers_outlast(server: KafkaServer, rounds: Rounds) -> None:
    """A broker that is slow, hung or dead. In CI each harm is tried with one API."""
    with ExitStack() as resources:
        apis = [SyncApi(), AsyncApi()]
        for api in apis:
            resources.callback(api.close)
        for number, (does, kind, match) in enumerate(HARMS):
            for turn in range(rounds(1, 2)):
                with client(server, f"{does.__name__}-{turn}") as instance:
                    outlast(instance, apis[(number + turn) % 2], does(server, proxy(server)), kind, match)


def test_logins_by_scram_over_tls(server: KafkaServer, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password, certificate or kind of connection is named, and shown to nobody."""
    url = {"url": server.secure, "prefix": f"secure-{api.name}."}
    login = {**url, "username": USER, "password": PASSWORD}
    trusted = {"tls": True, "tls_ca": str(PEM)}
    # a broker that has no processor is fenced for a while, and makes no topic then
    with CloudRuntimesClient(config=at({**login, **trusted}), timeout=90) as client:
        with api.opened(client.pubsub.subscribe("bus", "t", group="g", start="earliest")) as sub:
            api.call(client.pubsub, "publish", "bus", "t", {"n": 1})
            event = api.call(sub, "receive", 30)
            assert event.data == {"n": 1}
            event.ack()
            rule = (f"{url['prefix']}t", ResourcePatternType.LITERAL, f"User:{USER}", "*")
            denied = AclBinding(ResourceType.TOPIC, *rule, AclOperation.READ, AclPermissionType.DENY)
            admin: Any = AdminClient({"bootstrap.servers": server.url})
            for future in admin.create_acls([denied]).values():
                future.result(30)
            problem = until(lambda: sub.health.problem)
            assert isinstance(problem, PermissionDeniedError)
            assert "no rights to the topic 'secure-" in str(problem)
    for settings, error, match in (
        ({**login, **trusted, "password": "not-s3cret"}, UnauthenticatedError, "username, password and mechanism"),
        ({**login, "tls": True}, UnavailableError, "tls_ca"),
        ({**login, **trusted, "tls_ca": str(STRANGER)}, UnavailableError, "tls_ca"),
        (login, UnavailableError, "check .* tls and username"),
        ({**url, **trusted}, UnavailableError, "check .* tls and username"),
    ):
        with CloudRuntimesClient(config=at(settings), timeout=5) as client:
            text = str(api.fails(error, match=match)(client.pubsub, "publish", "bus", "t", 1))
        assert "s3cret" not in text + caplog.text


def test_a_member_leaves_though_no_broker_answers(
    server: KafkaServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that what it settled last may come again, and others go on once there is one."""
    monkeypatch.setattr("cloud_runtimes.components.kafka.member.LEAVING", 0.5)
    with client(server, "leaves") as instance:
        sub = instance.pubsub.subscribe("bus", "t", start="earliest")
        instance.pubsub.publish("bus", "t", 1)
        event = sub.receive(30)
        proxy(server).gone()
        try:
            event.ack()
            start = time.monotonic()
            sub.close()
            assert time.monotonic() - start < 30  # librdkafka waits for 60 s and more
        finally:
            proxy(server).back()
        assert "leaving the group failed: kafka" in caplog.text
        with instance.pubsub.subscribe("bus", "t") as sub:
            instance.pubsub.publish("bus", "t", 2)
            until(lambda: sub.receive(60).data == 2)


@contextmanager
def deaf(server: KafkaServer, proxy: FaultProxy) -> Iterator[None]:
    """Have its answers lost, and then its connections."""
    proxy.down = Way(lost=True)
    yield
    proxy.gone()
    proxy.heal()
    proxy.back()


@pytest.mark.parametrize("does", [hung, deaf])
def test_a_publisher_outlasts_a_stall_and_stores_nothing_twice(
    server: KafkaServer, does: Callable[..., AbstractContextManager[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """It is longer than an attempt at other brokers, and is told of."""
    with client(server, does.__name__) as instance, instance.pubsub.publisher("bus", "t", linger=0.01) as publisher:
        publisher.send(0)
        publisher.flush(30)
        with does(server, proxy(server)):
            for number in range(1, 1000):
                publisher.send(number)
            until(lambda: "messages have had no acknowledgement for 5 s" in caplog.text, seconds=60)
        publisher.flush(60)
        assert publisher.stats().delivered == 1000
    assert stored(server, f"{does.__name__}.t") == 1000


def test_a_publisher_that_is_closed_in_a_stall_ends_in_time(server: KafkaServer) -> None:
    """Though its attempt could go on for the two minutes of `delivery_timeout`."""
    instance = client(server, "closed")
    publisher = instance.pubsub.publisher("bus", "t", linger=0.01)
    publisher.send(0)
    publisher.flush(30)
    with stopped(server):
        publisher.send(1)
        time.sleep(0.5)  # it is under way
        began = time.monotonic()
        with pytest.raises(BulkError, match="1 of 1 events were sent and not acknowledged"):
            instance.close(timeout=3)
        assert time.monotonic() - began < 20
    assert publisher.stats().failed == 1


def test_what_a_lost_connection_had_may_be_stored(server: KafkaServer) -> None:
    with client(server, "doubtful") as instance, ThreadPoolExecutor() as pool:
        instance.pubsub.publish("bus", "t", 0, timeout=60)  # the broker may still come to itself
        proxy(server).down = Way(lost=True)
        try:
            second = pool.submit(instance.pubsub.publish, "bus", "t", 1, timeout=12)
            time.sleep(1)  # the broker stores it, and its answer is lost
            proxy(server).gone()
            error = second.exception()
        finally:
            proxy(server).heal()
            proxy(server).back()
        assert isinstance(error, UnavailableError)
        assert "could not be sent in time" in str(error)
        assert error.maybe_applied


def test_a_fatal_error_ends_what_is_under_way(server: KafkaServer) -> None:
    """librdkafka has nothing acknowledged any more; what is sent next has another producer."""
    with client(server, "fatal") as instance:
        instance.pubsub.publish("bus", "t", 0, timeout=60)  # the broker may still come to itself
        producer: Any = instance.pubsub._frame.driver("bus")._component.producer  # type: ignore[attr-defined]
        first = producer.client
        with stopped(server):
            sent = [producer.send(Operation(PUBLISHER, "bus", 60), "fatal.t", [(b"%d" % n, None, [])]) for n in (1, 2)]
            time.sleep(0.5)  # they are under way
            fatal = KafkaError(KafkaError._FATAL, "the log has lost messages", fatal=True)
            producer._sent[0].report(fatal, Message(value=b"1"))
            assert "the log has lost messages" in str(sent[0].exception(20))
            error = sent[1].exception(20)
            assert isinstance(error, UnavailableError)
            assert error.maybe_applied
        instance.pubsub.publish("bus", "t", 3, timeout=60)
        assert producer.client is not first


LATE = """
import sys, time
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.kafka.pausing import is_paused
from cloud_runtimes.spi.broker.policy import POLL
from cloud_runtimes.spi.operation import Operation
table = {"component": "kafka", "servers": sys.argv[1], "prefix": "late.", "ensure": "create"}
client = CloudRuntimesClient(app_id="app", config={"pubsub": {"bus": table}})
client.pubsub.publish("bus", "t", 1, timeout=60)
topics = client.pubsub._frame.driver("bus")._component.topics
print("stop", flush=True)
sys.stdin.readline()
for group in "ab":
    try:
        is_paused(topics, Operation(POLL, "bus", 0.5), "t", group)
    except Exception as error:
        print(type(error).__name__, flush=True)
print("go on", flush=True)
for group in "ab":
    print(is_paused(topics, Operation(POLL, "bus", 60), "t", group), flush=True)
time.sleep(2)
print("alive")
"""


def test_a_group_has_its_coordinator_late(server: KafkaServer) -> None:
    """librdkafka aborts a process that asked it for less time."""
    with subprocess.Popen(
        [sys.executable, "-c", LATE, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "stop\n"
        with stopped(server):
            child.stdin.write("\n")
            child.stdin.flush()
            assert [child.stdout.readline() for _ in range(3)] == 2 * ["UnavailableError\n"] + ["go on\n"]
        assert child.communicate(timeout=90)[0].split() == ["False", "False", "alive"]
    assert child.returncode == 0


def stored(server: KafkaServer, topic: str) -> int:
    """Return how many messages a topic has."""
    reader = Consumer({"bootstrap.servers": server.url, "group.id": "counts"})
    try:
        partitions = reader.list_topics(topic, 30).topics[topic].partitions
        places = [TopicPartition(topic, partition) for partition in partitions]
        ends: list[int] = []

        def is_known() -> bool:  # a leader that was away may not be known yet
            try:
                ends[:] = [reader.get_watermark_offsets(place, 30)[1] for place in places]
            except KafkaException:
                return False
            return True

        until(is_known, seconds=60)
        return sum(ends)
    finally:
        reader.close()


@pytest.mark.promise("B5", figure="Kafka: connections cut amid a batch")
def test_connections_are_cut_amid_a_batch(server: KafkaServer, rounds: Rounds, figure: Figure) -> None:
    """After some bytes of a batch, or of its answer: what was acknowledged comes, and nothing twice that was sent twice."""
    chance = random.Random(7)
    count = rounds(1_000, 200_000)
    seen: Counter[int] = Counter()
    with client(server, "cut") as instance, instance.pubsub.publisher("bus", "t", batch_events=100) as publisher:
        with instance.pubsub.subscribe("bus", "t", lambda event: seen.update([event.data]), start="earliest"):
            cuts = 0
            for number in range(count):
                publisher.send(number)
                if number % 250 == 0:
                    cuts += 1
                    way = Way(cut=chance.randrange(1, 20_000), once=True)
                    proxy(server).up, proxy(server).down = (way, Way()) if cuts % 2 else (Way(), way)
            publisher.flush(60)
            proxy(server).heal()
            assert publisher.stats().delivered == count
            until(lambda: len(seen) == count, seconds=30)
    twice = sum(seen.values()) - len(seen)
    figure(
        "Kafka: connections cut amid a batch", f"{cuts:,} cuts, {count:,} events acknowledged, 0 absent, {twice} twice"
    )


@pytest.mark.parametrize(
    ("layout", "setting"),
    [
        ("event", "retry = topic"),
        pytest.param("event", "group_type = share", marks=pytest.mark.soak),
        pytest.param("event", "retry = in_order", marks=pytest.mark.soak),
        pytest.param("frame", "retry = topic", marks=pytest.mark.soak),
        pytest.param("frame", "group_type = share", marks=pytest.mark.soak),
    ],
)
def test_members_that_come_and_go_settle_all(
    home: KafkaHome, layout: str, setting: str, rounds: Rounds, figure: Figure
) -> None:
    """A frame that goes to another while it is half handed out comes again as a whole."""
    name, value = setting.split(" = ")
    settings = {"url": home.servers, "prefix": home.prefix, "layout": layout, name: value, "partitions": 4}
    count = rounds(1_000, 100_000)
    result = come_and_go(settings, count, start=None, config=at, patience=1, once=layout == "event")
    figure(f"members of a Kafka group come and go, layout = {layout}, {setting}", result)
