"""gRPC and fork.

The library puts itself right in a child only if no thread is inside it in the moment of the fork; otherwise a child that uses it hangs or is aborted. So a fork waits for the calls that are under way here, and holds back new ones; where that does not help, since a stream never rests, the child is refused.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Final

from ..._core import fork
from ...errors import UnsupportedError

__all__ = ["StreamUnderWay", "UnderWay", "calls"]

_PATIENCE: Final = 1.0
"""Seconds that a fork waits for calls to end."""
_LOOK: Final = 0.001
_SPINNING: Final = "channel_spin"
"""In the name of the library's thread that waits for the answers of futures, which ends soon after the last one."""


class UnderWay:
    """A call or stream; it counts as long as it is referred to, so that an interrupt cannot leave it behind."""

    __slots__ = ("__weakref__",)


class _Calls:
    """Those of all channels of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[UnderWay] = weakref.WeakSet()
        self._gate = threading.Event()
        self._gate.set()
        self._restless = False
        # whether a fork came while something was under way: then the library is not to be used here
        self._unsafe = False
        fork.register(self)

    def begin(self, kind: type[UnderWay] = UnderWay) -> UnderWay:
        """Return what counts as long as it is kept.

        Raises:
            UnsupportedError: this is a child of a process that was in the library.
        """
        if self._unsafe:
            raise UnsupportedError(
                "gRPC cannot be used in this process: it was forked while calls or streams of gRPC were under way, after which the library hangs. "
                'Fork before them (multiprocessing\'s "spawn" or "forkserver"), or give the sidecar\'s HTTP address alone'
            )
        self._gate.wait(_PATIENCE)
        return self._added(kind())

    async def begin_async(self) -> UnderWay:
        """Asynchronous `begin`: other calls of the loop end meanwhile."""
        import asyncio

        end = time.monotonic() + _PATIENCE
        while not self._gate.is_set() and time.monotonic() < end:
            await asyncio.sleep(_LOOK)
        return self.begin()

    def _added(self, token: UnderWay) -> UnderWay:
        with self._lock:
            self._open.add(token)
        return token

    def _rests(self) -> bool:
        with self._lock:
            if len(self._open):
                return False
        return not any(_SPINNING in thread.name for thread in threading.enumerate())

    def before_fork(self) -> None:
        """Wait until nothing is under way."""
        self._gate.clear()
        end = time.monotonic() + _PATIENCE
        while not (rests := self._rests()) and time.monotonic() < end and not self._only_streams():
            time.sleep(_LOOK)
        self._restless = not rests

    def _only_streams(self) -> bool:
        with self._lock:
            pb = {type(each) for each in self._open}
        return pb == {StreamUnderWay}

    def after_fork(self) -> None:
        """In the parent: go on."""
        self._gate.set()

    def forked(self) -> None:
        """In a forked child: all that was under way is the parent's."""
        self._unsafe = self._unsafe or self._restless
        self._lock = threading.Lock()
        self._open = weakref.WeakSet()
        self._gate = threading.Event()
        self._gate.set()


class StreamUnderWay(UnderWay):
    """A stream, for which no fork waits."""

    __slots__ = ()


calls: Final = _Calls()
