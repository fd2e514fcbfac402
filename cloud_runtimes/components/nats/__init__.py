"""NATS with JetStream: a home for many machines. Its key-value buckets carry state, configuration, locks and jobs, its streams events, its object store files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...errors import UnsupportedError
from ...spi.component import no_native
from ...spi.operation import Method, Operation
from .._net.engines import EngineComponent
from .settings import NatsSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from .engine import NatsEngine
    from .requests import Flow

__all__ = ["NatsComponent", "NatsSettings", "component"]

_DRIVERS: Final = {
    "configuration": "NatsConfiguration",
    "file": "NatsFiles",
    "lock": "NatsLock",
    "pubsub": "NatsPubSub",
    "rpc": "NatsRpc",
    "schedule": "NatsSchedule",
    "state": "NatsState",
}
_READY: Final = Method("nats", "wait_ready", repeatable=True, writes=False)


class NatsComponent(EngineComponent["NatsEngine"]):
    """Drivers over one cluster."""

    name = "nats"
    Settings = NatsSettings
    services = tuple(_DRIVERS)
    home_schemes = ("nats", "tls")

    settings: NatsSettings

    def _acquire(self) -> NatsEngine:
        from .engine import NatsEngine

        return NatsEngine.acquire(self.settings)

    def native(self, service: str, name: str) -> Any:
        """Refuse: this component speaks the protocol itself, and nats-py has no connection without an event loop."""
        raise no_native(service, name)

    def driver(self, service: str, name: str) -> Driver:
        if service not in _DRIVERS:
            raise UnsupportedError(f"NATS has no {service} yet: add [{service}.{name}] with a component that has it")
        instance: Driver = getattr(self._module(service), _DRIVERS[service])(self, name)
        return instance

    def ready(self) -> None:
        self.engine.run(Operation(_READY, self.name, 5.0), _ping())


def _ping() -> Flow[None]:
    from .requests import Batch, Request

    yield Batch(Request("$JS.API.INFO"))


component = NatsComponent
