"""`StateService`: what ``client.state`` is."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, Unpack, overload

from .._operation import CLIENT_TIMEOUT, Method, Operation, check_metadata, check_timeout
from .._service import Service, placed
from ..codec.payload import decode_payload
from ..errors import InvalidArgumentError
from . import driver as spi
from ._prepare import check_consistency, check_key, delete_write, save_write
from ._results import bulk_items, bulk_writes, check_keys, finish_bulk, item
from .driver import StateDriver, StateWrite
from .transaction import TRANSACTION, StateTransaction
from .types import Concurrency, Consistency, ReadOptions, StateItem, Ttl

__all__ = ["StateService"]

T = TypeVar("T")

_GET = Method("state", "get", repeatable=True, writes=False)
_GET_ITEM = Method("state", "get_item", repeatable=True, writes=False)
_GET_BULK = Method("state", "get_bulk", repeatable=True, writes=False)
_LIST_KEYS = Method("state", "list_keys", repeatable=True, writes=False)
_SAVE = Method("state", "save", repeatable=True)
_SAVE_BULK = Method("state", "save_bulk", repeatable=True)
_DELETE = Method("state", "delete", repeatable=True)
_DELETE_BULK = Method("state", "delete_bulk", repeatable=True)

_PLAIN = StateWrite("", None)[3:]
_OPTIONAL = (
    ("etag", spi.ETAG, "etag="),
    ("create", spi.FIRST_WRITE, 'concurrency="first-write"'),
    ("ttl_ms", spi.TTL, "ttl="),
    ("fence", spi.FENCE, "fence="),
    ("consistency", spi.CONSISTENCY, "consistency="),
)


class StateService(Service):
    """Key-value storage.

    A key is 1 to 1,024 bytes of UTF-8 without NUL or ``||``, compared byte for byte. Values are payloads: bytes as they are, the rest as JSON unless ``content_type`` says otherwise; ``None`` is saved as ``null``.
    """

    name = "state"

    # -- reading ----------------------------------------------------------

    def _reading(
        self, method: Method, store_name: str, consistency: Any, timeout: float | None, metadata: Any
    ) -> tuple[Operation, StateDriver]:
        driver: StateDriver = self._drivers.get(store_name) or self._driver(store_name)
        if consistency is not None:
            check_consistency(consistency)
            self._need(driver, spi.CONSISTENCY, "consistency=", store_name)
        if metadata is not None:
            check_metadata(metadata)
        limit = self._timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        return Operation(method, store_name, limit, metadata), driver

    @overload
    def get(self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]) -> T | None: ...
    @overload
    def get(self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]) -> Any | None: ...
    @placed(_GET)
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

        Args:
            store_name: the component.
            key: the key.
            consistency: ``"eventual"`` or ``"strong"``; ``None`` leaves it to the runtime.
            type: what to decode into, strictly; ``bytes`` gives the stored bytes.
            timeout: seconds, retries included; the client's by default, ``None``: no limit.
            metadata: for the component.

        Raises:
            PayloadError: the stored value does not fit ``type``; names the path.
        """
        op, driver = self._reading(_GET, store_name, consistency, timeout, metadata)
        stored = self._call(op, driver.get, check_key(key), consistency)
        return None if stored is None else decode_payload(stored[0], stored[1], type)

    @overload
    async def get_async(
        self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> T | None: ...
    @overload
    async def get_async(
        self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> Any | None: ...
    @placed(_GET)
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
        """Asynchronous `get`."""
        op, driver = self._reading(_GET, store_name, consistency, timeout, metadata)
        stored = await self._call_async(op, driver.get_async, check_key(key), consistency)
        return None if stored is None else decode_payload(stored[0], stored[1], type)

    @overload
    def get_item(
        self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> StateItem[T] | None: ...
    @overload
    def get_item(
        self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> StateItem[Any] | None: ...
    @placed(_GET_ITEM)
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
        """Return a key with its etag, content type and expiry; ``None`` where it is absent. Arguments as in `get`."""
        op, driver = self._reading(_GET_ITEM, store_name, consistency, timeout, metadata)
        stored = self._call(op, driver.get, check_key(key), consistency)
        return None if stored is None else item(key, stored, type)

    @overload
    async def get_item_async(
        self, store_name: str, key: str, *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> StateItem[T] | None: ...
    @overload
    async def get_item_async(
        self, store_name: str, key: str, *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> StateItem[Any] | None: ...
    @placed(_GET_ITEM)
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
        """Asynchronous `get_item`."""
        op, driver = self._reading(_GET_ITEM, store_name, consistency, timeout, metadata)
        stored = await self._call_async(op, driver.get_async, check_key(key), consistency)
        return None if stored is None else item(key, stored, type)

    @overload
    def get_bulk(
        self, store_name: str, keys: Iterable[str], *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[T]]: ...
    @overload
    def get_bulk(
        self, store_name: str, keys: Iterable[str], *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[Any]]: ...
    @placed(_GET_BULK)
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
        """Return the items of several keys; absent ones are left out. Other arguments as in `get`.

        Raises:
            BulkError: some values do not fit ``type``; the others are its ``result``.
        """
        wanted = check_keys(keys)
        op, driver = self._reading(_GET_BULK, store_name, consistency, timeout, metadata)
        return bulk_items(wanted, self._call(op, driver.get_bulk, wanted, consistency), type)

    @overload
    async def get_bulk_async(
        self, store_name: str, keys: Iterable[str], *, type: builtins.type[T], **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[T]]: ...
    @overload
    async def get_bulk_async(
        self, store_name: str, keys: Iterable[str], *, type: Any = None, **options: Unpack[ReadOptions]
    ) -> dict[str, StateItem[Any]]: ...
    @placed(_GET_BULK)
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
        """Asynchronous `get_bulk`."""
        wanted = check_keys(keys)
        op, driver = self._reading(_GET_BULK, store_name, consistency, timeout, metadata)
        return bulk_items(wanted, await self._call_async(op, driver.get_bulk_async, wanted, consistency), type)

    def _listing(
        self, store_name: str, prefix: Any, limit: Any, after: Any, timeout: float | None, metadata: Any
    ) -> Any:
        op, driver = self._reading(_LIST_KEYS, store_name, None, timeout, metadata)
        self._need(driver, spi.LIST_KEYS, "list_keys", store_name)
        if prefix != "":
            check_key(prefix)
        if after is not None:
            check_key(after)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidArgumentError(f"limit must be an int ≥ 1 or None, got {limit!r}")
        return op, driver

    @placed(_LIST_KEYS)
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
            store_name: the component.
            prefix: with which they begin, literally.
            limit: how many at most; ``None``: all.
            after: only those behind this key, for paging.
            timeout, metadata: as in `get`.
        """
        op, driver = self._listing(store_name, prefix, limit, after, timeout, metadata)
        return self._call(op, driver.list_keys, prefix, limit, after)

    @placed(_LIST_KEYS)
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
        """Asynchronous `list_keys`."""
        op, driver = self._listing(store_name, prefix, limit, after, timeout, metadata)
        return await self._call_async(op, driver.list_keys_async, prefix, limit, after)

    # -- writing ----------------------------------------------------------

    def _writing(
        self, method: Method, store_name: str, writes: Sequence[StateWrite], timeout: float | None, metadata: Any
    ) -> tuple[Operation, StateDriver]:
        driver: StateDriver = self._drivers.get(store_name) or self._driver(store_name)
        if metadata is not None:
            check_metadata(metadata)
        limit = self._timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
        op = Operation(method, store_name, limit, metadata)
        for write in writes:
            if write[3:] != _PLAIN:
                self._check_features(driver, write, store_name)
                if write.etag is not None or write.create or write.fence is not None:
                    op.repeatable = False
        return op, driver

    def _check_features(self, driver: StateDriver, write: StateWrite, store_name: str) -> None:
        for attribute, feature, what in _OPTIONAL:
            if getattr(write, attribute) not in (None, False):
                self._need(driver, feature, what, store_name)

    @placed(_SAVE)
    def save(
        self,
        store_name: str,
        key: str,
        value: Any,
        metadata: Mapping[str, str] | None = None,
        *,
        etag: str | None = None,
        ttl: Ttl | None = None,
        concurrency: Concurrency | None = None,
        consistency: Consistency | None = None,
        content_type: str | None = None,
        fence: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> None:
        """Save a value.

        Args:
            store_name: the component.
            key: the key.
            value: bytes as they are, anything else encoded by ``content_type``.
            metadata: for the component.
            etag: only if this is still the key's etag, whatever ``concurrency``.
            ttl: seconds to live, > 0; ``None`` clears an earlier one.
            concurrency: without an etag, ``"first-write"`` only creates; ``None`` and ``"last-write"`` overwrite.
            consistency: ``"eventual"`` or ``"strong"``; ``None`` leaves it to the runtime.
            content_type: how to encode; JSON by default.
            fence: a lease's token; refused once the key saw a higher one.
            timeout: as in `get`.

        Raises:
            ConflictError: a condition did not hold; nothing was written.
            PayloadError: the value cannot be encoded.
            ResourceExhaustedError: the disk is full or the value too large.
        """
        write = save_write(key, value, metadata, etag, ttl, concurrency, consistency, content_type, fence)
        op, driver = self._writing(_SAVE, store_name, (write,), timeout, metadata)
        self._call(op, driver.write, (write,), True)

    @placed(_SAVE)
    async def save_async(
        self,
        store_name: str,
        key: str,
        value: Any,
        metadata: Mapping[str, str] | None = None,
        *,
        etag: str | None = None,
        ttl: Ttl | None = None,
        concurrency: Concurrency | None = None,
        consistency: Consistency | None = None,
        content_type: str | None = None,
        fence: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
    ) -> None:
        """Asynchronous `save`."""
        write = save_write(key, value, metadata, etag, ttl, concurrency, consistency, content_type, fence)
        op, driver = self._writing(_SAVE, store_name, (write,), timeout, metadata)
        await self._call_async(op, driver.write_async, (write,), True)

    @placed(_SAVE_BULK)
    def save_bulk(
        self,
        store_name: str,
        items: Mapping[str, Any] | Iterable[StateItem[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Save several values: a mapping key → value, or `StateItem` objects with etags and expiries of their own.

        Raises:
            BulkError: ``failed`` maps each key that failed to its error; the others are saved.
        """
        keys, writes, failed = bulk_writes(items, metadata)
        op, driver = self._writing(_SAVE_BULK, store_name, writes, timeout, metadata)
        finish_bulk(
            "save_bulk", store_name, keys, failed, self._call(op, driver.write, writes, False) if writes else {}
        )

    @placed(_SAVE_BULK)
    async def save_bulk_async(
        self,
        store_name: str,
        items: Mapping[str, Any] | Iterable[StateItem[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Asynchronous `save_bulk`."""
        keys, writes, failed = bulk_writes(items, metadata)
        op, driver = self._writing(_SAVE_BULK, store_name, writes, timeout, metadata)
        found = await self._call_async(op, driver.write_async, writes, False) if writes else {}
        finish_bulk("save_bulk", store_name, keys, failed, found)

    @placed(_DELETE)
    def delete(
        self,
        store_name: str,
        key: str,
        *,
        etag: str | None = None,
        fence: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete a key; an absent one is fine, unless an ``etag`` is given.

        Raises:
            ConflictError: the etag is not the key's current one, or the fence is too low.
        """
        write = delete_write(key, etag, fence, metadata)
        op, driver = self._writing(_DELETE, store_name, (write,), timeout, metadata)
        self._call(op, driver.write, (write,), True)

    @placed(_DELETE)
    async def delete_async(
        self,
        store_name: str,
        key: str,
        *,
        etag: str | None = None,
        fence: int | None = None,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Asynchronous `delete`."""
        write = delete_write(key, etag, fence, metadata)
        op, driver = self._writing(_DELETE, store_name, (write,), timeout, metadata)
        await self._call_async(op, driver.write_async, (write,), True)

    @placed(_DELETE_BULK)
    def delete_bulk(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete several keys; absent ones are fine.

        Raises:
            BulkError: ``failed`` maps each key that failed to its error; the others are deleted.
        """
        wanted = check_keys(keys)
        writes = [StateWrite(key, None) for key in wanted]
        op, driver = self._writing(_DELETE_BULK, store_name, writes, timeout, metadata)
        finish_bulk(
            "delete_bulk", store_name, wanted, {}, self._call(op, driver.write, writes, False) if writes else {}
        )

    @placed(_DELETE_BULK)
    async def delete_bulk_async(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Asynchronous `delete_bulk`."""
        wanted = check_keys(keys)
        writes = [StateWrite(key, None) for key in wanted]
        op, driver = self._writing(_DELETE_BULK, store_name, writes, timeout, metadata)
        found = await self._call_async(op, driver.write_async, writes, False) if writes else {}
        finish_bulk("delete_bulk", store_name, wanted, {}, found)

    @placed(TRANSACTION)
    def transaction(
        self,
        store_name: str,
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> StateTransaction:
        """Return a handle whose writes are applied in order when its block ends: all, or on any error none.

        >>> with client.state.transaction("orders") as tx:  # doctest: +SKIP
        ...     tx.save("a", 1)
        ...     tx.delete("b")
        """
        check_timeout(timeout)
        check_metadata(metadata)
        self._need(self._driver(store_name), spi.TRANSACTION, "transaction", store_name)
        return StateTransaction(self, store_name, timeout, metadata)
