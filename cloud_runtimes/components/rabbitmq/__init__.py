"""RabbitMQ: pub/sub on quorum queues, one for each consumer group."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...spi.component import Component
from .._net.engines import EngineComponent
from .settings import SCHEMES, RabbitmqSettings

if TYPE_CHECKING:
    from .engine import RabbitmqEngine

__all__ = ["RabbitmqComponent", "RabbitmqSettings", "component"]


class RabbitmqComponent(EngineComponent["RabbitmqEngine"]):
    """The driver over one cluster."""

    name = "rabbitmq"
    Settings = RabbitmqSettings
    engine_class = ("engine", "RabbitmqEngine")
    drivers: ClassVar = {"pubsub": "RabbitmqPubSub"}
    services = tuple(drivers)
    home_schemes = tuple(SCHEMES)

    settings: RabbitmqSettings
    _engine: RabbitmqEngine | None
    names = Component.names
    portable = Component.portable


component = RabbitmqComponent
