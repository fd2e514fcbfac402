"""Kafka brokers for tests: a folder, free ports; alone, or several of one cluster. ``KAFKA_LIBS`` names the folder of the jars."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support import PEM
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import reserved_port
from tests.support.servers import Missing, Server, stopped

__all__ = ["HOLDER", "PASSWORD", "USER", "KafkaServer", "Missing", "serve", "serve_cluster", "stopped", "taken"]

USER, PASSWORD = "app", "s3cret"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"

_DEFAULT = Path.home() / ".cache" / "cloud-runtimes-kafka"
"""Where ``.ci/kafka`` puts the jars."""


def _classes() -> str:
    folder = Path(os.environ.get("KAFKA_LIBS", _DEFAULT))
    if shutil.which("java") is None or not list(folder.glob("kafka-clients-*.jar")):
        raise Missing("Kafka is not installed: install Java 17 and Maven, and run .ci/kafka")
    return f"{folder}/*"


HOLDER = """
import json, sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="suite", config={"pubsub": {"bus": json.loads(sys.argv[1])}})
with client.pubsub.subscribe("bus", "t") as sub:
    events = [sub.receive(20) for _ in range(10)]
    for event in events[1::2]:
        event.ack()
    sub.receive(1)
    print("held", flush=True)
    sub.receive(100)
"""
"""A program that takes ten events of the table that it is given, settles every second one, and says so."""


class KafkaServer(Server):
    """A broker that is a controller too.

    Attributes:
        url: its address, for clients: they call it servers.
        proxy: to which it sends clients and other brokers, if it is ``proxied``.
        secure: its address for logins by SCRAM over TLS, as `USER` with `PASSWORD`.
    """

    def __init__(
        self,
        resources: ExitStack,
        number: int,
        controllers: list[int],
        options: dict[str, Any],
        *,
        proxied: bool,
        heap: str,
    ) -> None:
        super().__init__(resources, "kafka")
        self.url = f"127.0.0.1:{self.port}"
        self.proxy = resources.enter_context(FaultProxy(self.port)) if proxied else None
        count = len(controllers)
        self._starts = 0
        self._java = ("java", f"-Xmx{heap}", *_SMALL, "-cp", _classes())
        secure = resources.enter_context(reserved_port())
        self.secure = f"localhost:{secure}"
        self.controller = controllers[number]
        self._options = {
            "process.roles": "broker,controller",
            "node.id": number + 1,
            "controller.quorum.voters": ",".join(f"{n + 1}@127.0.0.1:{port}" for n, port in enumerate(controllers)),
            "listeners": f"CLIENTS://127.0.0.1:{self.port},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{self.controller}",
            "advertised.listeners": f"CLIENTS://127.0.0.1:{self.proxy.port if self.proxy else self.port},SECURE://{self.secure}",
            "inter.broker.listener.name": "CLIENTS",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:PLAINTEXT,SECURE:SASL_SSL",
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": PEM,
            "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
            "log.dirs": self.folder / "data",
            "offsets.topic.replication.factor": count,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": count,
            "transaction.state.log.min.isr": 1,
            "default.replication.factor": count,
            "min.insync.replicas": min(count, 2),
            "group.initial.rebalance.delay.ms": 0,
            "share.coordinator.state.topic.replication.factor": count,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "group.share.min.heartbeat.interval.ms": 100,
            "group.share.heartbeat.interval.ms": 100,  # by which members of a share group get their partitions
            "group.share.min.assignment.interval.ms": 0,
            "group.share.assignment.interval.ms": 0,
            "group.share.min.record.lock.duration.ms": 1000,
            "broker.session.timeout.ms": 1500,  # so long a broker that was killed cannot come back
            "broker.heartbeat.interval.ms": 500,
            "auto.create.topics.enable": "false",
            **options,
        }

    def start(self) -> None:
        """Start it, on the data that is there."""
        self.begin()
        self.wait()

    def format(self, cluster: str, features: Sequence[str] = ()) -> None:
        """Make its folder that of a cluster, which has ``features`` at other levels than the newest."""
        text = "".join(f"{name}={value}\n" for name, value in self._options.items())
        (self.folder / "server.properties").write_text(text)
        user = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        command = [*self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "-S", user]
        command += [part for each in features for part in ("-f", each)]
        subprocess.run([*command, "-c", self.folder / "server.properties"], check=True, capture_output=True)

    def begin(self) -> None:
        """Start it without waiting."""
        self._starts += 1
        self.spawn(*self._java, "kafka.Kafka", self.folder / "server.properties")

    def wait(self) -> None:
        """Wait until it answers."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        seconds = 0.5

        def ready() -> bool:
            """Ask by a new client, since one whose answer came too late asks where the broker sends clients: its proxy may let nobody through."""
            nonlocal seconds
            client: Any = AdminClient({"bootstrap.servers": self.url, "log_level": 0})
            try:
                return bool(client.list_topics(timeout=seconds).brokers)
            except KafkaException:
                seconds = min(5.0, 1.2 * seconds)
                return False

        self.wait_until(ready, 240)


_SMALL = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


@contextmanager
def serve(
    *, proxied: bool = False, features: Sequence[str] = (), heap: str = "320m", **options: Any
) -> Iterator[KafkaServer]:
    """Run a broker until the block ends; ``options`` are its properties, with ``_`` for ``.``. ``features``: see `KafkaServer.format`."""
    with serve_cluster(1, proxied=proxied, features=features, heap=heap, **options) as (server,):
        yield server


@contextmanager
def serve_cluster(
    count: int = 3, *, proxied: bool = False, features: Sequence[str] = (), heap: str = "320m", **options: Any
) -> Iterator[list[KafkaServer]]:
    """Run brokers of one cluster until the block ends."""
    _classes()
    # behind a letter, since StorageTool takes what begins with a hyphen for an option
    cluster = base64.urlsafe_b64encode(b"\1" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    given = {name.replace("_", "."): value for name, value in options.items()}
    with ExitStack() as resources:
        controllers = [resources.enter_context(reserved_port()) for _ in range(count)]
        servers = [
            KafkaServer(resources, number, controllers, given, proxied=proxied, heap=heap) for number in range(count)
        ]
        for server in servers:
            server.format(cluster, features)
            server.begin()
        for server in servers:
            server.wait()
        yield servers


def taken(sub: Any, count: int) -> list[Any]:
    """Receive and acknowledge so many events."""
    events = []
    while len(events) < count:
        event = sub.receive(60)
        assert event is not None, f"only {events}"
        event.ack()
        events.append(event)
    return events
