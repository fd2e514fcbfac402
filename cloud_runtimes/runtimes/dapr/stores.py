"""State, secrets and configuration (Dapr, "State management API reference", "Secrets API reference", "Configuration API reference")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...errors import UnsupportedError
from ...protocols.dapr.messages import messages
from ...spi import configuration as configuration_spi
from ...spi import state as spi
from ...spi.configuration import ConfigurationItem, Selection
from ...spi.flow import both_apis
from ...spi.operation import Operation
from ...spi.state import StateWrite
from .._sidecar.configuration import SidecarConfiguration
from .._sidecar.stores import SidecarSecret, SidecarState, conflict
from .._sidecar.transport import Flow, SidecarError
from .grpc_transport import GrpcTransport

_REDIS: Final = "state.redis"
_ABSENT: Final = re.compile(r"not ?found|not exist|no such|no secret|is not set", re.IGNORECASE)
"""Of components: Dapr has no code for an absent secret (dapr/dapr#6471)."""


class DaprState(SidecarState):
    """State driver of a store of the sidecar, which reports the store's type."""

    features = frozenset({spi.CONSISTENCY, spi.ETAG, spi.FIRST_WRITE, spi.TTL, spi.TRANSACTION, spi.TRANSACTION_ETAG})

    _transport: GrpcTransport
    _kind: str | None = None

    def _learn(self) -> Flow[None]:
        if self._kind is None:
            self._kind = (yield from self._transport.components()).get(self._name, "")

    @property
    def redis(self) -> bool:  # type: ignore[override]
        return self._kind == _REDIS

    def _is_conflict(self, write: StateWrite, refused: SidecarError) -> bool:
        status, message = refused.error_reply.status, refused.error_reply.message
        # the second: of a form that this store never gave
        return super()._is_conflict(write, refused) or (
            write.etag is not None and status == 400 and "invalid etag" in message
        )

    def _transact(self, op: Operation, writes: Sequence[StateWrite]) -> Flow[None]:
        if self.redis and any(write.etag is not None or write.create for write in writes):
            raise UnsupportedError(
                f"{self._name!r} is Redis behind Dapr, where a failed condition does not undo the rest of a transaction: "
                "leave the conditions out"
            )
        try:
            yield from self._transport.transact(
                self._name, [self._item(op, write) for write in writes], op.metadata or {}
            )
        except SidecarError:
            # a condition that did not hold is told like any other failure: whether it holds now tells more
            for write in writes:
                if write.etag is not None or write.create:
                    now = yield from self._get(op, write.key, "strong")
                    if (now is not None) if write.create else (now is None or now.etag != write.etag):
                        raise conflict(write) from None
            raise


class DaprSecret(SidecarSecret):
    """The secrets of one store of the sidecar."""

    def _is_absent(self, op: Operation, key: str, refused: SidecarError) -> Flow[bool]:
        yield from ()
        return (
            refused.error_reply.status == 500
            and _ABSENT.search(refused.error_reply.message.replace(key, "")) is not None
        )


class DaprConfiguration(SidecarConfiguration):
    """The settings of one store of the sidecar, read-only. An empty value counts as deleted, since that is how Dapr tells of a deleted key."""

    _transport: GrpcTransport
    settling = (0.5, 2.0, 8.0)  # dapr/components-contrib#4361
    greets = True

    def __init__(self, transport: GrpcTransport, name: str) -> None:
        super().__init__(transport, name)
        self.features = frozenset(
            {configuration_spi.VERSION, configuration_spi.SUBSCRIBE}
            if transport.streams
            else {configuration_spi.VERSION}
        )

    def _get(self, op: Operation, selection: Selection, /) -> Flow[dict[str, ConfigurationItem]]:
        items = yield from self._transport.get_configuration(self._name, selection.keys, selection.metadata or {})
        return {
            key: item for key, item in items.items() if item.value and (not selection.keys or key in selection.keys)
        }

    get, get_async = both_apis(_get)

    def _first(self, selection: Selection) -> Any:
        if not self._transport.streams:
            raise UnsupportedError(
                f"subscribe_configuration needs a stream, which only gRPC has, and {self._transport.url} is HTTP: give the sidecar's gRPC address "
                '(endpoint="grpc://localhost:50001", DAPR_GRPC_PORT, or grpc_endpoint in [dapr])'
            )
        return messages().SubscribeConfigurationRequest(
            store_name=self._name, keys=selection.keys, metadata=selection.metadata or {}
        )

    def save(self, op: Operation, items: Sequence[ConfigurationItem], metadata: Mapping[str, str] | None, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")

    def delete(self, op: Operation, selection: Selection, /) -> None:
        raise UnsupportedError("Dapr cannot write configuration")
