"""An answer that a handler gives itself counts, whatever it returns later."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.pubsub import Event
from tests.support.waiting import until


class _Late(deque[Any]):
    """Answers that come the moment after the thread of the subscription has looked and found none."""

    def __init__(self) -> None:
        self.looked = threading.Event()
        self.is_through = threading.Event()

    def __bool__(self) -> bool:
        if len(self):
            return True
        if not self.looked.is_set():
            self.looked.set()
            assert self.is_through.wait(30)
        return False


def test_a_retry_the_moment_before_the_handler_returns() -> None:
    counts: list[int | None] = []
    began, late = threading.Event(), _Late()

    def handle(event: Event[Any]) -> None:
        counts.append(event.delivery_count)
        if event.delivery_count == 1:
            began.set()
            assert late.looked.wait(30)
            event.retry(delay=0)

    with CloudRuntimesClient(app_id="suite", config={"capa": {"home": ":memory:"}}) as client:
        with client.pubsub.subscribe("bus", "t", handle) as sub:
            client.pubsub.publish("bus", "t", 1)
            assert began.wait(30)
            sub._fetcher._settled = late
            (worker,) = sub._fetcher._workers
            assert late.looked.wait(30)
            until(lambda: worker.waiting == 1)
            late.is_through.set()
            until(lambda: len(counts) == 2)
        assert client.pubsub.lag("bus", "t") == 0
    assert counts == [1, 2]
