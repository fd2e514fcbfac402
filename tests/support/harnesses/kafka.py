"""Kafka as the component of pub/sub."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any, ClassVar

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from tests.support.harnesses.clients import RealTime, own_name

__all__ = [
    "KAFKA",
    "KAFKA_FRAMED",
    "KAFKA_PROMPT",
    "KAFKA_SHARED",
    "KAFKA_SHARED_STORM",
    "KAFKA_STORM",
    "KAFKA_THREE",
    "KafkaHome",
    "OrderedHome",
]


class KafkaHome(RealTime):
    """Topics with a prefix of their own on the test run's broker; a test may wait for ``longest`` seconds."""

    name = "kafka"
    server_kind, folder = "a Kafka broker", "kafka"
    event_metadata = False  # CloudEvents have no place for it
    moves_members = False  # members alone may commit
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.prefix = own_name() + "."
        self._stores = itertools.count()

    def store(self, kind: str = "store") -> str:
        return f"bus-{next(self._stores)}"

    def table(self, name: str, **more: Any) -> dict[str, Any]:
        """Return the configuration of a pub/sub name."""
        settings = {"servers": self.servers, "prefix": f"{self.prefix}{name}.", "ensure": "create"}
        return {"component": "kafka", **settings, **self.settings, **more}

    def config(self) -> dict[str, Any]:
        pubsub = {name: self.table(name) for name in (f"bus-{number}" for number in range(4))}
        return {"capa": {"home": f":memory:{self.prefix}"}, "pubsub": pubsub}


class OrderedHome(KafkaHome):
    """The same with events of a key in order, retries included."""

    name = "kafka-in-order"
    settings: ClassVar[dict[str, Any]] = {"retry": "in_order"}


class FramedHome(KafkaHome):
    """The same with many events a message."""

    name = "kafka-frames"
    settings: ClassVar[dict[str, Any]] = {"layout": "frame"}


class SharedHome(KafkaHome):
    """The same with topics of two partitions, to which events go one by one, so that members share few of them too."""

    name = "kafka-shared"
    bulk_order = False  # between partitions
    settings: ClassVar[dict[str, Any]] = {"partitions": 2, "options": {"sticky.partitioning.linger.ms": 0}}


class PromptHome(SharedHome):
    """The same, where members let go of partitions soon."""

    name = "kafka-prompt"
    settings: ClassVar[dict[str, Any]] = {**SharedHome.settings, "handover": 1}


class ShareHome(KafkaHome):
    """The same with share groups."""

    name = "kafka-share-group"
    settings: ClassVar[dict[str, Any]] = {"group_type": "share"}


class ShareGroupHome(ShareHome):
    """The same, with fewer partitions than members: what is published at once goes to one member, so a message is sent alone."""

    name = "kafka-share-group-shared"
    settings: ClassVar[dict[str, Any]] = {**ShareHome.settings, "options": {"batch.num.messages": 1}}


class _Storm(KafkaHome):
    """With somebody who joins each group and leaves it, again and again; what is read then is not committed."""

    def __init__(self, servers: str) -> None:
        super().__init__(servers)
        self.joined = 0
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch)]
        self._threads[0].start()

    def _watch(self) -> None:
        admin: Any = AdminClient({"bootstrap.servers": self.servers})
        known = set()
        while not self._over.wait(0.1):
            groups = {each.group_id for each in admin.list_consumer_groups().result(10).valid}
            for group in {each for each in groups if each.startswith(self.prefix)} - known:
                known.add(group)
                topics = set(admin.list_topics(timeout=10).topics)
                of = group[: len(self.prefix) + len("bus-0.")]
                those = [each for each in topics if each.startswith(of) and not each.endswith(".retry")]
                thread = threading.Thread(target=self._come_and_go, args=(group, [group] if group in topics else those))
                self._threads.append(thread)
                thread.start()

    def _come_and_go(self, group: str, topics: list[str]) -> None:
        settings = {"partition.assignment.strategy": "cooperative-sticky", "enable.auto.commit": False}
        while not self._over.is_set():
            consumer: Any = Consumer({"bootstrap.servers": self.servers, "group.id": group, "log_level": 0, **settings})
            consumer.subscribe(topics)
            end = time.monotonic() + 1
            while time.monotonic() < end and not self._over.is_set():
                consumer.poll(0.05)
            consumer.unsubscribe()
            while consumer.memberid() and time.monotonic() < end + 5:  # else it would leave without a word
                consumer.poll(0.01)
            consumer.close()
            self.joined += 1

    def close(self) -> None:
        super().close()
        self._over.set()
        for thread in self._threads:
            thread.join()
        was_short = time.monotonic() < self._begun + 5
        assert self.joined or was_short or len(self._threads) == 1, "nobody has joined a group"


class StormHome(_Storm):
    """A partition stays where it is, though its group begins anew."""

    name = "kafka-storm"


class OrderedStormHome(_Storm, OrderedHome):
    """The same with order by key."""

    name = "kafka-in-order-storm"


class SharedStormHome(_Storm, SharedHome):
    """A partition of two goes and comes back."""

    name = "kafka-shared-storm"


class ThreeHome(KafkaHome):
    """On three brokers."""

    name = "kafka-three"


class ShareThreeHome(ShareHome):
    """Share groups on three brokers."""

    name = "kafka-three-share-group"


KAFKA_STORM: dict[str, type[KafkaHome]] = {each.name: each for each in (StormHome, OrderedStormHome)}
KAFKA_THREE: dict[str, type[KafkaHome]] = {each.name: each for each in (ThreeHome, ShareThreeHome)}
KAFKA: dict[str, type[KafkaHome]] = {each.name: each for each in (KafkaHome, OrderedHome, ShareHome)}
KAFKA_FRAMED: dict[str, type[KafkaHome]] = {FramedHome.name: FramedHome}
KAFKA_PROMPT: dict[str, type[KafkaHome]] = {PromptHome.name: PromptHome}
KAFKA_SHARED: dict[str, type[KafkaHome]] = {each.name: each for each in (SharedHome, ShareGroupHome)}
KAFKA_SHARED_STORM: dict[str, type[KafkaHome]] = {SharedStormHome.name: SharedStormHome}
