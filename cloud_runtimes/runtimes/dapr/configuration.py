"""Configuration (Dapr, "Configuration API reference"): it only reads. An empty value counts as deleted, since that is how Dapr tells of a deleted key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ...errors import UnsupportedError
from ...protocols.dapr.messages import messages
from ...spi import configuration as spi
from ...spi.configuration import ConfigurationItem, ConfigurationSource, Selection
from ...spi.operation import Operation
from .._sidecar.configuration import SidecarConfiguration, StreamedSource
from .._sidecar.transport import Flow
from .transport import DaprTransport

__all__ = ["DaprConfiguration"]

_SETTLING: Final = (0.5, 2.0, 8.0)
"""Components begin to listen after they have said so (dapr/components-contrib#4361)."""


class DaprConfiguration(SidecarConfiguration):
    """The settings of one store of the sidecar."""

    _transport: DaprTransport

    def __init__(self, transport: DaprTransport, name: str) -> None:
        super().__init__(transport, name)
        self.features = frozenset({spi.VERSION, spi.SUBSCRIBE} if transport.streams else {spi.VERSION})

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        found = yield from self._transport.get_configuration(self._name, selection.keys, selection.metadata or {})
        return {
            key: ConfigurationItem(key, each.value, each.version or None, metadata=each.metadata)
            for key, each in found.items()
            if each.value and (not selection.keys or key in selection.keys)
        }

    def _source(self, selection: Selection) -> ConfigurationSource:
        self._transport.need_streams("subscribe_configuration")
        first = messages().SubscribeConfigurationRequest(
            store_name=self._name, keys=selection.keys, metadata=selection.metadata or {}
        )
        return StreamedSource(self, selection, first, settling=_SETTLING, greets=True)

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")

    def delete(self, op: Operation, selection: Selection, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")
