"""Secrets of a sidecar."""

from __future__ import annotations

from abc import abstractmethod

from ...errors import NotFoundError
from ...spi import secret as spi
from ...spi.operation import Operation
from ...spi.secret import Secret, SecretDriver
from .failures import Refused
from .transport import Flow, Transport

__all__ = ["SidecarSecret"]


class SidecarSecret(SecretDriver):
    """The secrets of one store of the sidecar."""

    features = frozenset({spi.BULK})

    def __init__(self, link: Transport, name: str) -> None:
        self._link = link
        self._name = name

    def get(self, op: Operation, key: str, /) -> Secret:
        return self._link.run(op, self._get(op, key))

    async def get_async(self, op: Operation, key: str, /) -> Secret:
        return await self._link.run_async(op, self._get(op, key))

    def _get(self, op: Operation, key: str) -> Flow[Secret]:
        try:
            found = yield from self._link.get_secret(self._name, key, op.metadata or {})
        except Refused as refused:
            if not (yield from self._is_absent(op, key, refused)):
                raise
            found = Secret({})
        if not found:
            raise NotFoundError(
                f"there is no secret {key!r} in {self._name!r}: put it into the store that the sidecar has by this name"
            )
        return found

    @abstractmethod
    def _is_absent(self, op: Operation, key: str, refused: Refused) -> Flow[bool]:
        """Tell whether a refusal means that there is no such secret."""

    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        return self._link.run(op, self._get_bulk(op))

    async def get_bulk_async(self, op: Operation, /) -> dict[str, Secret]:
        return await self._link.run_async(op, self._get_bulk(op))

    def _get_bulk(self, op: Operation) -> Flow[dict[str, Secret]]:
        return (yield from self._link.get_secrets(self._name, op.metadata or {}))
