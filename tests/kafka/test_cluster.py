"""Three brokers, of which the leader of all partitions is killed, stands still, or hands on: nothing acknowledged is lost."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any, Literal

import pytest
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient

from cloud_runtimes import CloudRuntimesClient
from tests.kafka.test_faults import at
from tests.support import Figure, Rounds
from tests.support.kafka import KafkaServer, serve_cluster
from tests.support.needs import present
from tests.support.waiting import until

pytestmark = pytest.mark.soak

HARMS = ("killed", "stopped", "moved")


class Leaders:
    """Leaders of a topic's partitions."""

    def __init__(self, servers: list[KafkaServer], topic: str) -> None:
        self._admin: Any = AdminClient({"bootstrap.servers": ",".join(each.url for each in servers)})
        self._topic = topic

    def _partitions(self) -> dict[int, Any]:
        partitions: dict[int, Any] = self._admin.list_topics(self._topic, timeout=30).topics[self._topic].partitions
        return partitions

    def of(self, partition: int) -> int:
        """Return the number of the broker that leads one; -1: none."""
        leader: int = self._partitions()[partition].leader
        return leader

    def move(self) -> None:
        """Have the first replica of each partition lead it, as it did before others stood in for it."""
        until(lambda: all(len(each.isrs) == 3 for each in self._partitions().values()), seconds=60)
        those = [TopicPartition(self._topic, each) for each in self._partitions()]
        self._admin.elect_leaders(ElectionType.PREFERRED, those).result(30)


@pytest.mark.parametrize(
    ("setting", "value"), [("retry", "topic"), ("retry", "in_order"), ("group_type", "share")], ids=lambda each: each
)
def test_leaders_change(setting: str, value: str, rounds: Rounds, figure: Figure) -> None:
    chance = random.Random(7)
    seen: Counter[int] = Counter()
    order: dict[str | None, list[int]] = {}
    turns = rounds(1, 10) * len(HARMS)

    def handle(event: Any) -> None:
        if event.delivery_count == 1 and event.data % 50 == 0:
            event.retry(0.01)
            return
        seen[event.data] += 1
        order.setdefault(event.key, []).append(event.data)

    with ExitStack() as resources:
        servers = resources.enter_context(present(serve_cluster()))
        url = ",".join(each.url for each in servers)
        config = at({"url": url, "partitions": 3, setting: value})
        client = resources.enter_context(CloudRuntimesClient(app_id="suite", config=config, timeout=60))
        publisher = client.pubsub.publisher("bus", "t", batch_events=50, delivery_timeout=120)
        start: Literal["earliest"] | None = "earliest" if setting == "retry" else None
        sub = client.pubsub.subscribe("bus", "t", handle, start=start, workers=4)
        leaders = Leaders(servers, "t")
        sent = 0

        def publish(seconds: float) -> None:
            nonlocal sent
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(100):
                    publisher.send(sent, key=f"k{sent % 7}")
                    sent += 1
                time.sleep(0.02)

        for turn in range(turns):
            publish(chance.uniform(0.5, 2))
            leader = leaders.of(turn % 3)
            harm = HARMS[turn % len(HARMS)]
            if harm == "moved":
                leaders.move()
                publish(1)
                continue
            victim = servers[leader - 1]
            if harm == "killed":
                victim.kill()
            else:
                victim.signal(signal.SIGSTOP)
            publish(chance.uniform(2, 4))
            if harm == "killed":
                victim.begin()
            else:
                victim.signal(signal.SIGCONT)
            publisher.flush(120)
            if harm == "killed":
                victim.wait()
        publisher.close()
        until(lambda: len(seen) == sent, seconds=90)
        sub.close()
    assert set(seen) == set(range(sent))
    twice = sum(seen.values()) - len(seen)
    if value == "in_order":
        for key, offsets in order.items():
            first = list(dict.fromkeys(offsets))
            assert first == sorted(first), key
    figure(
        f"the leader of three Kafka brokers killed, stopped or moved, {setting} = {value}",
        f"{turns} times: {sent:,} events acknowledged, 0 absent; {twice:,} handled again",
    )
