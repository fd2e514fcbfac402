"""`SecretService`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.arguments import CLIENT_TIMEOUT, check_key, check_metadata, check_timeout
from .._service import Service, error_context
from ..spi import secret as spi
from ..spi.operation import Method, Operation
from ..spi.secret import Secret, SecretDriver

_GET = Method("secret", "get_secret", repeatable=True, writes=False)
_GET_BULK = Method("secret", "get_bulk_secret", repeatable=True, writes=False)


class SecretService(Service):
    """Secrets by store and key.

    A key is 1 to 1,024 bytes of UTF-8 without NUL, compared byte for byte. A component may take fewer.
    """

    name = "secret"

    def _reading(
        self, method: Method, store_name: str, timeout: float | None, metadata: Any
    ) -> tuple[Operation, SecretDriver]:
        driver: SecretDriver = self._frame.drivers.get(store_name) or self._frame.driver(store_name)
        if metadata is not None:
            check_metadata(metadata)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, store_name, limit, metadata), driver

    @error_context(_GET)
    def get_secret(
        self,
        store_name: str,
        key: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Secret:
        """Return a secret.

        >>> client.secret.get_secret("shop", "db-password").value
        'only an example'

        Args:
            store_name: the component.
            key: of the secret.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component, e.g. the version wanted.

        Raises:
            NotFoundError: there is none; says where one would have to be.
            InvalidArgumentError: no key, or one that the component has no form for.
            PayloadError: what is stored is no text, or its file cannot be parsed.
            PermissionDeniedError, UnauthenticatedError, UnavailableError: it cannot be read, or not now.
        """
        op, driver = self._reading(_GET, store_name, timeout, metadata)
        return self._frame.call(op, driver.get, check_key(key, bars=True))

    @error_context(_GET)
    async def get_secret_async(
        self,
        store_name: str,
        key: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Secret:
        """Return a secret.

        >>> client.secret.get_secret("shop", "db-password").value
        'only an example'

        Args:
            store_name: the component.
            key: of the secret.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component, e.g. the version wanted.

        Raises:
            NotFoundError: there is none; says where one would have to be.
            InvalidArgumentError: no key, or one that the component has no form for.
            PayloadError: what is stored is no text, or its file cannot be parsed.
            PermissionDeniedError, UnauthenticatedError, UnavailableError: it cannot be read, or not now.
        """
        op, driver = self._reading(_GET, store_name, timeout, metadata)
        return await self._frame.call_async(op, driver.get_async, check_key(key, bars=True))

    @error_context(_GET_BULK)
    def get_bulk_secret(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> dict[str, Secret]:
        """Return all secrets of a store: key → secret.

        Args:
            store_name, timeout, metadata: as in `get_secret`.

        Raises:
            UnsupportedError: the component cannot list its secrets.
            BulkError: ``failed`` maps each key that cannot be read to its error; the others are its ``result``.
        """
        op, driver = self._reading(_GET_BULK, store_name, timeout, metadata)
        self._frame.need(driver, spi.BULK, "get_bulk_secret", store_name)
        return self._frame.call(op, driver.get_bulk)

    @error_context(_GET_BULK)
    async def get_bulk_secret_async(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> dict[str, Secret]:
        """Return all secrets of a store: key → secret.

        Args:
            store_name, timeout, metadata: as in `get_secret`.

        Raises:
            UnsupportedError: the component cannot list its secrets.
            BulkError: ``failed`` maps each key that cannot be read to its error; the others are its ``result``.
        """
        op, driver = self._reading(_GET_BULK, store_name, timeout, metadata)
        self._frame.need(driver, spi.BULK, "get_bulk_secret", store_name)
        return await self._frame.call_async(op, driver.get_bulk_async)
