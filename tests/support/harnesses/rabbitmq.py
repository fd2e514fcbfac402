"""RabbitMQ as the component of pub/sub. Its clock cannot be set, so this really waits."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Any, ClassVar

from cloud_runtimes.components.rabbitmq import RabbitmqSettings
from cloud_runtimes.components.rabbitmq.engine import RabbitmqEngine
from cloud_runtimes.components.rabbitmq.link import ask
from cloud_runtimes.components.rabbitmq.session import Ask
from cloud_runtimes.components.rabbitmq.topology import QUEUES
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.spi.broker.policy import POLL
from cloud_runtimes.spi.operation import Operation
from tests.support.harnesses.clients import RealTime, own_name
from tests.support.rabbitmq import management_of

__all__ = [
    "RABBITMQ",
    "RABBITMQ_BINARY",
    "RABBITMQ_FRAMED",
    "RABBITMQ_MANAGED",
    "RABBITMQ_STREAMS",
    "ManagedHome",
    "ManagedQueues",
    "RabbitHome",
    "StreamHome",
]


class RabbitHome(RealTime):
    """A prefix of its own on the test run's server. The group of the suite has a queue from the first event on, since a queue does not have those before it."""

    name = "rabbitmq"
    server_kind, folder = "a RabbitMQ server", "rabbitmq"
    event_metadata = False  # CloudEvents have no place for it
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = own_name()
        self.home = {"url": url, "prefix": self.prefix + ".{name}.", "groups": ["suite"], **self.settings}

    def config(self) -> dict[str, Any]:
        return {"capa": {"home": self.home}}

    def close(self) -> None:
        """Remove the queues of groups with an order: they are many, and the server runs on."""
        super().close()
        prefix = str(self.home["prefix"]).replace("{name}", "bus")
        groups = [f"{prefix}{topic}:{group}" for topic in ("t", "dead") for group in ("suite", "keyed")]
        asks = [Ask((50, 40), "hso", 0, f"{group}:{name}", 0) for group in groups for name in (*QUEUES, "members")]
        engine = RabbitmqEngine(RabbitmqSettings(url=self.url))
        with suppress(UnavailableError), closing(engine.open(Operation(POLL, "bus", 5), "tests")) as connection:
            ask(connection, *asks)


class FramedHome(RabbitHome):
    """The same with many events a message."""

    name = "rabbitmq-frame"
    event_metadata = True
    settings: ClassVar[dict[str, Any]] = {"layout": "frame"}


class BinaryHome(RabbitHome):
    """The same with the attributes of events in headers."""

    name = "rabbitmq-binary"
    settings: ClassVar[dict[str, Any]] = {"content_mode": "binary"}


class StreamHome(RabbitHome):
    """The same with a stream for each topic, so that no group needs a queue from the first event on."""

    name = "rabbitmq-stream"
    settings: ClassVar[dict[str, Any]] = {"kind": "stream", "groups": []}


class ManagedHome(StreamHome):
    """The same with the management interface, which counts messages every five seconds."""

    name = "rabbitmq-managed"
    counts_late = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.home["management"] = management_of(url)


class ManagedQueues(RabbitHome):
    """Queues with the management interface, for a name that is declared, and whose topics need no group."""

    name = "rabbitmq-queues"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.home |= {"management": management_of(url), "groups": [], "unrouted": "drop"}

    def store(self, kind: str = "store") -> str:
        return "bus"

    def config(self) -> dict[str, Any]:
        return {"capa": {"home": f":memory:{self.prefix}"}, "pubsub": {"bus": {"component": "rabbitmq", **self.home}}}


RABBITMQ: dict[str, type[RabbitHome]] = {RabbitHome.name: RabbitHome}
RABBITMQ_FRAMED: dict[str, type[RabbitHome]] = {FramedHome.name: FramedHome}
RABBITMQ_BINARY: dict[str, type[RabbitHome]] = {BinaryHome.name: BinaryHome}
RABBITMQ_STREAMS: dict[str, type[RabbitHome]] = {StreamHome.name: StreamHome}
RABBITMQ_MANAGED: dict[str, type[RabbitHome]] = {ManagedHome.name: ManagedHome}
