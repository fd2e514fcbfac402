"""Odd messages of a neighbour, on every broker: none of them stops a group, counts are kept, and what cannot be read becomes a dead letter."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.components.nats.protocol import Session
from cloud_runtimes.components.redis.resp import NOTHING, pack, reader
from cloud_runtimes.pubsub import Event
from tests.support import Figure
from tests.support.odd_messages import LATER, ODD, Odd
from tests.support.waiting import until

SOON = 60.0


class _Redis:
    """Another program on Redis."""

    names = {"due": "due", "past": "past", "topic": "topic", "content-type": "datacontenttype"}  # noqa: RUF012

    def __init__(self, request: pytest.FixtureRequest) -> None:
        from tests.support.harnesses.redis import RedisHome

        self.home = RedisHome(request.getfixturevalue("valkey_server"))
        self.key = f"{{{self.home.prefix}:pubsub:bus}}:topic:t"
        self._replies = reader()
        self._socket = socket.create_connection(("127.0.0.1", self.home.server.port), 5)  # type: ignore[union-attr]

    def send(self, odd: Odd) -> None:
        fields: list[Any] = ["data", odd.data]
        for name, value in odd.headers.items():
            fields += [self.names.get(name, name), value]
        self._socket.sendall(pack(["XADD", self.key, "*", *fields]))
        while (reply := self._replies.gets()) is NOTHING:
            self._replies.feed(self._socket.recv(4096))
        assert isinstance(reply, bytes), reply

    def close(self) -> None:
        self._socket.close()
        self.home.close()


class _Nats:
    """Another program on NATS."""

    names = {"due": "Cr-Due", "past": "Cr-Past", "topic": "Cr-Topic", "content-type": "Content-Type"}  # noqa: RUF012

    def __init__(self, request: pytest.FixtureRequest) -> None:
        from tests.support.harnesses.nats import NatsHome

        self.home = NatsHome(request.getfixturevalue("nats_server"))
        self._session = Session()
        self._socket = socket.create_connection(("127.0.0.1", self.home.server.port), 5)
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')

    def send(self, odd: Odd) -> None:
        subject = f"{self.home.prefix}.bus.t.t".encode()
        lines = [
            self.names.get(name, name.replace(":", "-")).encode() + b": " + value for name, value in odd.headers.items()
        ]
        head = b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" if lines else b""
        sizes = b"%d %d" % (len(head), len(head) + len(odd.data)) if head else b"%d" % len(odd.data)
        verb = b"HPUB" if head else b"PUB"
        self._socket.sendall(b"%b %b %b\r\n%b%b\r\nPING\r\n" % (verb, subject, sizes, head, odd.data))
        pongs = self._session.pongs
        while self._session.pongs == pongs:
            self._session.feed(self._socket.recv(1 << 16))
        assert self._session.error is None, self._session.error

    def close(self) -> None:
        self._socket.close()
        self.home.close()


class _Rabbitmq:
    """Another program on RabbitMQ."""

    names = {"due": "x-cr-rest", "past": "x-cr-past", "topic": "x-cr-topic"}  # noqa: RUF012

    def __init__(self, request: pytest.FixtureRequest) -> None:
        from tests.support.harnesses.rabbitmq import RabbitHome

        self._pika: Any = pytest.importorskip("pika")
        self.home = RabbitHome(request.getfixturevalue("rabbitmq_url"))
        self.home.home["prefix"] = self.home.prefix
        self._connection = self._pika.BlockingConnection(self._pika.URLParameters(self.home.url))
        self._channel = self._connection.channel()

    def send(self, odd: Odd) -> None:
        headers = {
            self.names.get(name, name.replace("ce:", "cloudEvents:")): value
            for name, value in odd.headers.items()
            if name != "content-type"
        }
        kind = odd.headers.get("content-type")
        about = self._pika.BasicProperties(
            content_type=None if kind is None else kind.decode("latin-1"), headers=headers or None
        )
        self._channel.basic_publish(f"{self.home.prefix}t", "", odd.data, about)

    def more(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield headers that only this broker has."""
        for what in (7, 2**62, {"a": 1}, [1, [2]], True, None):
            for name in ("x-cr-topic", "x-cr-past", "x-delivery-count", "cloudEvents:time"):
                if (name, what) != ("x-delivery-count", 7):  # which is what the broker itself writes
                    yield f"{name} of {what!r}", {name: what, "cloudEvents:specversion": "1.0"}

    def publish(self, headers: dict[str, Any]) -> None:
        self._channel.basic_publish(f"{self.home.prefix}t", "", b"x", self._pika.BasicProperties(headers=headers))

    def close(self) -> None:
        self._connection.close()
        self.home.close()


class _Kafka:
    """Another program on Kafka."""

    names = {"due": "cr-due", "past": "cr-past", "topic": "cr-topic"}  # noqa: RUF012

    def __init__(self, request: pytest.FixtureRequest) -> None:
        from confluent_kafka import Producer

        from tests.support.harnesses.kafka import KafkaHome

        self.home = KafkaHome(request.getfixturevalue("kafka_servers"))
        self.home.client = self._client  # type: ignore[method-assign]
        self._producer: Any = Producer({"bootstrap.servers": self.home.servers})

    def _client(self, **arguments: Any) -> CloudRuntimesClient:
        client = CloudRuntimesClient(app_id="suite", config={"pubsub": {"bus": self.home.table("bus")}}, **arguments)
        self.home._clients.append(client)
        return client

    def send(self, odd: Odd) -> None:
        headers = [(self.names.get(name, name.replace(":", "_")), value) for name, value in odd.headers.items()]
        self._producer.produce(f"{self.home.prefix}bus.t", odd.data, headers=headers)
        assert self._producer.flush(30) == 0

    def close(self) -> None:
        self.home.close()


