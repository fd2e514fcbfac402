"""State, secrets and configuration over Layotto. Its stores do not tell what they are, so each is treated as Redis is, or of configuration as etcd, which others of the same origin understand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...errors import CloudRuntimesError, UnsupportedError
from ...protocols.layotto.messages import messages
from ...spi import configuration as configuration_spi
from ...spi import state as spi
from ...spi.configuration import ConfigurationItem, Selection
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.state import StateWrite
from .._sidecar.configuration import SidecarConfiguration
from .._sidecar.stores import SidecarSecret, SidecarState, conflict
from .._sidecar.transport import Flow, SidecarError, StateItem
from .transport import LayottoTransport

_TRIES: Final = 3
"""Of a transaction whose deletes others were faster than."""


class LayottoState(SidecarState):
    """State driver of a store of the sidecar."""

    features = frozenset({spi.CONSISTENCY, spi.ETAG, spi.FIRST_WRITE, spi.TTL, spi.TRANSACTION})
    redis = True

    def _write_one(self, op: Operation, write: StateWrite) -> Flow[None]:
        if write.etag is not None:
            # Redis takes an etag for a key that is absent
            now = yield from self._get(op, write.key, "strong")
            if now is None or now.etag != write.etag:
                raise conflict(write)
        yield from super()._write_one(op, write)

    def _transact(self, op: Operation, writes: Sequence[StateWrite]) -> Flow[None]:
        if any(write.etag is not None or write.create for write in writes):
            raise UnsupportedError(
                f"{self._name!r} is behind Layotto, where a failed condition does not undo the rest of a transaction: "
                "leave the conditions out"
            )
        # of several writes of a key only the last is to be seen
        last = {write.key: write for write in writes}
        for attempt in range(1, _TRIES + 1):
            etags: dict[str, str | None] = {}
            items: list[StateItem] = []
            for write in last.values():
                item = self._item(op, write)
                if item.value is None:
                    # a delete needs the current etag; of an absent key there is nothing to delete
                    now = yield from self._get(op, write.key, "strong")
                    etags[write.key] = None if now is None else now.etag
                    if now is None:
                        continue
                    item = item._replace(etag=now.etag)
                items.append(item)
            if not items:
                return
            try:
                yield from self._transport.transact(self._name, items, op.metadata or {})
                return
            except SidecarError:
                # the other writes may have been kept: with the etags of now the whole is written once more
                if attempt == _TRIES or not (yield from self._have_changed(op, etags)):
                    raise

    def _have_changed(self, op: Operation, etags: dict[str, str | None]) -> Flow[bool]:
        for key, etag in etags.items():
            now = yield from self._get(op, key, "strong")
            if (None if now is None else now.etag) != etag:
                return True
        return False


class LayottoSecret(SidecarSecret):
    """The secrets of one store of the sidecar."""

    def _is_absent(self, op: Operation, key: str, refused: SidecarError) -> Flow[bool]:
        if refused.error_reply.code != "grpc INTERNAL":
            return False
        # there is no code for an absent secret: the list of all tells
        try:
            secrets = yield from self._transport.get_secrets(self._name, op.metadata or {})
        except SidecarError:
            return False
        return key not in secrets


class LayottoConfiguration(SidecarConfiguration):
    """The settings of one store of the sidecar.

    What streams do not tell, a look every few seconds does: some stores say nothing of deletes, and the end of another process's stream silences this one's. Tags are not declared: its etcd makes keys of their values and loses their names (mosn/layotto ``configstores/etcdv3``). What an item that is read has, is told.
    """

    features = frozenset(
        {configuration_spi.GROUP, configuration_spi.LABEL, configuration_spi.SUBSCRIBE, configuration_spi.WRITE}
    )

    _transport: LayottoTransport
    settling = (0.2, 1.0, 4.0)
    greets = False

    def __init__(self, transport: LayottoTransport, name: str) -> None:
        super().__init__(transport, name)
        self.refresh = transport.own.configuration_refresh

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        message = messages().GetConfigurationRequest(**self._meant(selection), keys=selection.keys)
        reply = yield from self._transport.ask("GetConfiguration", message, "GetConfigurationResponse")
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
            for each in reply.items
            if not selection.keys or each.key in selection.keys
        }

    get, get_async = both_apis(_get)

    def _meant(self, selection: Selection) -> dict[str, Any]:
        return {
            "store_name": self._name,
            "app_id": self._transport.app_id,
            "group": selection.group or "",
            "label": selection.label or "",
            "metadata": selection.metadata or {},
        }

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
        entries = [
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
            store_name=self._name, app_id=self._transport.app_id, items=entries, metadata=metadata or {}
        )
        yield from self._transport.ask("SaveConfiguration", message)

    save, save_async = both_apis(_save)

    def _delete(self, op: Operation, selection: Selection, /) -> Flow[None]:
        """Delete keys. Etcd deletes all that begin with one of them, so the others are saved again."""
        if not selection.keys:  # without any, stores may take all to be meant
            return
        every = selection._replace(keys=())
        before = yield from self._get(op, every)
        kept = [
            item for key, item in before.items() if key not in selection.keys and key.startswith(tuple(selection.keys))
        ]
        message = messages().DeleteConfigurationRequest(**self._meant(selection), keys=selection.keys)
        try:
            yield from self._transport.ask("DeleteConfiguration", message)
            if kept:
                after = yield from self._get(op, every)
                if lost := [item for item in kept if item.key not in after]:
                    yield from self._save(op, lost, selection.metadata)
        except BaseException as failure:
            error = failure.error(applied=True) if isinstance(failure, SidecarError) else failure
            if kept:  # of which another try would not know
                if isinstance(error, CloudRuntimesError):
                    error.retryable, error.maybe_applied = False, True
                names = ", ".join(repr(item.key) for item in kept)
                error.add_note(f"the store may have deleted these keys too, which are to be saved again: {names}")
            raise error from failure.__cause__

    delete, delete_async = both_apis(_delete)

    def _first(self, selection: Selection) -> Any:
        return messages().SubscribeConfigurationRequest(**self._meant(selection), keys=selection.keys)
