"""RabbitMQ: pub/sub on quorum queues, one for each consumer group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...spi.component import Component, no_native
from ...spi.operation import Method, Operation
from .._net.engines import EngineComponent
from .address import SCHEMES
from .settings import RabbitmqSettings

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.portable import Portable
    from .engine import Flow, RabbitmqEngine

__all__ = ["RabbitmqComponent", "RabbitmqSettings", "component"]

_READY = Method("rabbitmq", "wait_ready", repeatable=True, writes=False)


class RabbitmqComponent(EngineComponent["RabbitmqEngine"]):
    """The driver over one cluster."""

    name = "rabbitmq"
    Settings = RabbitmqSettings
    services = ("pubsub",)
    home_schemes = tuple(SCHEMES)

    settings: RabbitmqSettings

    def _acquire(self) -> RabbitmqEngine:
        from .engine import RabbitmqEngine

        return RabbitmqEngine.acquire(self.settings)

    def native(self, service: str, name: str) -> Any:
        """Refuse: this component speaks the protocol itself."""
        raise no_native(service, name)

    def names(self, op: Operation, service: str) -> list[str]:
        return list(Component.names(self, op, service))

    def portable(self, service: str, name: str) -> Portable:
        return Component.portable(self, service, name)

    def driver(self, service: str, name: str) -> Driver:
        from .pubsub import RabbitmqPubSub

        return RabbitmqPubSub(self, name)

    def ready(self) -> None:
        self.engine.run(Operation(_READY, self.name, 5.0), _nothing())


def _nothing() -> Flow[None]:
    yield ()


component = RabbitmqComponent
