"""Producers, consumers and the broker are killed, their network parted, the broker harmed, members come and go: what was acknowledged is there, and comes at least once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
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
    CloudRuntimesError,
    DeadlineExceededError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from cloud_runtimes.testing import Api, AsyncApi, SyncApi
from tests.support import PEM, STRANGER
from tests.support.fault_proxy import FaultProxy, Way
from tests.support.harnesses.kafka import KafkaHome
from tests.support.kafka import PASSWORD, USER, KafkaServer, Missing, serve, stopped
from tests.support.loss import KILLS, come_and_go, dead, kill_all, outlast, slow
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
    with ExitStack() as resources:
        try:
            yield resources.enter_context(serve(proxied=True, group_min_session_timeout_ms=1000, **ACLS))
        except Missing as error:
            pytest.skip(str(error))


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


@pytest.mark.soak
@pytest.mark.parametrize("retry", ["topic", "in_order"])
@pytest.mark.parametrize("instance", ["one", None])
def test_nothing_acknowledged_is_lost(
    server: KafkaServer,
    retry: str,
    instance: str | None,
    rounds: Callable[[int, int], int],
    figure: Callable[[str, str], None],
    tmp_path: Path,
) -> None:
    """With a name, a consumer takes the place of the one that was killed; without, that must be noticed first."""
    more = {"prefix": f"{retry}-{instance}.", "retry": retry, "instance": instance, "session_timeout": 6}
    found = kill_all(server, rounds(1, 30), tmp_path, more, None, None, at, server.proxy, patience=20)
    figure(f"{KILLS}, Kafka with retry = {retry}, {'static' if instance else 'dynamic'} membership", found)


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_in_a_share_group(
    server: KafkaServer, rounds: Callable[[int, int], int], figure: Callable[[str, str], None], tmp_path: Path
) -> None:
    """What a dead member had comes again once its connection or its lock ends."""
    more = {"prefix": "share.", "group_type": "share", "session_timeout": 6}
    found = kill_all(server, rounds(1, 30), tmp_path, more, None, None, at, server.proxy, patience=40)
    figure(f"{KILLS}, Kafka with group_type = share", found)


def test_publishers_outlast(server: KafkaServer, rounds: Callable[[int, int], int]) -> None:
    """A broker that is slow, hung or dead. In CI each harm is tried with one API."""
    with ExitStack() as resources:
        apis = [SyncApi(), AsyncApi()]
        for api in apis:
            resources.callback(api.close)
        for number, (does, kind, match) in enumerate(HARMS):
            for turn in range(rounds(1, 2)):
                with client(server, f"{does.__name__}-{turn}") as made:
                    outlast(made, apis[(number + turn) % 2], does(server, proxy(server)), kind, match)


def test_logins_by_scram_over_tls(server: KafkaServer, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password, certificate or kind of connection is named, and shown to nobody."""
    url = {"url": server.secure, "prefix": f"secure-{api.name}."}
    login = {**url, "username": USER, "password": PASSWORD}
    trusted = {"tls": True, "tls_ca": str(PEM)}
    with CloudRuntimesClient(config=at({**login, **trusted})) as client:
        with api.opened(client.pubsub.subscribe("bus", "t", group="g", start="earliest")) as sub:
            api.call(client.pubsub, "publish", "bus", "t", {"n": 1})
            event = api.call(sub, "receive", 30)
            assert event.data == {"n": 1}
            event.ack()
            place = (f"{url['prefix']}t", ResourcePatternType.LITERAL, f"User:{USER}", "*")
            denied = AclBinding(ResourceType.TOPIC, *place, AclOperation.READ, AclPermissionType.DENY)
            admin: Any = AdminClient({"bootstrap.servers": server.url})
            for made in admin.create_acls([denied]).values():
                made.result(30)
            api.fails(PermissionDeniedError, match="no rights to the topic 'secure-")(sub, "receive", 30)
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
    with client(server, "leaves") as made:
        sub = made.pubsub.subscribe("bus", "t", start="earliest")
        made.pubsub.publish("bus", "t", 1)
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
        with made.pubsub.subscribe("bus", "t") as sub:
            made.pubsub.publish("bus", "t", 2)
            until(lambda: sub.receive(60).data == 2)


@pytest.mark.soak
def test_a_broker_that_is_away(server: KafkaServer) -> None:
    """A publisher waits for longer than an attempt, and repeats nothing that was not on its way."""
    with client(server, "away") as made:
        made.pubsub.publish("bus", "t", -1)
        with made.pubsub.subscribe("bus", "t") as sub, made.pubsub.publisher("bus", "t") as publisher:
            assert sub.receive(20) is not None
            proxy(server).gone()
            error = SyncApi().fails(CloudRuntimesError)(made.pubsub, "publish", "bus", "t", -2, timeout=0.5)
            for number in range(1000):
                publisher.send(number)
            time.sleep(2.5)
            proxy(server).back()
            publisher.flush(30)
            found = []
            while (event := sub.receive(20 if len(found) < 1000 else 0.5)) is not None:
                found.append(event.data)
                event.ack()
    assert set(found) - {-2} == set(range(1000))
    assert len(found) <= 1001 + 1000 * (not error.maybe_applied)


def test_connections_are_cut_amid_a_batch(
    server: KafkaServer, rounds: Callable[[int, int], int], figure: Callable[[str, str], None]
) -> None:
    """After some bytes of a batch, or of its answer: what was acknowledged comes, and nothing twice that was sent twice."""
    chance = random.Random(7)
    count = rounds(1_000, 200_000)
    seen: Counter[int] = Counter()
    with client(server, "cut") as made, made.pubsub.publisher("bus", "t", batch_events=100) as publisher:
        with made.pubsub.subscribe("bus", "t", lambda event: seen.update([event.data]), start="earliest"):
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
    home: KafkaHome,
    layout: str,
    setting: str,
    rounds: Callable[[int, int], int],
    figure: Callable[[str, str], None],
) -> None:
    """A frame that goes to another while it is half handed out comes again as a whole."""
    name, value = setting.split(" = ")
    settings = {"url": home.servers, "prefix": home.prefix, "layout": layout, name: value, "partitions": 4}
    count = rounds(1_000, 100_000)
    found = come_and_go(settings, count, start=None, config=at, patience=1, once=layout == "event")
    figure(f"members of a Kafka group come and go, layout = {layout}, {setting}", found)
