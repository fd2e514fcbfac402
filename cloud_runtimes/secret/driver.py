"""The SPI of the secret service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from .._driver import Driver
from .._operation import Operation
from .types import Secret

__all__ = ["BULK", "SecretDriver"]

BULK: Final = "bulk"
"""``get_bulk_secret``: all secrets of the store."""


class SecretDriver(Driver, ABC):
    """The secrets of one store. It only reads.

    A value is in a `Secret` from the moment it is read: no frame that an error may leave, and no error (its message, attributes, cause and context included), holds one as text. What a library beneath raises may hold the whole document (``json.JSONDecodeError.doc``), so its text is not quoted, and it is not chained unless it is known to hold nothing.

    Keys are compared byte for byte; a key is never a pattern. A changed secret is served within seconds, a half-written one never.
    """

    __spi__ = ("get", "get_bulk")

    @abstractmethod
    def get(self, op: Operation, key: str, /) -> Secret:
        """Return a secret.

        Raises:
            NotFoundError: there is none; names store, key and the remedy, e.g. the variable to set.
        """

    @abstractmethod
    async def get_async(self, op: Operation, key: str, /) -> Secret: ...

    @abstractmethod
    def get_bulk(self, op: Operation, /) -> dict[str, Secret]:
        """Return all secrets of the store: key → secret. Needs `BULK`.

        Raises:
            BulkError: some cannot be read; the others are its ``result``.
        """

    @abstractmethod
    async def get_bulk_async(self, op: Operation, /) -> dict[str, Secret]: ...
