"""Configuration of a sidecar. Its stream only says that something has changed; what there is then is asked for, so that no order or loss of messages matters."""

from __future__ import annotations

from abc import abstractmethod
from time import monotonic
from typing import Any, ClassVar, Final

from ..._core.threads import Changes
from ...errors import CloudRuntimesError
from ...spi.configuration import ConfigurationDriver, ConfigurationSource, Selection, Update
from ...spi.operation import Method, Operation
from .transport import SidecarDriver, Stream, stream_error

__all__ = ["SidecarConfiguration"]

_GET: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_PATIENCE: Final = 30.0
"""Seconds for one request."""
_LEAVING: Final = 2.0


class SidecarConfiguration(SidecarDriver, ConfigurationDriver):
    """The settings of one store of the sidecar."""

    # seconds after a stream has begun to listen at which its source asks again: components begin later than they say
    settling: ClassVar[tuple[float, ...]]
    # a message without items says that a stream listens; otherwise it does once it is open
    greets: ClassVar[bool]
    # seconds between requests without any message
    refresh: float = float("inf")

    @abstractmethod
    def _first(self, selection: Selection) -> Any:
        """Return the first message of a stream, or raise `UnsupportedError` where the transport has no streams."""

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self, selection, self._first(selection))
        return source, Update(self.get(op, selection), True)

    async def subscribe_async(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        source = _Source(self, selection, self._first(selection))
        return source, Update(await self.get_async(op, selection), True)


class _Source(ConfigurationSource):
    """See the module."""

    def __init__(self, driver: SidecarConfiguration, selection: Selection, first: Any) -> None:
        self._driver = driver
        self._selection = selection
        self._first = first
        self._changes = Changes()
        self._stream: Stream | None = None
        self._failure: CloudRuntimesError | None = None
        self._changed = self._woken = False
        # when to ask without a message
        self._due: list[float] = []

    def look(self) -> Update | None:
        if (failure := self._failure) is not None:
            self._failure = self._stream = None
            self._changed = True  # the next request finds out whether the sidecar is there
            raise failure
        now = monotonic()
        if self._due and self._due[0] <= now:
            self._due = sorted([*(due for due in self._due if due > now), now + self._driver.refresh])
            self._changed = True
        if not self._changed:
            return None
        self._changed = False  # before the request: what comes meanwhile asks for another
        try:
            items = self._driver.get(Operation(_GET, self._driver._name, _PATIENCE), self._selection)
        except BaseException:
            self._changed = True
            raise
        return Update(items, True)

    def wait(self, timeout: float, /) -> None:
        if self._stream is None and self._failure is None:
            self._changed = not self._driver.greets
            self._stream = self._driver._transport.open("configuration", self._first, self._received, self._ended)
            if not self._driver.greets:
                self._listening()
            return
        ticket = self._changes.ticket()
        if self._due:
            timeout = min(timeout, max(0.0, self._due[0] - monotonic()))
        if self._changed or self._woken or self._failure is not None:
            timeout = 0.0
        self._changes.wait(ticket, timeout)
        self._woken = False

    def _listening(self) -> None:
        now = monotonic()
        self._due = [now + seconds for seconds in self._driver.settling]

    def _received(self, message: Any) -> None:
        if self._driver.greets and not message.items:
            self._listening()
        self._changed = True
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
