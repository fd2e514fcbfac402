"""Configuration over Layotto. What its streams do not tell, a look every few seconds does: some stores say nothing of deletes, and the end of another process's stream silences this one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from ..._layotto.messages import messages
from ..._link.configuration import StreamedSource
from ..._link.transport import Flow
from ..._operation import Operation
from ...configuration import driver as spi
from ...configuration.driver import ConfigurationDriver, ConfigurationSource, Selection, Update
from ...configuration.types import ConfigurationItem
from .link import LayottoLink

__all__ = ["LayottoConfiguration"]

_SETTLING: Final = (0.2, 1.0, 4.0)
"""Seconds after a request to subscribe, which has no answer, at which a subscription looks again."""


class LayottoConfiguration(ConfigurationDriver):
    """The settings of one store of the sidecar."""

    features = frozenset({spi.GROUP, spi.LABEL, spi.SUBSCRIBE, spi.TAGS, spi.WRITE})

    def __init__(self, link: LayottoLink, name: str) -> None:
        self._link = link
        self._name = name

    # -- reading ------------------------------------------------------------

    def get(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return self._link.run(op, self._look(selection))

    async def get_async(self, op: Operation, selection: Selection, /) -> dict[str, ConfigurationItem]:
        return await self._link.run_async(op, self._look(selection))

    def _look(self, selection: Selection) -> Flow[dict[str, ConfigurationItem]]:
        message = messages().GetConfigurationRequest(**self._meant(selection), keys=selection.keys)
        found = yield from self._link.ask("GetConfiguration", message, "GetConfigurationResponse")
        return {
            each.key: ConfigurationItem(
                each.key,
                each.content,
                None,
                group=(each.group or None) if selection.group else None,
                label=(each.label or None) if selection.label else None,
                tags=dict(each.tags),
                metadata=dict(each.metadata),
            )
            for each in found.items
            if not selection.keys or each.key in selection.keys
        }

    def _meant(self, selection: Selection) -> dict[str, Any]:
        return {
            "store_name": self._name,
            "app_id": self._link.app_id,
            "group": selection.group or "",
            "label": selection.label or "",
            "metadata": selection.metadata or {},
        }

    # -- writing ------------------------------------------------------------

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        self._link.run(op, self._save(items, metadata))

    async def save_async(
        self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> None:
        await self._link.run_async(op, self._save(items, metadata))

    def _save(self, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None) -> Flow[None]:
        kinds = messages()
        made = [
            kinds.ConfigurationItem(
                key=item.key,
                content=item.value,
                group=item.group or "",
                label=item.label or "",
                tags=item.tags,
                metadata=item.metadata,
            )
            for item in items
        ]
        message = kinds.SaveConfigurationRequest(
            store_name=self._name, app_id=self._link.app_id, items=made, metadata=metadata or {}
        )
        yield from self._link.ask("SaveConfiguration", message)

    def delete(self, op: Operation, selection: Selection, /) -> None:
        self._link.run(op, self._delete(selection))

    async def delete_async(self, op: Operation, selection: Selection, /) -> None:
        await self._link.run_async(op, self._delete(selection))

    def _delete(self, selection: Selection) -> Flow[None]:
        if selection.keys:  # without any, stores may take all to be meant
            message = messages().DeleteConfigurationRequest(**self._meant(selection), keys=selection.keys)
            yield from self._link.ask("DeleteConfiguration", message)

    # -- subscribing --------------------------------------------------------

    def subscribe(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        return self._source(selection), Update(self.get(op, selection), True)

    async def subscribe_async(self, op: Operation, selection: Selection, /) -> tuple[ConfigurationSource, Update]:
        return self._source(selection), Update(await self.get_async(op, selection), True)

    def _source(self, selection: Selection) -> ConfigurationSource:
        first = messages().SubscribeConfigurationRequest(**self._meant(selection), keys=selection.keys)
        look = partial(self._look, selection)
        refresh = self._link.own.configuration_refresh
        return StreamedSource(self._link, self._name, first, look, settling=_SETTLING, greets=False, refresh=refresh)
