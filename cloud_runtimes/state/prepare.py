"""Checks and encoding of the state service before any I/O, and its reading of a driver's answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .._core.arguments import CLIENT_TIMEOUT, check_key, check_metadata, check_several, check_timeout
from .._service import ServiceFrame
from ..codec.payload import decode_payload, encode_payload
from ..errors import BulkError, CloudRuntimesError, InvalidArgumentError, PayloadError
from ..spi import state as spi
from ..spi.operation import Method, Operation
from ..spi.state import StateDriver, StateWrite, StoredValue
from .types import StateItem

PLAIN: Final = StateWrite("", None)[3:]
"""The conditions and options of a write that has none."""
_OPTIONAL: Final = (
    ("etag", spi.ETAG, "etag="),
    ("create", spi.FIRST_WRITE, 'concurrency="first-write"'),
    ("ttl_ms", spi.TTL, "ttl="),
    ("fence", spi.FENCE, "fence="),
    ("consistency", spi.CONSISTENCY, "consistency="),
)
_new_tuple = tuple.__new__  # half the cost of a NamedTuple's own
_MAX_TTL: Final = 100 * 365 * 86400.0


def check_consistency(consistency: Any) -> None:
    """Refuse what is no `Consistency`."""
    if consistency not in (None, "eventual", "strong"):
        raise InvalidArgumentError(f"consistency {consistency!r}: give 'eventual', 'strong' or None")


def ttl_ms(ttl: Any, metadata: Mapping[str, str] | None) -> int | None:
    """Return a time to live in milliseconds, rounded up; ``None``: for ever.

    The metadata key ``ttlInSeconds`` (Dapr's name) counts where no typed ``ttl`` is given; ``-1`` there means for ever.
    """
    if ttl is None:
        text = metadata.get("ttlInSeconds") if metadata else None
        if text is None or text.strip() == "-1":
            return None
        try:
            ttl = int(text)
        except ValueError:
            raise InvalidArgumentError(
                f"metadata ttlInSeconds={text!r}: give a whole number of seconds, or -1 for none"
            ) from None
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidArgumentError(f"ttl must be seconds or a timedelta, not {type(ttl).__name__}")
    if not 0 < seconds <= _MAX_TTL:
        raise InvalidArgumentError(
            f"ttl must be > 0 and at most 100 years of seconds, got {seconds}; None keeps a value for ever"
        )
    return math.ceil(seconds * 1000)


def _check_condition(etag: Any, fence: Any) -> None:
    if etag is not None and (not isinstance(etag, str) or not etag):
        raise InvalidArgumentError("etag must be the non-empty text that get_item gave, or None")
    if fence is not None and (isinstance(fence, bool) or not isinstance(fence, int) or not 0 <= fence < 2**63):
        raise InvalidArgumentError(f"fence must be a lease's token, an int of 0 to 2**63 - 1, got {fence!r}")


def save_write(
    key: str,
    value: Any,
    metadata: Mapping[str, str] | None,
    etag: str | None,
    ttl: Any,
    concurrency: str | None,
    consistency: str | None,
    content_type: str | None,
    fence: int | None,
) -> StateWrite:
    """Check and encode one save."""
    check_key(key)
    data, content_type = encode_payload(value, content_type)
    if (
        etag is None
        and ttl is None
        and concurrency is None
        and consistency is None
        and fence is None
        and metadata is None
    ):
        return _new_tuple(StateWrite, (key, data, content_type, *PLAIN))
    check_metadata(metadata)
    check_consistency(consistency)
    if concurrency not in (None, "first-write", "last-write"):
        raise InvalidArgumentError(f"concurrency {concurrency!r}: give 'first-write', 'last-write' or None")
    _check_condition(etag, fence)
    create = etag is None and concurrency == "first-write"
    return StateWrite(key, data, content_type, etag, create, ttl_ms(ttl, metadata), fence, consistency, metadata)


def delete_write(
    key: str, etag: str | None, fence: int | None, metadata: Mapping[str, str] | None = None
) -> StateWrite:
    """Check one delete."""
    check_key(key)
    _check_condition(etag, fence)
    return StateWrite(key, None, etag=etag, fence=fence, metadata=metadata)


def item(key: str, stored: StoredValue, type: Any) -> StateItem[Any]:
    expires_at = ttl = None
    if stored.expires_ms is not None:
        try:
            expires_at = datetime.fromtimestamp(stored.expires_ms / 1000, UTC)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise PayloadError(
                f"the value of {key!r} ends at no time of the calendar ({error}): save it again, or delete it"
            ) from error
        ttl = max(0.0, (expires_at - datetime.now(UTC)).total_seconds())
    return StateItem(
        key=key,
        value=decode_payload(stored.data, stored.content_type, type),
        etag=stored.etag,
        content_type=stored.content_type,
        ttl=ttl,
        expires_at=expires_at,
    )


def bulk_items(
    keys: Sequence[str], values: Mapping[str, StoredValue | CloudRuntimesError], type: Any
) -> dict[str, StateItem[Any]]:
    items: dict[str, StateItem[Any]] = {}
    failed: dict[Any, CloudRuntimesError] = {}
    for key in keys:
        if key in values:
            try:
                stored = values[key]
                if isinstance(stored, CloudRuntimesError):
                    raise stored
                items[key] = item(key, stored, type)
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
    errors: Mapping[int, CloudRuntimesError],
) -> None:
    failed = {**failed, **{keys[index]: error for index, error in errors.items()}}
    if failed:
        first = next(iter(failed))
        raise BulkError(
            f"{name}: {len(failed)} of {len(keys) + len(failed) - len(errors)} keys failed in {store_name!r}; "
            f"{first!r}: {failed[first]}",
            failed=failed,
            service="state",
            operation=name,
            component=store_name,
        )


def prepare_write(
    frame: ServiceFrame,
    method: Method,
    store_name: str,
    writes: Sequence[StateWrite],
    timeout: float | None,
    metadata: Mapping[str, str] | None,
) -> tuple[Operation, StateDriver]:
    """Return the operation and the driver for writes; refuse what the driver does not declare."""
    driver: StateDriver = frame.drivers.get(store_name) or frame.driver(store_name)
    if metadata is not None:
        check_metadata(metadata)
    limit = frame.timeout if timeout is CLIENT_TIMEOUT else check_timeout(timeout)
    op = Operation(method, store_name, limit, metadata)
    for write in writes:
        if write[3:] != PLAIN:
            _check_features(frame, driver, write, store_name)
            if write.etag is not None or write.create or write.fence is not None:
                op.repeatable = False
    return op, driver


def _check_features(frame: ServiceFrame, driver: StateDriver, write: StateWrite, store_name: str) -> None:
    for attribute, feature, what in _OPTIONAL:
        if getattr(write, attribute) not in (None, False):
            frame.need(driver, feature, what, store_name)
