"""gRPC and fork.

The library puts itself right in a child only if no thread is inside it in the moment of the fork; otherwise a child that uses it hangs or is aborted. So a fork waits for the calls that are under way, and holds back new ones. A stream never rests; beside one the child is refused.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

from ..._core import fork
from ...errors import UnsupportedError

__all__ = ["active"]

_PATIENCE: Final = 1.0
"""Seconds that a fork waits for calls to end."""
_LOOK: Final = 0.001
_SPINNING: Final = "channel_spin"
"""In the name of the library's thread that waits for the answers of futures, which ends soon after the last one."""


class _Active:
    """The calls and streams of all channels of this process."""

    def __init__(self) -> None:
        self._calls = self._streams = 0
        self._restless = self._unsafe = False
        self._reset()
        fork.register(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._gate = threading.Event()
        self._gate.set()

    def check(self) -> None:
        """Refuse a child of a process that was in the library.

        Raises:
            UnsupportedError: this is one.
        """
        if self._unsafe:
            raise UnsupportedError(
                "gRPC cannot be used in this process: it was forked while calls or streams of gRPC were under way, after which the library hangs. "
                'Fork before them (multiprocessing\'s "spawn" or "forkserver"), or give the sidecar\'s HTTP address alone'
            )

    def begin(self) -> None:
        """Count a call; `end` follows."""
        self.check()
        self._gate.wait(_PATIENCE)
        self._add(1, 0)

    async def begin_async(self) -> None:
        """Asynchronous `begin`: other calls of the loop end meanwhile."""
        self.check()
        end = time.monotonic() + _PATIENCE
        while not self._gate.is_set() and time.monotonic() < end:
            await asyncio.sleep(_LOOK)
        self._add(1, 0)

    def end(self) -> None:
        self._add(-1, 0)

    def begin_stream(self) -> None:
        """Count a stream; `end_stream` follows."""
        self.check()
        self._gate.wait(_PATIENCE)
        self._add(0, 1)

    def end_stream(self) -> None:
        self._add(0, -1)

    def _add(self, calls: int, streams: int) -> None:
        with self._lock:
            self._calls += calls
            self._streams += streams

    def _rests(self) -> bool:
        idle = not self._calls and not self._streams
        return idle and not any(_SPINNING in thread.name for thread in threading.enumerate())

    def before_fork(self) -> None:
        """Wait until nothing is under way."""
        self._gate.clear()
        end = time.monotonic() + _PATIENCE
        while not (rests := self._rests()) and time.monotonic() < end and not (self._streams and not self._calls):
            time.sleep(_LOOK)
        self._restless = not rests

    def after_fork(self) -> None:
        """In the parent: go on."""
        self._gate.set()

    def forked(self) -> None:
        """In a forked child: all that was under way is the parent's."""
        self._unsafe = self._unsafe or self._restless
        self._calls = self._streams = 0
        self._reset()


active: Final = _Active()
