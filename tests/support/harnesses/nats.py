"""NATS as the component of every service it has. The clock of a Go program cannot be set, so this really waits."""

from __future__ import annotations

from typing import Any

from cloud_runtimes.components._net.engines import engines
from cloud_runtimes.components.nats import buckets
from cloud_runtimes.components.nats.engine import NatsEngine
from tests.support.harnesses.clients import RealTime, own_name
from tests.support.nats import NatsServer
from tests.support.servers import Address

__all__ = ["NATS", "NATS_EVENTS", "NATS_FRAMED", "NatsClock", "NatsHome"]


class NatsHome(RealTime):
    """A prefix of its own on the test run's server; a test may wait for ``longest`` seconds."""

    name = "nats"
    server_kind, folder = "a NATS server", "nats"
    bad_etag = "fffffffffffffff"
    event_metadata = False  # CloudEvents have no place for it
    shows_held = False  # a server tells how many messages are not acknowledged, and not which
    layout = "event"
    longest = 2.5

    def __init__(self, server: NatsServer | Address) -> None:
        self.server = server
        self.prefix = own_name()

    def config(self) -> dict[str, Any]:
        home = {"url": self.server.url, "prefix": self.prefix, "layout": self.layout}
        return {"capa": {"home": home}}


class NatsClock(NatsHome):
    """The same for jobs: their times are only those that the server tells and those that clients wrote, so what it tells is moved on."""

    def __init__(self, server: NatsServer | Address) -> None:
        super().__init__(server)
        self._ahead = 0
        self._real = buckets.milliseconds
        buckets.milliseconds = lambda text: self._real(text) + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += round(seconds * 1000)
        # runners sleep until something is due; they have slept so long now
        for each in engines(NatsEngine):
            each.notifier.wake_all()

    def close(self) -> None:
        super().close()
        buckets.milliseconds = self._real


class EventsHome(NatsHome):
    """The same for pub/sub, of which tests wait more often."""

    longest = 1.0


class FramedHome(EventsHome):
    """The same with many events a message."""

    name = "nats-frame"
    event_metadata = True
    layout = "frame"


NATS: dict[str, type[NatsHome]] = {NatsHome.name: NatsHome}
NATS_EVENTS: dict[str, type[NatsHome]] = {EventsHome.name: EventsHome}
NATS_FRAMED: dict[str, type[NatsHome]] = {FramedHome.name: FramedHome}
