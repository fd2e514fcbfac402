"""A stream of gRPC: a thread reads it, another of the library's writes what is queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..._core import fork
from ..._core.threads import Background
from .forking import active

if TYPE_CHECKING:
    import grpc

__all__ = ["GrpcStream", "serialized"]

# streams of a parent: kept, since letting go of one would cancel it, by locks that nobody releases in a child
_inherited: list[Any] = []


class GrpcStream:
    """See the module; a `transport.Stream`.

    Args:
        channel, method: where it goes.
        reply: class of the messages that come.
        first: the first message, or the only one; an iterator gives all that are sent.
        both_ways: more can be sent after it.
        metadata: of the call.
        receive: gets each message.
        ended: gets the code, the details and the trailing metadata of a failure, ``None`` where the sidecar ended it well.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        method: str,
        reply: Any,
        first: Any,
        *,
        both_ways: bool,
        metadata: Any,
        receive: Callable[[Any], None],
        ended: Callable[[tuple[str, str, Any] | None], None],
    ) -> None:
        self._receive = receive
        self._ended = ended
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        if not isinstance(first, Iterator) and both_ways:
            self._outgoing.put(first)
            first = iter(self._outgoing.get, None)
        active.begin_stream()
        open = channel.stream_stream if both_ways else channel.unary_stream
        stream: Any = open(method, request_serializer=serialized, response_deserializer=reply.FromString)
        try:
            self._call = stream(first, metadata=metadata)
        except BaseException:
            active.end_stream()
            raise
        fork.register(self)
        self._thread = Background(self._read, "cloud-runtimes-stream")
        self._thread.start()

    def forked(self) -> None:
        """In a forked child: the stream is the parent's."""
        _inherited.append(self)

    def send(self, message: Any) -> None:
        """Queue a message."""
        self._outgoing.put(message)

    def finish(self) -> None:
        """Say that no more are coming; what was queued is sent first."""
        self._outgoing.put(None)

    def cancel(self) -> None:
        """End it now."""
        self._outgoing.put(None)
        self._call.cancel()

    def join(self, timeout: float | None) -> bool:
        """Wait for its end; tells whether it came in time."""
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
            active.end_stream()
            self._ended(failure)


def serialized(message: Any) -> bytes:
    """Return a message's bytes."""
    data: bytes = message.SerializeToString()
    return data
