"""Secrets of a sidecar."""

from __future__ import annotations

from abc import abstractmethod

from ...errors import NotFoundError
from ...spi import secret as spi
from ...spi.operation import Operation
from ...spi.secret import Secret, SecretDriver
from .driver import SidecarDriver, operation
from .failures import SidecarError
from .transport import Flow

__all__ = ["SidecarSecret"]


class SidecarSecret(SidecarDriver, SecretDriver):
    """The secrets of one store of the sidecar."""

    features = frozenset({spi.BULK})

    @operation
    def get(self, op: Operation, key: str, /) -> Flow[Secret]:
        try:
            found = yield from self._transport.get_secret(self._name, key, op.metadata or {})
        except SidecarError as refused:
            if not (yield from self._is_absent(op, key, refused)):
                raise
            found = Secret({})
        if not found:
            raise NotFoundError(
                f"there is no secret {key!r} in {self._name!r}: put it into the store that the sidecar has by this name"
            )
        return found

    @abstractmethod
    def _is_absent(self, op: Operation, key: str, refused: SidecarError) -> Flow[bool]:
        """Tell whether a refusal means that there is no such secret."""

    @operation
    def get_bulk(self, op: Operation, /) -> Flow[dict[str, Secret]]:
        return (yield from self._transport.get_secrets(self._name, op.metadata or {}))
