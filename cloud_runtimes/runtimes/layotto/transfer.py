"""A file on its way, by a stream of messages: read with a bounded buffer, stored out of a temporary file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from queue import Empty, Full, Queue
from typing import IO, Any, Final

from ...errors import CloudRuntimesError
from ...protocols.layotto.messages import messages
from ...spi.operation import Operation
from .transport import LayottoTransport

__all__ = ["Download", "Upload"]

_CHUNK: Final = 256 << 10
"""Bytes of one message that is sent."""
_AHEAD: Final = 8
"""Messages that are received and not yet taken, beyond which the sidecar has to wait."""
_LOOK: Final = 0.1


class Download:
    """A file that comes."""

    def __init__(self, transport: LayottoTransport, store: str, name: str) -> None:
        # None ends it
        self._parts: Queue[bytes | None] = Queue(_AHEAD)
        self._left = False
        self._end: Exception | None = None
        request = messages().GetFileRequest(store_name=store, name=name)
        self._stream = transport.open_alone("get", request, self._received, self._ended)

    def _received(self, message: Any) -> None:
        if message.data:
            self._put(bytes(message.data))

    def _ended(self, failure: Exception | None) -> None:
        self._end = failure
        self._put(None)

    def _put(self, part: bytes | None) -> None:
        while not self._left:
            try:
                return self._parts.put(part, timeout=_LOOK)
            except Full:
                pass

    def take(self, op: Operation) -> bytes:
        """Return the next bytes, ``b""`` at the end.

        Raises:
            SidecarError: the sidecar said no.
            CloudRuntimesError: what happened on the way.
        """
        try:
            part = self._parts.get(timeout=op.remaining())
        except Empty:
            raise op.timed_out("the sidecar") from None
        if part is not None:
            return part
        self._parts.put(None)
        if self._end is not None:
            raise self._end
        return b""

    def leave(self) -> None:
        """Let go."""
        self._left = True
        self._stream.cancel()


class Upload:
    """A file that goes: all of it is there, so that the sidecar gets the whole or an end that is an error."""

    def __init__(
        self, transport: LayottoTransport, store: str, name: str, content: IO[bytes], metadata: dict[str, str]
    ) -> None:
        self._end: Future[None] = Future()
        first = messages().PutFileRequest(store_name=store, name=name, metadata=metadata)
        self._stream = transport.open_alone("put", _requests(first, content), lambda message: None, self._ended)

    def _ended(self, failure: Exception | None) -> None:
        if failure is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(failure)

    def wait(self, op: Operation) -> None:
        """Return when it is stored.

        Raises:
            SidecarError: the sidecar said no.
            CloudRuntimesError: what happened on the way.
        """
        try:
            self._end.result(op.remaining())
        except TimeoutError:
            self._stream.cancel()
            raise op.timed_out("the sidecar", maybe_applied=True) from None
        except CloudRuntimesError as error:
            error.maybe_applied = True
            raise
        except BaseException:
            self._stream.cancel()
            raise


def _requests(first: Any, content: IO[bytes]) -> Iterator[Any]:
    first.data = content.read(_CHUNK)
    yield first
    while data := content.read(_CHUNK):
        yield type(first)(data=data)
