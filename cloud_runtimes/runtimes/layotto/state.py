"""State over Layotto. Its stores do not tell what they are, so each is treated as Redis is, which other components of the same origin understand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...errors import UnsupportedError
from ...spi import state as spi
from ...spi.operation import Operation
from ...spi.state import StateWrite
from .._sidecar.failures import SidecarError
from .._sidecar.state import SidecarState, conflict
from .._sidecar.transport import Flow, StateItem

__all__ = ["LayottoState"]

_TRIES: Final = 3
"""Of a transaction whose deletes others were faster than."""


class LayottoState(SidecarState):
    """One store of the sidecar."""

    features = frozenset({spi.CONSISTENCY, spi.ETAG, spi.FIRST_WRITE, spi.TTL, spi.TRANSACTION})
    redis = True

    def _learn(self) -> Flow[None]:
        yield from ()

    def _write_one(self, op: Operation, write: StateWrite) -> Flow[None]:
        if write.etag is not None:
            # Redis takes an etag for a key that is absent
            now = yield from self._get(op, write.key, "strong")
            if now is None or now.etag != write.etag:
                raise conflict(write)
        yield from super()._write_one(op, write)

    def _is_conflict(self, op: Operation, write: StateWrite, refused: SidecarError) -> Flow[bool]:
        yield from ()
        # a malformed etag is INVALID_ARGUMENT; one that was just read is not malformed
        return refused.error_reply.status == 409

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
