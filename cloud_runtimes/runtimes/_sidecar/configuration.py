"""A subscription to configuration whose stream only says that something has changed: what there is then is asked for, so that no order or loss of its messages matters."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from ..._core.threads import Changes
from ...errors import CloudRuntimesError
from ...spi.configuration import ConfigurationItem, ConfigurationSource, Update
from ...spi.operation import Method, Operation
from .failures import stream_error
from .transport import Flow, Stream, Transport

__all__ = ["StreamedSource"]

_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_PATIENCE: Final = 30.0
"""Seconds for one look."""
_LEAVING: Final = 2.0


class StreamedSource(ConfigurationSource):
    """See the module.

    Args:
        transport: to the sidecar.
        name: of the store.
        first: the first message of the stream.
        look: asks for what there is.
        settling: seconds after it has begun to listen at which it looks again: components begin later than they say.
        greets: a message without items says that it listens; otherwise it does once it is open.
        refresh: seconds between looks without any message; ``None``: none.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        first: Any,
        look: Callable[[], Flow[dict[str, ConfigurationItem]]],
        *,
        settling: tuple[float, ...],
        greets: bool,
        refresh: float | None = None,
    ) -> None:
        self._transport = transport
        self._name = name
        self._first = first
        self._look = look
        self._settling = settling
        self._greets = greets
        self._refresh = refresh
        self._changes = Changes()
        self._stream: Stream | None = None
        self._failure: CloudRuntimesError | None = None
        self._news = self._woken = False
        self._due: list[float] = []

    def look(self) -> Update | None:
        if (failure := self._failure) is not None:
            self._failure = self._stream = None
            self._news = True  # the next look finds out whether the sidecar is there
            raise failure
        now = monotonic()
        if self._due and self._due[0] <= now:
            self._due.pop(0)
            if self._refresh is not None and (not self._due or now + self._refresh < self._due[0]):
                self._due.insert(0, now + self._refresh)
            self._news = True
        if not self._news:
            return None
        self._news = False  # before the look: what comes meanwhile asks for another
        try:
            items = self._transport.run(Operation(_LOOK, self._name, _PATIENCE), self._look())
        except BaseException:
            self._news = True
            raise
        return Update(items, True)

    def wait(self, timeout: float, /) -> None:
        if self._stream is None and self._failure is None:
            self._connect()
            return
        ticket = self._changes.ticket()
        if self._due:
            timeout = min(timeout, max(0.0, self._due[0] - monotonic()))
        if self._news or self._woken or self._failure is not None:
            timeout = 0.0
        self._changes.wait(ticket, timeout)
        self._woken = False

    def _connect(self) -> None:
        self._news = not self._greets
        self._stream = self._transport.open("configuration", self._first, self._received, self._ended)
        if not self._greets:
            self._settle()

    def _settle(self) -> None:
        now = monotonic()
        self._due = [now + seconds for seconds in self._settling]

    def _received(self, message: Any) -> None:
        if self._greets and not message.items:  # the first one: it listens from now on
            self._settle()
        self._news = True
        self._changes.announce()

    def _ended(self, failure: Exception | None) -> None:
        self._failure = stream_error(failure, "the subscription to configuration has ended")
        self._changes.announce()

    def wake(self) -> None:
        self._woken = True
        self._changes.announce()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
            stream.join(_LEAVING)
