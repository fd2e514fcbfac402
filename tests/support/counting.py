"""A number in a store of state that threads count up by conditional writes, while a test harms the servers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import CloudRuntimesError, ConflictError

__all__ = ["Counting"]


class Counting:
    """Counts until the block ends, with a thread for each client.

    Attributes:
        acknowledged: the values whose write was acknowledged, of each client.
        perhaps: how many writes failed with ``maybe_applied``.
        failed: how many calls failed otherwise.
    """

    def __init__(self, clients: Sequence[CloudRuntimesClient], timeout: float = 8) -> None:
        """With ``timeout`` seconds for each write."""
        self.acknowledged: list[list[int]] = [[] for _ in clients]
        self.perhaps = self.failed = 0
        self._timeout = timeout
        self._clients = clients
        self._over = threading.Event()
        self._lock = threading.Lock()
        each_of = zip(clients, self.acknowledged, strict=True)
        self._threads = [threading.Thread(target=self._count, args=each) for each in each_of]

    def __enter__(self) -> Counting:
        self._clients[0].state.save("s", "count", 0)
        for thread in self._threads:
            thread.start()
        return self

    def _count(self, client: CloudRuntimesClient, acknowledged: list[int]) -> None:
        while not self._over.is_set():
            try:
                item = client.state.get_item("s", "count", timeout=2)
                value = item.value + 1
                client.state.save("s", "count", value, etag=item.etag, concurrency="first-write", timeout=self._timeout)
                acknowledged.append(value)
            except ConflictError:
                pass
            except CloudRuntimesError as error:
                with self._lock:
                    self.perhaps += error.maybe_applied
                    self.failed += not error.maybe_applied

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not [thread for thread in self._threads if thread.is_alive()]

    def check(self) -> str:
        """Check that no acknowledged value is lost or given twice, and that none was written of which that was denied; tells what there was."""
        given = sorted(value for each in self.acknowledged for value in each)
        value = self._clients[0].state.get("s", "count", timeout=30)
        assert len(set(given)) == len(given)
        assert len(given) <= value <= len(given) + self.perhaps
        assert all(value >= each for each in given)
        return f"{len(given):,} counted and {self.perhaps} perhaps, {value:,} in the store"
