"""State (Dapr, "State management API reference")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...errors import UnsupportedError
from ...spi import state as spi
from ...spi.operation import Operation
from ...spi.state import StateWrite
from .._sidecar.failures import SidecarError
from .._sidecar.state import SidecarState, conflict
from .._sidecar.transport import Flow
from .transport import DaprTransport

__all__ = ["DaprState"]

_REDIS: Final = "state.redis"


class DaprState(SidecarState):
    """One store of the sidecar, which tells what it is."""

    features = frozenset({spi.CONSISTENCY, spi.ETAG, spi.FIRST_WRITE, spi.TTL, spi.TRANSACTION, spi.TRANSACTION_ETAG})

    def __init__(self, transport: DaprTransport, name: str) -> None:
        super().__init__(transport, name)
        self._tells = transport
        self._kind: str | None = None

    def _learn(self) -> Flow[None]:
        if self._kind is None:
            self._kind = yield from self._tells.component_type(self._name)

    @property
    def redis(self) -> bool:  # type: ignore[override]
        return self._kind == _REDIS

    def _is_conflict(self, op: Operation, write: StateWrite, refused: SidecarError) -> Flow[bool]:
        yield from ()
        error_reply = refused.error_reply
        # the second: of a form that this store never gave
        return error_reply.status == 409 or (
            write.etag is not None and error_reply.status == 400 and "invalid etag" in error_reply.message
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
