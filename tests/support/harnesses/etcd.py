"""etcd as the component of every service it has. Its clock cannot be set, so this really waits."""

from __future__ import annotations

import time
from typing import Any

from cloud_runtimes.components._net.engines import engines
from cloud_runtimes.components.etcd import schedule
from cloud_runtimes.components.etcd.engine import EtcdEngine
from tests.support.etcd import EtcdServer, leases
from tests.support.harnesses.clients import RealTime, own_name
from tests.support.servers import Address

__all__ = ["ETCD", "EtcdClock", "EtcdHome"]


class EtcdHome(RealTime):
    """A prefix of its own on the test run's server; a test may wait for ``longest`` seconds."""

    name = "etcd"
    server_kind, folder = "an etcd server", "etcd"
    bad_etag = "999999999999"
    longest = 2.5

    def __init__(self, server: EtcdServer | Address) -> None:
        self.server = server
        self.prefix = own_name()

    def config(self) -> dict[str, Any]:
        home = {"url": self.server.url, "prefix": self.prefix}
        # etcd has no events: what a transaction publishes goes to another engine
        return {"capa": {"home": home, "homes": {"pubsub": f":memory:{self.prefix}"}}}

    def advance(self, seconds: float) -> None:
        before = leases(self.server.url)
        super().advance(seconds)
        # the server looks for leases that are over every half second
        ending = {id for id, remaining in before.items() if remaining <= seconds}
        end = time.monotonic() + 3
        while time.monotonic() < end and any(
            remaining == 0 for id, remaining in leases(self.server.url).items() if id in ending
        ):
            time.sleep(0.05)


class EtcdClock(EtcdHome):
    """The same for jobs, whose times are those of their processes: theirs is moved on."""

    def __init__(self, server: EtcdServer | Address) -> None:
        super().__init__(server)
        self._ahead = 0
        self._real = schedule.now_ms
        schedule.now_ms = lambda: self._real() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += round(seconds * 1000)
        # runners sleep until something is due; they have slept so long now
        for each in engines(EtcdEngine):
            each.notifier.wake_all()

    def close(self) -> None:
        super().close()
        schedule.now_ms = self._real


ETCD: dict[str, type[EtcdHome]] = {EtcdHome.name: EtcdHome}
