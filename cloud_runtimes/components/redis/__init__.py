"""Redis and Valkey: a home for many machines, in memory. One server, or those of a Sentinel or a cluster, for all services but databases, files and secrets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..._core.extras import importing
from ..._core.logs import once
from ...errors import UnsupportedError
from .._net.engines import EngineComponent
from .settings import SCHEMES, RedisSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .engine import RedisEngine

__all__ = ["RedisComponent", "RedisSettings", "component"]

_DAPR: Final = {"pubsub": "DaprPubSub", "state": "DaprState"}
"""Drivers for ``layout = "dapr"``."""
_NOT_DAPR: Final = {
    "configuration": "Dapr's are values that anybody sets, without changes to subscribe to",
    "lock": "Dapr's have no token, no queue and no renewal",
}


class RedisComponent(EngineComponent["RedisEngine"]):
    """Drivers over shared servers."""

    name = "redis"
    Settings = RedisSettings
    engine_class = ("engine", "RedisEngine")
    drivers: ClassVar = {
        "configuration": "RedisConfiguration",
        "lock": "RedisLock",
        "pubsub": "RedisPubSub",
        "rpc": "RedisRpc",
        "schedule": "RedisSchedule",
        "state": "RedisState",
    }
    services = tuple(drivers)
    home_schemes = SCHEMES

    settings: RedisSettings
    _engine: RedisEngine | None

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over servers, so that one call has keys of one slot."""
        return "+cluster" in self.settings.url.partition("://")[0]

    def key(self, service: str, name: str, *rest: str) -> bytes:
        """Return a key; all of one service and name have one hash tag, so that a cluster keeps them together."""
        return ":".join((f"{{{self.settings.prefix}:{service}:{name}}}", *rest)).encode()

    def native(self, service: str, name: str) -> Any:
        """Return a new ``redis.Redis`` client, or ``redis.RedisCluster`` where a cluster was named or found (redis-py, installed by the application). Its caller closes it."""
        with importing("redis-py", "redis"):
            redis = import_module("redis")

        target = self.engine.servers.target
        server, (seed, *_) = target.server, target.seeds
        if target.kind == "cluster":
            nodes = [redis.cluster.ClusterNode(each.host, each.port) for each in target.seeds]
            return redis.RedisCluster(startup_nodes=nodes, **server.options())
        if target.kind == "sentinel":
            addresses = [(each.host, each.port) for each in target.seeds]
            sentinel = redis.Sentinel(addresses, sentinel_kwargs=seed.options(), **server.options())
            return sentinel.master_for(target.master, db=server.database)
        return redis.Redis.from_url(self.settings.url)

    def driver(self, service: str, name: str) -> Driver:
        if self.settings.layout == "dapr":
            if service in _NOT_DAPR:
                raise UnsupportedError(
                    f'{service} {name!r} cannot have layout = "dapr": {_NOT_DAPR[service]}; declare [{service}.{name}] '
                    'with component = "redis" and layout = "event"',
                    service=service,
                    component=name,
                )
            if service in _DAPR:
                driver: Driver = getattr(self._module("dapr"), _DAPR[service])(self, name)
                return driver
        return super().driver(service, name)

    def ready(self) -> None:
        super().ready()
        if not self.engine.keeps_log:
            what = "redis %s loses the last writes in a crash of the server (appendonly no): set it to yes where events, jobs or locks are kept"
            once(f"redis {self.engine.where} appendonly", what, self.engine.where)


component = RedisComponent
