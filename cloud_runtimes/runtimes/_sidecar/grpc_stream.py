"""A stream of gRPC: a thread reads it, another of the library's writes what is queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..._core import fork
from ..._core.threads import Background

if TYPE_CHECKING:
    import grpc

    from .forking import UnderWay

__all__ = ["GrpcStream"]

# streams of a parent: kept, since letting go of one would cancel it, by locks that nobody releases in a child
_inherited: list[Any] = []


class GrpcStream:
    """See the module; a `transport.Stream`.

    Args:
        channel, method: where it goes.
        kind: of the messages that come.
        first: the first message, or the only one; an iterator gives all that are sent.
        both_ways: more can be sent after it.
        metadata: of the call.
        under_way: let go of at its end.
        receive: gets each message.
        ended: gets the code, the details and the trailing metadata of a failure, ``None`` where the sidecar ended it well.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        method: str,
        kind: Any,
        first: Any,
        *,
        both_ways: bool,
        metadata: Any,
        under_way: UnderWay,
        receive: Callable[[Any], None],
        ended: Callable[[tuple[str, str, Any] | None], None],
    ) -> None:
        self._under_way: UnderWay | None = under_way
        self._receive = receive
        self._ended = ended
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        codecs: Any = {"request_serializer": _serialized, "response_deserializer": kind.FromString}
        self._call: Any
        if isinstance(first, Iterator):
            stream: Any = channel.stream_stream(method, **codecs)
            self._call = stream(first, metadata=metadata)
        elif both_ways:
            self._outgoing.put(first)
            stream = channel.stream_stream(method, **codecs)
            self._call = stream(self._requests(), metadata=metadata)
        else:
            stream = channel.unary_stream(method, **codecs)
            self._call = stream(first, metadata=metadata)
        fork.register(self)
        self._thread = Background(self._read, "cloud-runtimes-stream")
        self._thread.start()

    def forked(self) -> None:
        """In a forked child: the stream is the parent's."""
        _inherited.append(self)

    def _requests(self) -> Iterator[Any]:
        while (message := self._outgoing.get()) is not None:
            yield message

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
            self._under_way = None
            self._ended(failure)


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
