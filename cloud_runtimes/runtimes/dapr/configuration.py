"""Configuration (Dapr, "Configuration API reference"): it only reads. An empty value counts as deleted, since that is how Dapr tells of a deleted key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from ...errors import UnsupportedError
from ...protocols.dapr.messages import messages
from ...spi import configuration as spi
from ...spi.configuration import ConfigurationDriver, ConfigurationItem, ConfigurationSource, Selection, Update
from ...spi.operation import Operation
from .._sidecar.configuration import StreamedSource
from .._sidecar.transport import Flow
from .transport import DaprTransport

__all__ = ["DaprConfiguration"]

_SETTLING: Final = (0.5, 2.0, 8.0)
"""Seconds after a connection at which a subscription looks again: components begin to listen after they have said so (dapr/components-contrib#4361)."""


class DaprConfiguration(ConfigurationDriver):
    """The settings of one store of the sidecar."""

    def __init__(self, transport: DaprTransport, name: str) -> None:
        self.features = frozenset({spi.VERSION, spi.SUBSCRIBE} if transport.streams else {spi.VERSION})
        self._transport = transport
        self._name = name

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return self._transport.run(op, self.look(selection))

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return await self._transport.run_async(op, self.look(selection))

    def look(self, selection: Selection) -> Flow[dict[str, ConfigurationItem]]:
        """Return what there is now."""
        found = yield from self._transport.get_configuration(self._name, selection.keys, selection.metadata or {})
        return {
            key: ConfigurationItem(key, each.value, each.version or None, metadata=each.metadata)
            for key, each in found.items()
            if each.value and (not selection.keys or key in selection.keys)
        }

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        self._transport.need_streams("subscribe_configuration")
        return self._streamed(selection), Update(self.get(op, selection), True)

    async def subscribe_async(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        self._transport.need_streams("subscribe_configuration")
        return self._streamed(selection), Update(await self.get_async(op, selection), True)

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

    def _streamed(self, selection: Selection) -> ConfigurationSource:
        first = messages().SubscribeConfigurationRequest(
            store_name=self._name, keys=selection.keys, metadata=selection.metadata or {}
        )
        look = partial(self.look, selection)
        return StreamedSource(self._transport, self._name, first, look, settling=_SETTLING, greets=True)
