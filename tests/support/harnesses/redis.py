"""Redis and Valkey as the component of every service they have, with a clock of the server that a test sets forward."""

from __future__ import annotations

import itertools
import os
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.testing import Harness
from tests.support.redis import RedisServer
from tests.support.redis_sets import RedisCluster

__all__ = ["CLUSTER", "FRAMED", "REDIS", "REDIS8", "VALKEY", "ClusterHome", "RedisHome"]

_numbers = itertools.count(1)


class RedisHome(Harness):
    """A prefix of its own on the test run's server."""

    name = "redis"
    event_metadata = False  # CloudEvents have no place for it
    layout = "event"

    def __init__(self, server: RedisServer | RedisCluster) -> None:
        self.server = server
        self.prefix = f"home-{os.getpid()}-{next(_numbers)}"
        self._clients: list[CloudRuntimesClient] = []

    def client(self, **arguments: Any) -> CloudRuntimesClient:
        arguments.setdefault("app_id", "suite")
        home = {"url": self.server.url, "prefix": self.prefix, "layout": self.layout}
        client = CloudRuntimesClient(config={"capa": {"home": home}}, **arguments)
        self._clients.append(client)
        return client

    def advance(self, seconds: float) -> None:
        self.server.advance(seconds)
        # runners sleep until something is due; they have slept so long now
        self.server.command("PUBLISH", f"{self.prefix}:schedule:suite", "")

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.reset()


class ValkeyHome(RedisHome):
    """The same on Valkey."""

    name = "valkey"


class FramedHome(ValkeyHome):
    """The same with many events a message."""

    name = "valkey-frame"
    event_metadata = True
    layout = "frame"


class ClusterHome(ValkeyHome):
    """The same on a cluster."""

    name = "valkey-cluster"


class Redis8Home(RedisHome):
    """The same on the newest Redis."""

    name = "redis8"


REDIS: dict[str, type[RedisHome]] = {RedisHome.name: RedisHome}
VALKEY: dict[str, type[RedisHome]] = {ValkeyHome.name: ValkeyHome}
FRAMED: dict[str, type[RedisHome]] = {FramedHome.name: FramedHome}
REDIS8: dict[str, type[RedisHome]] = {Redis8Home.name: Redis8Home}
CLUSTER: dict[str, type[RedisHome]] = {ClusterHome.name: ClusterHome}
