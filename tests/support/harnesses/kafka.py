"""Kafka as the component of pub/sub."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, ClassVar

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness

__all__ = ["KAFKA", "KAFKA_SHARED", "KafkaHome", "OrderedHome"]

_numbers = itertools.count(1)


class KafkaHome(Harness):
    """Topics with a prefix of their own on the test run's broker; a test may wait for ``longest`` seconds."""

    name = "kafka"
    event_metadata = False  # CloudEvents have no place for it
    longest = 1.0
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.prefix = f"home-{os.getpid()}-{next(_numbers)}."
        self._clients: list[CloudRuntimesClient] = []
        self._stores = itertools.count()

    def store(self, kind: str = "store") -> str:
        return f"bus-{next(self._stores)}"

    def table(self, name: str, **more: Any) -> dict[str, Any]:
        """Return the configuration of a pub/sub name."""
        settings = {"servers": self.servers, "prefix": f"{self.prefix}{name}.", "ensure": "create"}
        return {"component": "kafka", **settings, **self.settings, **more}

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        config = {"pubsub": {name: self.table(name) for name in (f"bus-{number}" for number in range(4))}}
        client = CloudRuntimesClient(config=config, **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        if seconds > self.longest:
            pytest.skip(f"the clock of a Kafka broker cannot be set, and {seconds:g} s are long: see tests/kafka")
        time.sleep(seconds)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class OrderedHome(KafkaHome):
    """The same with events of a key in order, retries included."""

    name = "kafka-in-order"
    settings: ClassVar[dict[str, Any]] = {"retry": "in_order"}


class SharedHome(KafkaHome):
    """The same with topics of two partitions, to which events go one by one, so that members share few of them too."""

    name = "kafka-shared"
    bulk_order = False  # between partitions
    settings: ClassVar[dict[str, Any]] = {"partitions": 2, "options": {"sticky.partitioning.linger.ms": 0}}


KAFKA: dict[str, type[KafkaHome]] = {each.name: each for each in (KafkaHome, OrderedHome)}
KAFKA_SHARED: dict[str, type[KafkaHome]] = {SharedHome.name: SharedHome}
