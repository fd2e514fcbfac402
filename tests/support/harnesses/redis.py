"""Redis and Valkey as the component of every service they have, with a clock of the server that a test sets forward."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tests.support.harnesses.clients import Clients, own_name
from tests.support.redis import RedisServer
from tests.support.redis_sets import RedisCluster

__all__ = ["CLUSTER", "FRAMED", "IN_DAPRS", "REDIS", "REDIS8", "VALKEY", "ClusterHome", "RedisHome"]


class RedisHome(Clients):
    """A prefix of its own on the test run's server."""

    name = "redis"
    event_metadata = False  # CloudEvents have no place for it
    layout = "event"
    more: Mapping[str, str] = MappingProxyType({})

    def __init__(self, server: RedisServer | RedisCluster) -> None:
        self.server = server
        self.url = server.url
        self.prefix = own_name()

    def config(self) -> dict[str, Any]:
        home = {"url": self.url, "prefix": self.prefix, "layout": self.layout, **self.more}
        return {"capa": {"home": home}}

    def advance(self, seconds: float) -> None:
        self.server.advance(seconds)
        # runners sleep until something is due; they have slept so long now
        self.server.command("PUBLISH", f"{self.prefix}:schedule:suite", "")

    def close(self) -> None:
        super().close()
        self.server.reset()


class ValkeyHome(RedisHome):
    """The same on Valkey."""

    name = "valkey"


class FramedHome(ValkeyHome):
    """The same with many events a message."""

    name = "valkey-frame"
    event_metadata = True
    layout = "frame"


class DaprHome(ValkeyHome):
    """The same in Dapr's own layout, in a database of its own, since keys have no prefix; stores are apart by their names."""

    name = "valkey-dapr"
    event_metadata = True
    layout = "dapr"
    more = MappingProxyType({"key_prefix": "name"})

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server)
        self.url = server.url.removesuffix("/0") + "/9"
        server.command("FLUSHDB", database=9)


class ClusterHome(ValkeyHome):
    """The same on a cluster."""

    name = "valkey-cluster"


class Redis8Home(RedisHome):
    """The same on the newest Redis."""

    name = "redis8"


REDIS: dict[str, type[RedisHome]] = {RedisHome.name: RedisHome}
VALKEY: dict[str, type[RedisHome]] = {ValkeyHome.name: ValkeyHome}
FRAMED: dict[str, type[RedisHome]] = {FramedHome.name: FramedHome}
IN_DAPRS: dict[str, type[RedisHome]] = {DaprHome.name: DaprHome}
REDIS8: dict[str, type[RedisHome]] = {Redis8Home.name: Redis8Home}
CLUSTER: dict[str, type[RedisHome]] = {ClusterHome.name: ClusterHome}
