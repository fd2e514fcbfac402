"""An overview of 10,000 topics and 1,000 groups, or as many as a broker of the tests bears, and of a million dead letters: two seconds and 64 MiB."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from tests.support.waiting import until

SIZES: dict[str, tuple[int, int]] = {"kafka": (2_000, 200), "nats": (10_000, 500)}
"""A NATS server allows 1,000 consumers of a stream, and a group has two."""
TOPICS, GROUPS = 10_000, 1_000
LETTERS = 1_000_000
AT_ONCE = {"kafka": 8, "nats": 8}
"""Threads that make them, where a server bears no more."""


def _make_topics(harness: KafkaHome, bus: str, count: int) -> None:
    """Make topics together, since a client looks at all of them before it makes one."""
    admin: Any = AdminClient({"bootstrap.servers": harness.servers})
    names = [f"{harness.prefix}{bus}.t{number}" for number in range(count)]
    for start in range(0, count, 250):
        for made in admin.create_topics([NewTopic(name, 1) for name in names[start : start + 250]]).values():
            made.result(60)


@pytest.mark.soak
class TestSize(Suite):
    harness = rows(
        {SqliteHarness.name: SqliteHarness},
        postgres_url=POSTGRES,
        redis_server=REDIS,
        nats_server=NATS,
        kafka_servers={KafkaHome.name: KafkaHome},
        managed_rabbitmq_url={ManagedQueues.name: ManagedQueues},
    )
    service = "pubsub"

    def test_an_overview_is_bounded(
        self, harness: Any, figure: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)  # where the other services are beside a broker
        client, bus = harness.client(), harness.store("pubsub")
        topics, groups = SIZES.get(harness.name, (TOPICS, GROUPS))
        if isinstance(harness, KafkaHome):
            _make_topics(harness, bus, topics)
        with ThreadPoolExecutor(AT_ONCE.get(harness.name, 32)) as pool:
            list(pool.map(lambda number: client.pubsub.publish(bus, f"t{number}", number), range(topics)))
            subscribe = client.pubsub.subscribe
            list(pool.map(lambda number: subscribe(bus, f"t{number}", group=f"g{number}").close(), range(groups)))
            list(pool.map(lambda number: client.pubsub.publish(bus, f"t{number}", number), range(groups)))
        what = f"overview of {topics:,} topics and {groups:,} groups, {harness.name}"
        found = measured(client, groups, what, figure)
        assert (len(found.groups), found.omitted) == (groups, 0)

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
    tracemalloc.stop()
    figure(what, f"{seconds:.2f} s, {most / 2**20:.0f} MiB")
    assert seconds < 2
    assert most < 64 * 2**20
    return found
