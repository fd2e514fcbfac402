"""The reading half of `StateService`."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Unpack, overload

from .._core.arguments import CLIENT_TIMEOUT, HIDDEN, check_key, check_keys, check_metadata, check_timeout
from .._service import Service, error_context
from ..codec.payload import decode_payload
from ..errors import InvalidArgumentError
from ..spi import state as spi
from ..spi.operation import Method, Operation
from ..spi.state import StateDriver
from .prepare import bulk_items, check_consistency, item
from .types import Consistency, ReadOptions, StateItem

T = TypeVar("T")

_GET = Method("state", "get", repeatable=True, writes=False)
_GET_ITEM = Method("state", "get_item", repeatable=True, writes=False)
_GET_BULK = Method("state", "get_bulk", repeatable=True, writes=False)
_LIST_KEYS = Method("state", "list_keys", repeatable=True, writes=False)
_BEHIND_HIDDEN = f"{HIDDEN}\U0010ffff"
"""Behind all keys that are hidden, in byte order."""


class StateReads(Service):
    """The reads of `StateService`."""

    name = "state"

    def _reading(
        self, method: Method, store_name: str, consistency: Any, timeout: float | None, metadata: Any
    ) -> tuple[Operation, StateDriver]:
        driver: StateDriver = self._frame.drivers.get(store_name) or self._frame.driver(store_name)
        if consistency is not None or metadata is not None:
            self._check_options(driver, store_name, consistency, metadata)
        limit = self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, store_name, limit, metadata), driver

    def _check_options(self, driver: StateDriver, store_name: str, consistency: Any, metadata: Any) -> None:
        if consistency is not None:
            check_consistency(consistency)
            self._frame.need(driver, spi.CONSISTENCY, "consistency=", store_name)
        check_metadata(metadata)

    @overload
    def get(self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]) -> T | None: ...
    @overload
    def get(self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]) -> Any | None: ...
    def get(
        self,
        store_name: str,
        key: str,
        *,
        consistency: Consistency | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Any | None:
        """Return the value of a key, ``None`` where it is absent (or ``None`` itself; `get_item` tells).

        >>> client.state.get("orders", "absent") is None
        True
        >>> client.state.save("orders", "1", {"total": 12.5})
        >>> client.state.get("orders", "1", type=dict[str, float])
        {'total': 12.5}

        Args:
            store_name: the component.
            key: the key.
            consistency: ``"eventual"`` or ``"strong"``; ``None`` leaves it to the runtime.
            type: what to decode into, strictly; ``bytes`` gives the stored bytes.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            PayloadError: the stored value does not fit ``type``; names the path.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
        """
        try:
            # what `_reading` does, without its call
            driver = self._frame.drivers.get(store_name) or self._frame.driver(store_name)
            if consistency is not None or metadata is not None:
                self._check_options(driver, store_name, consistency, metadata)
            op = Operation(
                _GET, store_name, self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout), metadata
            )
            stored = self._frame.call(op, driver.get, check_key(key), consistency)
            return None if stored is None else decode_payload(stored[0], stored[1], type)
        except BaseException as error:
            self._frame.add_context(error, _GET, store_name)
            raise

    @overload
    async def get_async(
        self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> T | None: ...
    @overload
    async def get_async(
        self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> Any | None: ...
    async def get_async(
        self,
        store_name: str,
        key: str,
        *,
        consistency: Consistency | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> Any | None:
        """Return the value of a key, ``None`` where it is absent (or ``None`` itself; `get_item` tells).

        >>> client.state.get("orders", "absent") is None
        True
        >>> client.state.save("orders", "1", {"total": 12.5})
        >>> client.state.get("orders", "1", type=dict[str, float])
        {'total': 12.5}

        Args:
            store_name: the component.
            key: the key.
            consistency: ``"eventual"`` or ``"strong"``; ``None`` leaves it to the runtime.
            type: what to decode into, strictly; ``bytes`` gives the stored bytes.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            PayloadError: the stored value does not fit ``type``; names the path.
            ComponentNotFoundError: the configuration does not declare it, and is strict.
            UnavailableError: the store cannot be reached.
            DeadlineExceededError: no answer came within ``timeout``.
        """
        try:
            # what `_reading` does, without its call
            driver = self._frame.drivers.get(store_name) or self._frame.driver(store_name)
            if consistency is not None or metadata is not None:
                self._check_options(driver, store_name, consistency, metadata)
            op = Operation(
                _GET, store_name, self._frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout), metadata
            )
            stored = await self._frame.call_async(op, driver.get_async, check_key(key), consistency)
            return None if stored is None else decode_payload(stored[0], stored[1], type)
        except BaseException as error:
            self._frame.add_context(error, _GET, store_name)
            raise

    @overload
    def get_item(
        self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> StateItem[T] | None: ...
    @overload
    def get_item(
        self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> StateItem[Any] | None: ...
    @error_context(_GET_ITEM)
    def get_item(
        self,
        store_name: str,
        key: str,
        *,
        consistency: Consistency | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> StateItem[Any] | None:
        """Return a key with its etag, content type and expiry; ``None`` where it is absent.

        Args:
            store_name, key, consistency, type, timeout, metadata: as in `get`.

        Raises:
            PayloadError: the stored value does not fit ``type``; names the path.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        op, driver = self._reading(_GET_ITEM, store_name, consistency, timeout, metadata)
        stored = self._frame.call(op, driver.get, check_key(key), consistency)
        return None if stored is None else item(key, stored, type)

    @overload
    async def get_item_async(
        self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> StateItem[T] | None: ...
    @overload
    async def get_item_async(
        self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> StateItem[Any] | None: ...
    @error_context(_GET_ITEM)
    async def get_item_async(
        self,
        store_name: str,
        key: str,
        *,
        consistency: Consistency | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> StateItem[Any] | None:
        """Return a key with its etag, content type and expiry; ``None`` where it is absent.

        Args:
            store_name, key, consistency, type, timeout, metadata: as in `get`.

        Raises:
            PayloadError: the stored value does not fit ``type``; names the path.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        op, driver = self._reading(_GET_ITEM, store_name, consistency, timeout, metadata)
        stored = await self._frame.call_async(op, driver.get_async, check_key(key), consistency)
        return None if stored is None else item(key, stored, type)

    @overload
    def get_bulk(
        self, store_name: str, keys: Iterable[str], *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[T]]: ...
    @overload
    def get_bulk(
        self, store_name: str, keys: Iterable[str], *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[Any]]: ...
    @error_context(_GET_BULK)
    def get_bulk(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        consistency: Consistency | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, StateItem[Any]]:
        """Return the items of several keys; absent ones are left out.

        Args:
            store_name, consistency, type, timeout, metadata: as in `get`.
            keys: which ones.

        Raises:
            BulkError: some values do not fit ``type``; the others are its ``result``.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        wanted = check_keys(keys)
        op, driver = self._reading(_GET_BULK, store_name, consistency, timeout, metadata)
        return bulk_items(wanted, self._frame.call(op, driver.get_bulk, wanted, consistency), type)

    @overload
    async def get_bulk_async(
        self, store_name: str, keys: Iterable[str], *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[T]]: ...
    @overload
    async def get_bulk_async(
        self, store_name: str, keys: Iterable[str], *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[Any]]: ...
    @error_context(_GET_BULK)
    async def get_bulk_async(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        consistency: Consistency | None = None,
        type: Any = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, StateItem[Any]]:
        """Return the items of several keys; absent ones are left out.

        Args:
            store_name, consistency, type, timeout, metadata: as in `get`.
            keys: which ones.

        Raises:
            BulkError: some values do not fit ``type``; the others are its ``result``.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        wanted = check_keys(keys)
        op, driver = self._reading(_GET_BULK, store_name, consistency, timeout, metadata)
        return bulk_items(wanted, await self._frame.call_async(op, driver.get_bulk_async, wanted, consistency), type)

    def _listing(
        self, store_name: str, prefix: Any, limit: Any, after: Any, timeout: float | None, metadata: Any
    ) -> Any:
        op, driver = self._reading(_LIST_KEYS, store_name, None, timeout, metadata)
        self._frame.need(driver, spi.LIST_KEYS, "list_keys", store_name)
        if prefix != "":
            check_key(prefix)
        if after is not None:
            check_key(after)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidArgumentError(f"limit must be an int ≥ 1 or None, got {limit!r}")
        return op, driver

    @error_context(_LIST_KEYS)
    def list_keys(
        self,
        store_name: str,
        prefix: str = "",
        *,
        limit: int | None = None,
        after: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return keys in byte order.

        Args:
            store_name, timeout, metadata: as in `get`.
            prefix: with which they begin, literally.
            limit: how many at most; ``None``: all.
            after: only those behind this key, for paging.

        Raises:
            UnsupportedError: the store cannot list its keys.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        op, driver = self._listing(store_name, prefix, limit, after, timeout, metadata)
        keys: list[str] = self._frame.call(op, driver.list_keys, prefix, limit, after)
        shown = _shown(keys)
        if limit is not None and len(shown) < len(keys):
            shown += self._frame.call(op, driver.list_keys, prefix, limit - len(shown), _BEHIND_HIDDEN)
        return shown

    @error_context(_LIST_KEYS)
    async def list_keys_async(
        self,
        store_name: str,
        prefix: str = "",
        *,
        limit: int | None = None,
        after: str | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return keys in byte order.

        Args:
            store_name, timeout, metadata: as in `get`.
            prefix: with which they begin, literally.
            limit: how many at most; ``None``: all.
            after: only those behind this key, for paging.

        Raises:
            UnsupportedError: the store cannot list its keys.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        op, driver = self._listing(store_name, prefix, limit, after, timeout, metadata)
        keys: list[str] = await self._frame.call_async(op, driver.list_keys_async, prefix, limit, after)
        shown = _shown(keys)
        if limit is not None and len(shown) < len(keys):
            rest = limit - len(shown)
            shown += await self._frame.call_async(op, driver.list_keys_async, prefix, rest, _BEHIND_HIDDEN)
        return shown


def _shown(keys: list[str]) -> list[str]:
    return [key for key in keys if not key.startswith(HIDDEN)]
