"""Configuration over Layotto. A store does not tell what it is, so each is treated as its etcd is.

What streams do not tell, a look every few seconds does: some stores say nothing of deletes, and the end of another process's stream silences this one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ...errors import CloudRuntimesError, UnsupportedError
from ...protocols.layotto.messages import messages
from ...spi import configuration as spi
from ...spi.configuration import ConfigurationItem, ConfigurationSource, Selection
from ...spi.operation import Operation
from .._sidecar.configuration import SidecarConfiguration, StreamedSource
from .._sidecar.driver import operation
from .._sidecar.transport import Flow
from .transport import LayottoTransport

__all__ = ["LayottoConfiguration"]

_SETTLING: Final = (0.2, 1.0, 4.0)
"""Seconds after a request to subscribe, which has no answer, at which a subscription looks again."""


class LayottoConfiguration(SidecarConfiguration):
    """The settings of one store of the sidecar.

    Tags are not declared: its etcd makes keys of their values and loses their names (mosn/layotto ``configstores/etcdv3``). What an item that is read has, is told.
    """

    features = frozenset({spi.GROUP, spi.LABEL, spi.SUBSCRIBE, spi.WRITE})

    _transport: LayottoTransport

    # -- reading ------------------------------------------------------------

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        message = messages().GetConfigurationRequest(**self._meant(selection), keys=selection.keys)
        found = yield from self._transport.ask("GetConfiguration", message, "GetConfigurationResponse")
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
            "app_id": self._transport.app_id,
            "group": selection.group or "",
            "label": selection.label or "",
            "metadata": selection.metadata or {},
        }

    # -- writing ------------------------------------------------------------

    def _save(
        self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /
    ) -> Flow[None]:
        for item in items:
            for what, text in (("key", item.key), ("group", item.group), ("label", item.label)):
                if "/" in (text or ""):
                    raise UnsupportedError(
                        f"{what} {text!r}: in a store of Layotto's such as etcd nobody finds what has a / there: "
                        "give another character"
                    )
        pb = messages()
        made = [
            pb.ConfigurationItem(
                key=item.key,
                content=item.value,
                group=item.group or "",
                label=item.label or "",
                tags=item.tags,
                metadata=item.metadata,
            )
            for item in items
        ]
        message = pb.SaveConfigurationRequest(
            store_name=self._name, app_id=self._transport.app_id, items=made, metadata=metadata or {}
        )
        yield from self._transport.ask("SaveConfiguration", message)

    save = operation(_save)

    def delete(self, op: Operation, selection: Selection, /) -> None:
        with _noting() as restoring:
            self._transport.run(op, self._delete(op, selection, restoring))

    async def delete_async(self, op: Operation, selection: Selection, /) -> None:
        with _noting() as restoring:
            await self._transport.run_async(op, self._delete(op, selection, restoring))

    def _delete(self, op: Operation, selection: Selection, restoring: list[str]) -> Flow[None]:
        """Delete keys. Etcd deletes all that begin with one of them, so the others are saved again; ``restoring`` has their names meanwhile."""
        if not selection.keys:  # without any, stores may take all to be meant
            return
        every = selection._replace(keys=())
        before = yield from self._get(op, every)
        kept = [
            item for key, item in before.items() if key not in selection.keys and key.startswith(tuple(selection.keys))
        ]
        message = messages().DeleteConfigurationRequest(**self._meant(selection), keys=selection.keys)
        restoring += [item.key for item in kept]
        yield from self._transport.ask("DeleteConfiguration", message)
        if kept:
            after = yield from self._get(op, every)
            if lost := [item for item in kept if item.key not in after]:
                yield from self._save(op, lost, selection.metadata)
        restoring.clear()

    # -- subscribing --------------------------------------------------------

    def _source(self, selection: Selection) -> ConfigurationSource:
        first = messages().SubscribeConfigurationRequest(**self._meant(selection), keys=selection.keys)
        refresh = self._transport.own.configuration_refresh
        return StreamedSource(self, selection, first, settling=_SETTLING, greets=False, refresh=refresh)


@contextmanager
def _noting() -> Iterator[list[str]]:
    """Tell on an error which keys a delete may have taken along. Another try would not know of them."""
    restoring: list[str] = []
    try:
        yield restoring
    except BaseException as error:
        if restoring:
            if isinstance(error, CloudRuntimesError):
                error.retryable = False
                error.maybe_applied = True
            names = ", ".join(map(repr, restoring))
            error.add_note(f"the store may have deleted these keys too, which are to be saved again: {names}")
        raise
