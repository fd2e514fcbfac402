"""From what a driver gives to what the caller gets, and bulk arguments to writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .._core.arguments import check_metadata, check_several
from ..codec.payload import decode_payload
from ..errors import BulkError, CloudRuntimesError, InvalidArgumentError
from ..spi.state import StateWrite, StoredValue
from .prepare import save_write
from .types import StateItem

__all__ = ["bulk_items", "bulk_writes", "finish_bulk", "item"]


def item(key: str, stored: StoredValue, type: Any) -> StateItem[Any]:
    expires_at = ttl = None
    if stored.expires_ms is not None:
        expires_at = datetime.fromtimestamp(stored.expires_ms / 1000, UTC)
        ttl = max(0.0, (expires_at - datetime.now(UTC)).total_seconds())
    return StateItem(
        key=key,
        value=decode_payload(stored.data, stored.content_type, type),
        etag=stored.etag,
        content_type=stored.content_type,
        ttl=ttl,
        expires_at=expires_at,
    )


def bulk_items(keys: Sequence[str], found: Mapping[str, StoredValue], type: Any) -> dict[str, StateItem[Any]]:
    items: dict[str, StateItem[Any]] = {}
    failed: dict[Any, CloudRuntimesError] = {}
    for key in keys:
        if key in found:
            try:
                items[key] = item(key, found[key], type)
            except CloudRuntimesError as error:
                failed[key] = error
    if failed:
        raise BulkError(
            f"get_bulk: {len(failed)} of {len(keys)} values could not be decoded", failed=failed, result=items
        )
    return items


def bulk_writes(
    items: Mapping[str, Any] | Iterable[StateItem[Any]], metadata: Any
) -> tuple[list[str], list[StateWrite], dict[Any, CloudRuntimesError]]:
    check_metadata(metadata)
    if isinstance(items, Mapping):
        items = [StateItem(key=key, value=value) for key, value in items.items()]
    keys: list[str] = []
    writes: list[StateWrite] = []
    failed: dict[Any, CloudRuntimesError] = {}
    check_several("items", items)
    for each in items:
        if not isinstance(each, StateItem):
            raise InvalidArgumentError(f"save_bulk takes a mapping or StateItem objects, not {type(each).__name__}")
        own = {**(metadata or {}), **each.metadata} or None
        check_metadata(own)
        try:
            write = save_write(each.key, each.value, own, each.etag, each.ttl, None, None, each.content_type, None)
        except CloudRuntimesError as error:
            failed[each.key] = error
        else:
            keys.append(each.key)
            writes.append(write)
    return keys, writes, failed


def finish_bulk(
    name: str,
    store_name: str,
    keys: Sequence[str],
    failed: dict[Any, CloudRuntimesError],
    found: Mapping[int, CloudRuntimesError],
) -> None:
    failed = {**failed, **{keys[index]: error for index, error in found.items()}}
    if failed:
        first = next(iter(failed))
        raise BulkError(
            f"{name}: {len(failed)} of {len(keys) + len(failed) - len(found)} keys failed in {store_name!r}; "
            f"{first!r}: {failed[first]}",
            failed=failed,
            service="state",
            operation=name,
            component=store_name,
        )
