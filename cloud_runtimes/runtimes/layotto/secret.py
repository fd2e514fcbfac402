"""Secrets over Layotto."""

from __future__ import annotations

from ...spi.operation import Operation
from .._sidecar.failures import SidecarError
from .._sidecar.secret import SidecarSecret
from .._sidecar.transport import Flow

__all__ = ["LayottoSecret"]


class LayottoSecret(SidecarSecret):
    """The secrets of one store of the sidecar."""

    def _is_absent(self, op: Operation, key: str, refused: SidecarError) -> Flow[bool]:
        if refused.error_reply.code != "grpc INTERNAL":
            return False
        # there is no code for an absent secret: the list of all tells
        try:
            found = yield from self._transport.get_secrets(self._name, op.metadata or {})
        except SidecarError:
            return False
        return key not in found
