"""Configuration (Dapr, "Configuration API reference"): it only reads. An empty value counts as deleted, since that is how Dapr tells of a deleted key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

from ..._dapr.messages import messages
from ..._link.failures import stream_error
from ..._link.transport import Flow, Stream
from ..._operation import Method, Operation
from ..._thread import Changes
from ...configuration import driver as spi
from ...configuration.driver import ConfigurationDriver, ConfigurationSource, Selection, Update
from ...configuration.types import ConfigurationItem
from ...errors import CloudRuntimesError, UnsupportedError
from .transport import DaprTransport

__all__ = ["DaprConfiguration"]

_LOOK: Final = Method("configuration", "subscribe_configuration", repeatable=True, writes=False)
_PATIENCE: Final = 30.0
"""Seconds for one look."""
_SETTLING: Final = (0.5, 2.0, 8.0)
"""Seconds after a connection at which a subscription looks again: components begin to listen after they have said so (dapr/components-contrib#4361)."""
_LEAVING: Final = 2.0


class DaprConfiguration(ConfigurationDriver):
    """The settings of one store of the sidecar."""

    def __init__(self, link: DaprTransport, name: str) -> None:
        self.features = frozenset({spi.VERSION, spi.SUBSCRIBE} if link.streams else {spi.VERSION})
        self._link = link
        self._name = name

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return self._link.run(op, self.look(selection))

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return await self._link.run_async(op, self.look(selection))

    def look(self, selection: Selection) -> Flow[dict[str, ConfigurationItem]]:
        """Return what there is now."""
        found = yield from self._link.get_configuration(self._name, selection.keys, selection.metadata or {})
        return {
            key: ConfigurationItem(key, each.value, each.version or None, metadata=each.metadata)
            for key, each in found.items()
            if each.value and (not selection.keys or key in selection.keys)
        }

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        self._link.need_streams("subscribe_configuration")
        return _Source(self, self._link, self._name, selection), Update(self.get(op, selection), True)

    async def subscribe_async(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        self._link.need_streams("subscribe_configuration")
        return _Source(self, self._link, self._name, selection), Update(await self.get_async(op, selection), True)

    # -- what Dapr has not ----------------------------------------------------

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")

    async def save_async(
        self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> None:
        raise UnsupportedError("Dapr cannot write configuration")

    def delete(self, op: Operation, selection: Selection, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")

    async def delete_async(self, op: Operation, selection: Selection, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")


class _Source(ConfigurationSource):
    """The stream only says that something has changed: what there is then is asked for, so that no order or loss of its messages matters."""

    def __init__(self, driver: DaprConfiguration, link: DaprTransport, name: str, selection: Selection) -> None:
        self._driver = driver
        self._link = link
        self._name = name
        self._selection = selection
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
        if self._due and self._due[0] <= monotonic():
            self._due.pop(0)
            self._news = True
        if not self._news:
            return None
        self._news = False  # before the look: what comes meanwhile asks for another
        try:
            items = self._link.run(Operation(_LOOK, self._name, _PATIENCE), self._driver.look(self._selection))
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
        selection = self._selection
        first = messages().SubscribeConfigurationRequest(
            store_name=self._name, keys=selection.keys, metadata=selection.metadata or {}
        )
        self._news = False
        self._stream = self._link.open("configuration", first, self._received, self._ended)

    def _received(self, message: Any) -> None:
        if not message.items:  # the first one: it listens from now on
            now = monotonic()
            self._due = [now + seconds for seconds in _SETTLING]
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
