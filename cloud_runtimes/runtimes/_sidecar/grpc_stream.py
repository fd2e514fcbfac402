"""Streams of gRPC, and what the library does in a forked child.

The library puts itself right in a child only if no thread is inside it in the moment of the fork; otherwise a child that uses it hangs or is aborted. So a fork waits for the calls that are under way, and holds back new ones. A stream never rests; beside one the child is refused.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from ..._core import fork
from ..._core.threads import Background
from ...errors import UnsupportedError

if TYPE_CHECKING:
    import grpc

    from .transport import Receive

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
        """Raise `UnsupportedError` in a child of a process that was inside the library."""
        if self._unsafe:
            raise UnsupportedError(
                "gRPC cannot be used in this process: it was forked while calls or streams of gRPC were under way, after which the library hangs. "
                'Fork before them (multiprocessing\'s "spawn" or "forkserver"), or give the sidecar\'s HTTP address alone'
            )

    def begin(self, *, stream: bool = False) -> None:
        """Count a call or stream; `end` follows."""
        self.check()
        self._gate.wait(_PATIENCE)
        self._count(1, stream)

    async def begin_async(self) -> None:
        """Asynchronous `begin` of a call: other calls of the loop end meanwhile."""
        self.check()
        end = time.monotonic() + _PATIENCE
        while not self._gate.is_set() and time.monotonic() < end:
            await asyncio.sleep(_LOOK)
        self._count(1, False)

    def end(self, *, stream: bool = False) -> None:
        self._count(-1, stream)

    def _count(self, more: int, stream: bool) -> None:
        with self._lock:
            if stream:
                self._streams += more
            else:
                self._calls += more

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


class GrpcStream:
    """A `transport.Stream`: a thread reads it, another of the library's writes what is queued. ``ended`` gets the code, details and trailing metadata of a failure, ``None`` where the sidecar ended it well."""

    def __init__(
        self,
        channel: grpc.Channel,
        method: str,
        reply: Any,
        first: Any,
        *,
        both_ways: bool,
        metadata: Any,
        receive: Receive,
        ended: Callable[[tuple[str, str, Any] | None], None],
    ) -> None:
        self._receive = receive
        self._ended = ended
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        if both_ways:
            self._outgoing.put(first)
            first = iter(self._outgoing.get, None)
        active.begin(stream=True)
        open = channel.stream_stream if both_ways else channel.unary_stream
        stream: Any = open(method, request_serializer=serialized, response_deserializer=reply.FromString)
        try:
            self._call = stream(first, metadata=metadata)
        except BaseException:
            active.end(stream=True)
            raise
        fork.register(self)
        self._thread = Background(self._read, "cloud-runtimes-stream")
        self._thread.start()

    def forked(self) -> None:
        """In a forked child: the stream is the parent's."""
        fork.keep(self)  # its end takes locks that nobody releases in a child

    def send(self, message: Any) -> None:
        self._outgoing.put(message)

    def finish(self) -> None:
        self._outgoing.put(None)

    def cancel(self) -> None:
        self._outgoing.put(None)
        self._call.cancel()

    def join(self, timeout: float | None) -> bool:
        return self._thread.join(timeout)

    def _read(self) -> None:
        import grpc

        failure: tuple[str, str, Any] | None = None
        try:
            for message in self._call:
                self._receive(message)
        except grpc.RpcError:
            failure = self._call.code().name, str(self._call.details() or ""), self._call.trailing_metadata() or ()
        except ValueError as error:  # the channel is closed
            failure = "CANCELLED", str(error), ()
        finally:
            self._outgoing.put(None)  # the library's thread waits for it
            active.end(stream=True)
            self._ended(failure)


def serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
