"""Apache Kafka: pub/sub on a cluster's topics, through librdkafka."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ..._core import extras
from ..._core.threads import Mutex
from ...config import ClientSettings
from ...errors import ClosedError, UnavailableError
from ...spi.component import Component
from ...spi.operation import Method, Operation
from .settings import KafkaSettings, read_url

if TYPE_CHECKING:
    from ...spi.driver import Driver
    from ...spi.executor import Executor
    from .producer import KafkaProducer
    from .topics import Topics

__all__ = ["KafkaComponent", "KafkaSettings", "component"]

_READY = Method("kafka", "wait_ready", repeatable=True, writes=False)


class KafkaComponent(Component):
    """A producer, and the known topics; each member of a group has a consumer of its own.

    Attributes:
        members: counts the members that were made.
    """

    name = "kafka"
    Settings = KafkaSettings
    services = ("pubsub",)
    home_schemes = ("kafka", "kafkas")

    settings: KafkaSettings

    @classmethod
    def home_table(cls, service: str, url: str) -> dict[str, Any]:
        return read_url(url)

    def __init__(self, settings: KafkaSettings, context: ClientSettings, executor: Executor) -> None:
        super().__init__(settings, context, executor)
        self._lock = Mutex()
        self._closed = False
        self._shared: tuple[Topics, KafkaProducer] | None = None
        self.members = itertools.count()

    @property
    def topics(self) -> Topics:
        """The known topics."""
        return self._made()[0]

    @property
    def producer(self) -> KafkaProducer:
        """The producer of all drivers."""
        return self._made()[1]

    def check_open(self) -> None:
        """Refuse to go on once the client was closed."""
        if self._closed:
            raise ClosedError("this client is closed: make another")

    def _made(self) -> tuple[Topics, KafkaProducer]:
        if (made := self._shared) is not None:
            return made
        with extras.importing("Kafka", "kafka"), self._lock:
            self.check_open()
            if self._shared is None:
                from .producer import KafkaProducer
                from .topics import Topics

                topics = Topics(self.settings)
                self._shared = topics, KafkaProducer(self.settings, topics)
            return self._shared

    def driver(self, service: str, name: str) -> Driver:
        with extras.importing(f"pubsub {name!r} on Kafka", "kafka"):
            from .pubsub import KafkaPubSub
        return KafkaPubSub(self, name)

    def native(self, service: str, name: str) -> Any:
        """Return the ``Producer`` of confluent-kafka."""
        return self.producer.client

    def ready(self) -> None:
        op = Operation(_READY, self.name, 5.0)
        if not self.topics.brokers(op):
            raise UnavailableError(f"kafka {self.settings.servers}: no broker is known")

    def close(self, timeout: float | None) -> None:
        with self._lock:
            self._closed = True
            shared, self._shared = self._shared, None
        if shared is not None:
            shared[1].close(timeout)


component = KafkaComponent
