"""Configurations of a store on one engine and events on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.harnesses.etcd import EtcdHome
from tests.support.harnesses.kafka import KafkaHome
from tests.support.harnesses.nats import NatsHome
from tests.support.harnesses.postgres import PostgresHome
from tests.support.harnesses.rabbitmq import RabbitHome, StreamHome
from tests.support.harnesses.redis import RedisHome

__all__ = ["pair"]

_HOMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "redis": ("redis_server", RedisHome),
    "nats": ("nats_server", NatsHome),
    "postgres": ("postgres_url", PostgresHome),
    "etcd": ("etcd_server", EtcdHome),
    "rabbitmq": ("rabbitmq_url", RabbitHome),
    "rabbitmq-stream": ("rabbitmq_url", StreamHome),
    "kafka": ("kafka_servers", KafkaHome),
}


@contextmanager
def pair(request: pytest.FixtureRequest, folder: Path, engines: str) -> Iterator[dict[str, Any]]:
    """Give the state component ``orders`` on the first of two engines and the pub/sub component ``bus`` on the second.

    ``sqlite`` is the home; as the second one behind ``sqlite`` it is another home.
    """
    config: dict[str, Any] = {"capa": {"home": str(folder / "home")}}
    with ExitStack() as stack:
        for service, name, engine in zip(("state", "pubsub"), ("orders", "bus"), engines.split(), strict=True):
            if engine != "sqlite":
                fixture, make = _HOMES[engine]
                harness = make(request.getfixturevalue(fixture))
                stack.callback(harness.close)
                config[service] = {name: _table(harness, engine, name)}
            elif engines == "sqlite sqlite" and service == "pubsub":
                config[service] = {name: {"component": "sqlite", "home": str(folder / "other")}}
        yield config


def _table(harness: Any, engine: str, name: str) -> dict[str, Any]:
    if engine == "kafka":
        table: dict[str, Any] = harness.table(name, session_timeout=6)
        return table
    home = harness.config()["capa"]["home"]
    return {"component": engine.partition("-")[0], **(home if isinstance(home, dict) else {"url": home})}