NEIGHBOURS: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "redis": _Redis,
    "nats": _Nats,
    "rabbitmq": _Rabbitmq,
    "kafka": _Kafka,
}


@pytest.fixture(params=NEIGHBOURS)
def neighbour(request: pytest.FixtureRequest) -> Iterator[Any]:
    harness = NEIGHBOURS[request.param](request)
    yield harness
    harness.close()


class _Group:
    """A subscription with a handler that notes what it gets."""

    def __init__(self, client: CloudRuntimesClient, topic: str = "t", **options: Any) -> None:
        self.client = client
        self.seen: list[Event[Any]] = []
        self._changed = threading.Condition()
        client.pubsub.subscribe("bus", topic, self._handle, **options)

    def _handle(self, event: Event[Any]) -> None:
        with self._changed:
            self.seen.append(event)
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, SOON), len(self.seen)


def test_a_good_message_follows_each(neighbour: Any, request: pytest.FixtureRequest, figure: Figure) -> None:
    group = _Group(neighbour.home.client(), dead_letter_topic="dead", max_deliveries=3)
    group.client.pubsub.publish("bus", "t", "first")
    group.wait(1)
    longest = 0.0

    def good(send: Callable[[], None], what: str) -> None:
        nonlocal longest
        before = len(group.seen)
        send()
        begin = time.monotonic()
        group.client.pubsub.publish("bus", "t", what)
        group.wait(before + 2)
        longest = max(longest, time.monotonic() - begin)
        assert {event.data for event in group.seen[before:] if event.content_type == "application/json"} >= {what}

    for odd in ODD:
        good(lambda odd=odd: neighbour.send(odd), odd.name)  # type: ignore[misc]
    for name, headers in getattr(neighbour, "more", lambda: ())():
        good(lambda headers=headers: neighbour.publish(headers), name)  # type: ignore[misc]
    assert all(event.delivery_count is None or event.delivery_count >= 1 for event in group.seen)
    figure(f"odd messages: a good one after each of {len(ODD)}, {request.node.callspec.id}", f"longest {longest:.2f} s")
    if request.config.getoption("--soak"):
        assert longest < 1.0


def test_a_frame_of_a_later_version_becomes_a_dead_letter(neighbour: Any) -> None:
    client = neighbour.home.client()
    letters = _Group(client, "dead")
    group = _Group(client, dead_letter_topic="dead")
    neighbour.send(Odd("later", LATER, {}))
    client.pubsub.publish("bus", "t", "good")
    group.wait(1)
    letters.wait(1)
    assert [event.data for event in group.seen] == ["good"]
    (letter,) = letters.seen
    assert letter.data == LATER
    extensions = {name: letter.extensions[name] for name in ("dlreason", "dlcount", "dltopic", "dlgroup")}
    assert extensions == {"dlreason": "undecodable", "dlcount": 1, "dltopic": "t", "dlgroup": "suite"}
    assert "version 2" in str(letter.extensions["dlerror"])


def test_a_frame_of_a_later_version_is_tried_again_and_then_told(
    neighbour: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = neighbour.home.client()
    group = _Group(client, max_deliveries=2)
    neighbour.send(Odd("later", LATER, {}))
    client.pubsub.publish("bus", "t", "good")
    group.wait(1)
    until(lambda: "1 events are lost, since they cannot be read" in caplog.text)
    assert caplog.text.count("is tried again") == 1
    assert [event.data for event in group.seen] == ["good"]


# -- what runs applications ---------------------------------------------------


@pytest.fixture
def redis(request: pytest.FixtureRequest) -> Iterator[_Redis]:
    harness = _Redis(request)
    yield harness
    harness.close()


def test_the_sidecar_goes_on(redis: _Redis) -> None:
    from cloud_runtimes.dapr_server import Sidecar, SidecarSettings

    settings = SidecarSettings(app_id="suite", http_port=0, grpc_port=0)
    with Sidecar(redis.home.client(), settings) as sidecar:
        with CloudRuntimesClient(f"grpc://{sidecar.grpc_address}", app_id="suite") as client:
            group = _Group(client)
            for odd in (ODD[0], ODD[1], Odd("later", LATER, {}), Odd("empty type", b"x", {"content-type": b""})):
                redis.send(odd)
            client.pubsub.publish("bus", "t", "good")
            group.wait(1)
            assert [event.data for event in group.seen] == ["good"]  # Dapr drops what is no CloudEvent


@pytest.mark.process
def test_the_command_goes_on(redis: _Redis, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION, encoding="utf-8")
    home = {"url": redis.home.url, "prefix": redis.home.prefix}
    (tmp_path / "cloud-runtimes.json").write_text(json.dumps({"capa": {"home": home}}), encoding="utf-8")
    command = [sys.executable, "-m", "cloud_runtimes", "--config", "cloud-runtimes.json", "--app-id", "suite"]
    process = subprocess.Popen([*command, "run", "shop:client", "--workers", "2"], cwd=tmp_path)
    try:
        for odd in (ODD[0], ODD[1], Odd("later", LATER, {}), Odd("empty type", b"x", {"content-type": b""})):
            redis.send(odd)
        client = redis.home.client()
        client.pubsub.publish("bus", "t", "good")
        client.pubsub.publish("bus", "u", "good")
        until(lambda: client.state.get("seen", "t") and client.state.get("seen", "u"))
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


APPLICATION = """
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event

client = CloudRuntimesClient()

@client.pubsub.subscription("bus", "t")
def odd(event: Event) -> None:
    if event.data == "good":
        client.state.save("seen", "t", True)

@client.pubsub.subscription("bus", "u")
def healthy(event: Event) -> None:
    client.state.save("seen", "u", True)
"""
