"""A consumer, a watcher and a runner of jobs that live as long as their client, whatever their store says meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError

__all__ = ["Life"]

_AGAIN = 35.0
"""Seconds within which all work again once what was in the way is mended."""


class Life:
    """A subscription with a handler, a configuration watcher and a job runner, as far as the component has these services."""

    def __init__(self, client: CloudRuntimesClient, *services: str) -> None:
        self.client = client
        self._services = services
        self._number = 0
        self._seen: dict[str, int] = {}
        self._changed = threading.Condition()
        if "pubsub" in services:
            client.pubsub.subscribe("bus", "t", lambda event: self._note("pubsub", event.data), type=int)
        if "configuration" in services:
            client.configuration.save_configuration("conf", {"number": "0"})
            client.configuration.subscribe_configuration("conf", (), self._on_values)
        if "schedule" in services:
            client.schedule.job("tick")(self._on_tick)
            client.schedule.running().__enter__()
        self.check()

    def _note(self, service: str, number: int) -> None:
        with self._changed:
            self._seen[service] = max(number, self._seen.get(service, 0))
            self._changed.notify_all()

    def _on_values(self, items: dict[str, Any]) -> None:
        for item in items.values():
            if item.value:
                self._note("configuration", int(item.value))

    def _on_tick(self, number: int) -> None:
        self._note("schedule", number)

    def check(self) -> None:
        """See that all of them work."""
        self._number += 1
        number, client, end = self._number, self.client, time.monotonic() + _AGAIN
        calls: dict[str, Callable[[], object]] = {
            "pubsub": lambda: client.pubsub.publish("bus", "t", number),
            "configuration": lambda: client.configuration.save_configuration("conf", {"number": str(number)}),
            "schedule": lambda: client.schedule.schedule_job(
                "tick", due_time=0.0, data=number, target=self._on_tick, overwrite=True
            ),
        }
        for service in self._services:
            while self._seen.get(service) != number:
                assert time.monotonic() < end, f"{service} does not work"
                # again, since what was in the way may have taken it along, or has been noticed by nobody yet
                with suppress(CloudRuntimesError):
                    calls[service]()
                with self._changed:
                    self._changed.wait_for(lambda service=service: self._seen.get(service) == number, 1.0)  # type: ignore[misc]
        while client._context.problems():
            assert time.monotonic() < end
            time.sleep(0.01)

    @contextmanager
    def troubled(self, seconds: float, *, all_of_them: bool = True) -> Iterator[None]:
        """Wait, at the block's end, until all of them have met what the block put in the way, and ``seconds`` more."""
        yield
        wanted = len(self._services) if all_of_them else 1
        end = time.monotonic() + _AGAIN
        while self.client._context.problems() < wanted:
            assert time.monotonic() < end, f"{self.client._context.problems()} of {wanted} met it"
            time.sleep(0.02)
        time.sleep(seconds)
