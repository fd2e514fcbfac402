"""Events that were published to a topic."""

from __future__ import annotations

import itertools
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from ..client import CloudRuntimesClient
from ..pubsub import Event

_numbers: Final = itertools.count(1)


class RecordedEvents:
    """The events of a topic, from its beginning; a group of its own reads them, so no other subscriber misses any."""

    def __init__(self, client: CloudRuntimesClient, pubsub_name: str, topic: str) -> None:
        group = f"recorded-{next(_numbers)}"
        self._events = client.pubsub.subscribe(pubsub_name, topic, group=group, start="earliest")
        self._topic = f"{pubsub_name}/{topic}"

    def take(self, count: int = 1, *, timeout: float = 5.0) -> list[Event[Any]]:
        """Return the next events, in their order.

        Args:
            count: how many.
            timeout: seconds to wait for all of them.

        Raises:
            AssertionError: fewer came.
        """
        taken: list[Event[Any]] = []
        end = monotonic() + timeout
        while len(taken) < count:
            event = self._events.receive(timeout=max(0.0, end - monotonic()))
            if event is None:
                raise AssertionError(f"{len(taken)} of {count} events came to {self._topic} within {timeout:g} s")
            event.ack()
            taken.append(event)
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
