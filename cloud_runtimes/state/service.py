"""`StateService`: what ``client.state`` is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core.arguments import CLIENT_TIMEOUT, check_keys, check_metadata, check_timeout
from .._service import error_context
from ..spi import state as spi
from ..spi.operation import Method
from ..spi.state import StateWrite
from ._reads import StateReads
from .prepare import bulk_writes, delete_write, finish_bulk, prepare_write, save_write
from .transaction import TRANSACTION, StateTransaction
from .types import Concurrency, Consistency, StateItem, Ttl

_SAVE = Method("state", "save", repeatable=True)
_SAVE_BULK = Method("state", "save_bulk", repeatable=True)
_DELETE = Method("state", "delete", repeatable=True)
_DELETE_BULK = Method("state", "delete_bulk", repeatable=True)


class StateService(StateReads):
    """Key-value storage.

    A key is 1 to 1,024 bytes of UTF-8 without NUL or ``||``, compared byte for byte. Values are payloads: bytes as they are, the rest as JSON unless ``content_type`` says otherwise; ``None`` is saved as ``null``.
    """

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

        >>> client.state.save("orders", "1", {"total": 12.5}, ttl=3600)
        >>> client.state.get("orders", "1")
        {'total': 12.5}

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
            UnsupportedError: the store cannot honour an argument.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        try:
            write = save_write(key, value, metadata, etag, ttl, concurrency, consistency, content_type, fence)
            op, driver = prepare_write(self._frame, _SAVE, store_name, (write,), timeout, metadata)
            self._frame.call(op, driver.write, (write,), True)
        except BaseException as error:
            self._frame.add_context(error, _SAVE, store_name)
            raise

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
        """Save a value.

        >>> client.state.save("orders", "1", {"total": 12.5}, ttl=3600)
        >>> client.state.get("orders", "1")
        {'total': 12.5}

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
            UnsupportedError: the store cannot honour an argument.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        try:
            write = save_write(key, value, metadata, etag, ttl, concurrency, consistency, content_type, fence)
            op, driver = prepare_write(self._frame, _SAVE, store_name, (write,), timeout, metadata)
            await self._frame.call_async(op, driver.write_async, (write,), True)
        except BaseException as error:
            self._frame.add_context(error, _SAVE, store_name)
            raise

    @error_context(_SAVE_BULK)
    def save_bulk(
        self,
        store_name: str,
        items: Mapping[str, Any] | Iterable[StateItem[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Save several values.

        Args:
            store_name, timeout, metadata: as in `get`.
            items: a mapping key → value, or `StateItem` objects with etags and expiries of their own.

        Raises:
            BulkError: ``failed`` maps each key that failed to its error; the others are saved.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        keys, writes, failed = bulk_writes(items, metadata)
        op, driver = prepare_write(self._frame, _SAVE_BULK, store_name, writes, timeout, metadata)
        finish_bulk(
            "save_bulk", store_name, keys, failed, self._frame.call(op, driver.write, writes, False) if writes else {}
        )

    @error_context(_SAVE_BULK)
    async def save_bulk_async(
        self,
        store_name: str,
        items: Mapping[str, Any] | Iterable[StateItem[Any]],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Save several values.

        Args:
            store_name, timeout, metadata: as in `get`.
            items: a mapping key → value, or `StateItem` objects with etags and expiries of their own.

        Raises:
            BulkError: ``failed`` maps each key that failed to its error; the others are saved.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        keys, writes, failed = bulk_writes(items, metadata)
        op, driver = prepare_write(self._frame, _SAVE_BULK, store_name, writes, timeout, metadata)
        errors = await self._frame.call_async(op, driver.write_async, writes, False) if writes else {}
        finish_bulk("save_bulk", store_name, keys, failed, errors)

    @error_context(_DELETE)
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

        Args:
            store_name, key, timeout, metadata: as in `get`.
            etag: only if this is still the key's etag.
            fence: a lease's token; refused once the key saw a higher one.

        Raises:
            ConflictError: the etag is not the key's current one, or the fence is too low.
            UnsupportedError: the store cannot honour an argument.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        write = delete_write(key, etag, fence, metadata)
        op, driver = prepare_write(self._frame, _DELETE, store_name, (write,), timeout, metadata)
        self._frame.call(op, driver.write, (write,), True)

    @error_context(_DELETE)
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
        """Delete a key; an absent one is fine, unless an ``etag`` is given.

        Args:
            store_name, key, timeout, metadata: as in `get`.
            etag: only if this is still the key's etag.
            fence: a lease's token; refused once the key saw a higher one.

        Raises:
            ConflictError: the etag is not the key's current one, or the fence is too low.
            UnsupportedError: the store cannot honour an argument.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        write = delete_write(key, etag, fence, metadata)
        op, driver = prepare_write(self._frame, _DELETE, store_name, (write,), timeout, metadata)
        await self._frame.call_async(op, driver.write_async, (write,), True)

    @error_context(_DELETE_BULK)
    def delete_bulk(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete several keys; absent ones are fine.

        Args:
            store_name, timeout, metadata: as in `get`.
            keys: which ones.

        Raises:
            BulkError: ``failed`` maps each key that failed to its error; the others are deleted.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        wanted = check_keys(keys)
        writes = [StateWrite(key, None) for key in wanted]
        op, driver = prepare_write(self._frame, _DELETE_BULK, store_name, writes, timeout, metadata)
        finish_bulk(
            "delete_bulk", store_name, wanted, {}, self._frame.call(op, driver.write, writes, False) if writes else {}
        )

    @error_context(_DELETE_BULK)
    async def delete_bulk_async(
        self,
        store_name: str,
        keys: Iterable[str],
        *,
        timeout: float | None = CLIENT_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Delete several keys; absent ones are fine.

        Args:
            store_name, timeout, metadata: as in `get`.
            keys: which ones.

        Raises:
            BulkError: ``failed`` maps each key that failed to its error; the others are deleted.
            ComponentNotFoundError, UnavailableError, DeadlineExceededError: as in `get`.
        """
        wanted = check_keys(keys)
        writes = [StateWrite(key, None) for key in wanted]
        op, driver = prepare_write(self._frame, _DELETE_BULK, store_name, writes, timeout, metadata)
        errors = await self._frame.call_async(op, driver.write_async, writes, False) if writes else {}
        finish_bulk("delete_bulk", store_name, wanted, {}, errors)

    @error_context(TRANSACTION)
    def transaction(
        self, store_name: str, *, timeout: float | None = CLIENT_TIMEOUT, metadata: Mapping[str, str] | None = None
    ) -> StateTransaction:
        """Return a handle whose writes are applied in order when its block ends: all, or on any error none.

        Args:
            store_name: the component.
            timeout: seconds for the end, which sends the writes.
            metadata: for the component.

        Raises:
            ConflictError: on leaving, a condition did not hold; nothing was written.
            UnsupportedError: on leaving, the store cannot honour what was asked for.
            UnavailableError, DeadlineExceededError: on leaving, as in `get`.

        >>> with client.state.transaction("orders") as tx:  # doctest: +SKIP
        ...     tx.save("a", 1)
        ...     tx.delete("b")
        """
        check_timeout(timeout)
        check_metadata(metadata)
        self._frame.need(self._frame.driver(store_name), spi.TRANSACTION, "transaction", store_name)
        return StateTransaction(self, store_name, timeout, metadata)
