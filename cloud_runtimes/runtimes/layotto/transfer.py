"""A file on its way, by a stream of messages: read with a bounded buffer, stored out of a temporary file."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from ..._core.threads import Changes
from ...errors import CloudRuntimesError
from ...protocols.layotto.messages import messages
from ...spi.operation import Operation
from .transport import LayottoTransport

__all__ = ["Download", "Upload"]

_CHUNK: Final = 256 << 10
"""Bytes of one message that is sent."""
_AHEAD: Final = 4 << 20
"""Bytes that are received and not yet taken, beyond which the sidecar has to wait."""


class _Transfer:
    """What both directions do: wait for a change, and say why it failed."""

    def __init__(self) -> None:
        self._changes = Changes()
        self.over = False
        self.failure: Exception | None = None

    def _ended(self, failure: Exception | None) -> None:
        self.failure = failure
        self.over = True
        self._changes.announce()

    def _wait(self, op: Operation, ready: Callable[[], bool]) -> None:
        while not ready():
            ticket = self._changes.ticket()
            left = 0.0 if ready() else op.remaining()
            if not self._changes.wait(ticket, left) and not ready():
                raise op.timed_out("the sidecar", maybe_applied=op.method.writes)

    def checked(self, op: Operation) -> None:
        """Raise what ended the stream.

        Raises:
            LayottoSidecarError: the sidecar said no.
            CloudRuntimesError: what happened on the way.
        """
        if self.failure is None:
            return
        if isinstance(self.failure, CloudRuntimesError):
            self.failure.maybe_applied = self.failure.maybe_applied or op.method.writes
        raise self.failure


class Download(_Transfer):
    """A file that comes."""

    def __init__(self, transport: LayottoTransport, store: str, name: str) -> None:
        super().__init__()
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._room = threading.Semaphore(0)
        self._left = False
        request = messages().GetFileRequest(store_name=store, name=name)
        self._stream = transport.open_alone("get", request, self._received, self._ended)

    def _received(self, message: Any) -> None:
        data = bytes(message.data)
        if not data:
            return
        self._parts.append(data)
        self._size += len(data)
        self._changes.announce()
        while self._size > _AHEAD and not self._left:
            self._room.acquire()

    def _ready(self) -> bool:
        return bool(self._parts) or self.over

    def take(self, op: Operation) -> bytes:
        """Return the next bytes, ``b""`` at the end.

        Raises:
            LayottoSidecarError: as `checked`.
        """
        self._wait(op, self._ready)
        if self._parts:
            data = self._parts.popleft()
            self._size -= len(data)
            self._room.release()
            return data
        self.checked(op)
        return b""

    def leave(self) -> None:
        """Let go."""
        self._left = True
        self._room.release()
        self._stream.cancel()


class Upload(_Transfer):
    """A file that goes: all of it is there, so that the sidecar gets the whole or an end that is an error."""

    def __init__(
        self, transport: LayottoTransport, store: str, name: str, content: IO[bytes], metadata: dict[str, str]
    ) -> None:
        super().__init__()
        kind = messages().PutFileRequest
        first = kind(store_name=store, name=name, metadata=metadata)
        self._stream = transport.open_alone("put", _requests(first, content), lambda message: None, self._ended)

    def _is_over(self) -> bool:
        return self.over

    def wait(self, op: Operation) -> None:
        """Return when it is stored.

        Raises:
            LayottoSidecarError: as `checked`.
        """
        try:
            self._wait(op, self._is_over)
        except BaseException:
            self._stream.cancel()
            raise
        self.checked(op)


def _requests(first: Any, content: IO[bytes]) -> Iterator[Any]:
    first.data = content.read(_CHUNK)
    yield first
    while data := content.read(_CHUNK):
        yield type(first)(data=data)
