"""An overview of 10,000 topics and 1,000 groups, and of a million dead letters: two seconds and 64 MiB."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.admin import Overview
from cloud_runtimes.pubsub import OutgoingEvent
from cloud_runtimes.testing.suites._base import Suite
from tests.support.harnesses.embedded import SqliteHarness
from tests.support.harnesses.kafka import KafkaHome
from tests.support.harnesses.nats import NATS
from tests.support.harnesses.postgres import POSTGRES
from tests.support.harnesses.rabbitmq import ManagedQueues
from tests.support.harnesses.redis import REDIS
from tests.support.harnesses.rows import rows
from tests.support.kafka import serve
from tests.support.waiting import until

TOPICS, GROUPS = 10_000, 1_000
LETTERS = 1_000_000
AT_ONCE = {"kafka": 8, "nats": 8}
"""Threads that make them, where a server bears no more."""


class LargeKafka(KafkaHome):
    """A broker of its own, with memory for so many topics."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._resources = ExitStack()
        super().__init__(self._resources.enter_context(serve(heap="2g")).url)

    def store(self, kind: str = "store") -> str:
        return "bus"

    def config(self) -> dict[str, Any]:
        return super().config() | {"pubsub": {"bus": self.table("bus")}}

    def make_topics(self, bus: str) -> None:
        """Make all topics together, since a client makes one at a time; wait until each can be written to."""
        admin: Any = AdminClient({"bootstrap.servers": self.servers})
        names = [f"{self.prefix}{bus}.t{number}" for number in range(TOPICS)]
        for start in range(0, TOPICS, 250):
            for made in admin.create_topics([NewTopic(name, 1) for name in names[start : start + 250]]).values():
                made.result(60)

        def leaders() -> int:
            topics = admin.list_topics(timeout=60).topics.values()
            return sum(part.leader >= 0 for topic in topics for part in topic.partitions.values())

        until(lambda: leaders() >= TOPICS, seconds=120)

    def close(self) -> None:
        super().close()
        self._resources.close()


@pytest.fixture(autouse=True)
def tracing() -> Iterator[None]:
    """End what `measured` begins once clients are closed: CPython may crash where a thread of librdkafka begins just then."""
    yield
    tracemalloc.stop()


@pytest.mark.soak
class TestSize(Suite):
    harness = rows(
        {SqliteHarness.name: SqliteHarness, LargeKafka.name: LargeKafka},
        postgres_url=POSTGRES,
        redis_server=REDIS,
        nats_server=NATS,
        managed_rabbitmq_url={ManagedQueues.name: ManagedQueues},
    )
    service = "pubsub"

    def test_an_overview_is_bounded(
        self, harness: Any, figure: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)  # where the other services are beside a broker
        client, bus = harness.client(), harness.store("pubsub")
        if isinstance(harness, LargeKafka):
            harness.make_topics(bus)
        with ThreadPoolExecutor(AT_ONCE.get(harness.name, 32)) as pool:
            list(pool.map(lambda number: client.pubsub.publish(bus, f"t{number}", number), range(TOPICS)))
            subscribe = client.pubsub.subscribe
            list(pool.map(lambda number: subscribe(bus, f"t{number}", group=f"g{number}").close(), range(GROUPS)))
            list(pool.map(lambda number: client.pubsub.publish(bus, f"t{number}", number), range(GROUPS)))
        what = f"overview of {TOPICS:,} topics and {GROUPS:,} groups, {harness.name}"
        found = measured(client, GROUPS, what, figure)
        assert (len(found.groups), found.omitted) == (GROUPS, 0)

    def test_an_overview_of_many_dead_letters(
        self, harness: Any, figure: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        client, bus = harness.client(), harness.store("pubsub")
        client.pubsub.subscribe(bus, "t", group="g", dead_letter_topic="t.dead").close()
        about = {"dlgroup": "g", "dltopic": "t", "dlreason": "deliveries", "dlerror": "ValueError: no price"}
        for start in range(0, LETTERS, 10_000):
            events = [OutgoingEvent(number, attributes=about) for number in range(start, start + 10_000)]
            client.pubsub.publish_bulk(bus, "t.dead", events, timeout=120)

        def told() -> list[int | None]:
            return [each.topic.events for each in client.admin.overview().dead_letters]

        assert until(lambda: told() == [LETTERS], seconds=60)  # a broker may count some seconds late
        measured(client, 10, f"overview of {LETTERS:,} dead letters, {harness.name}", figure)


def measured(client: CloudRuntimesClient, limit: int, what: str, figure: Callable[[str, str], None]) -> Overview:
    """Return an overview that took no more than two seconds and 64 MiB."""
    begun = time.monotonic()
    found = client.admin.overview(limit=limit)
    seconds = time.monotonic() - begun
    assert {each.error for each in found.components} <= {None}
    tracemalloc.start()
    client.admin.overview(limit=limit)
    _, most = tracemalloc.get_traced_memory()
    figure(what, f"{seconds:.2f} s, {most / 2**20:.0f} MiB")
    assert seconds < 2
    assert most < 64 * 2**20
    return found
