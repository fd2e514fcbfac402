"""A callback of the sidecar that waits in the loop of its server for an answer, which another thread gives."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

__all__ = ["Waiting"]

T = TypeVar("T")


class Waiting(Generic[T]):
    """See the module; made in that loop."""

    __slots__ = ("_loop", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()

    def answer(self, reply: T) -> None:
        """Answer, from any thread; the first answer counts."""
        try:
            self._loop.call_soon_threadsafe(self._set, reply)
        except RuntimeError:
            pass  # its server is over, and the sidecar knows

    def _set(self, reply: T) -> None:
        if not self.future.done():
            self.future.set_result(reply)
