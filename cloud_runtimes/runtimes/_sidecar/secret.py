"""Secrets of a sidecar."""

from __future__ import annotations

from abc import abstractmethod

from ...errors import NotFoundError
from ...spi import secret as spi
from ...spi.operation import Operation
from ...spi.secret import Secret, SecretDriver
from .failures import SidecarError
from .transport import Flow, Transport

__all__ = ["SidecarSecret"]


class SidecarSecret(SecretDriver):
    """The secrets of one store of the sidecar."""

    features = frozenset({spi.BULK})

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name

    def get(self, op: Operation, key: str, /) -> Secret:
        return self._transport.run(op, self._get(op, key))

    async def get_async(self, op: Operation, key: str, /) -> Secret:
        return await self._transport.run_async(op, self._get(op, key))

    def _get(self, op: Operation, key: str) -> Flow[Secret]:
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

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        return self._transport.run(op, self._get_bulk(op))

    async def get_bulk_async(self, op: Operation, /) -> dict[str, Secret]:
        return await self._transport.run_async(op, self._get_bulk(op))

    def _get_bulk(self, op: Operation) -> Flow[dict[str, Secret]]:
        return (yield from self._transport.get_secrets(self._name, op.metadata or {}))
