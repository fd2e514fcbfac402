"""State in words of neither protocol, and how it says no (dapr/dapr ``pkg/api/errors/state.go``, ``pkg/messages``)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..._core.arguments import CLIENT_TIMEOUT, check_key
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, ConflictError, InvalidArgumentError
from ...protocols.dapr.failures import DaprError
from ...spi import state as spi
from ...spi.operation import Method
from ...spi.state import StateWrite
from ...state.prepare import delete_write, prepare_write, save_write
from ...state.types import StateItem
from ..context import Context, Lack
from ..limits import Budget

_STORES = "https://docs.dapr.io/reference/components-reference/supported-state-stores/"


def lacking(lack: Lack, store: str, app_id: str) -> DaprError:
    """Return the refusal of a store that is not there; the app id is told over HTTP alone."""
    metadata = {"appID": app_id} if app_id else None
    if lack is Lack.NOT_FOUND:
        return DaprError(
            400,
            "INVALID_ARGUMENT",
            "ERR_STATE_STORE_NOT_FOUND",
            f"state store {store} is not found",
            reason="DAPR_STATE_NOT_FOUND",
            metadata=metadata,
        )
    return DaprError(
        500,
        "FAILED_PRECONDITION",
        "ERR_STATE_STORE_NOT_CONFIGURED",
        f"state store {store} is not configured",
        reason="DAPR_STATE_NOT_CONFIGURED",
        metadata=metadata,
    )


def illegal_key(store: str, key: str, why: str) -> DaprError:
    """Return the refusal of a key."""
    return DaprError(
        400,
        "INVALID_ARGUMENT",
        "ERR_MALFORMED_REQUEST",
        why,
        reason="DAPR_STATE_ILLEGAL_KEY",
        resource=("state", store),
        violations=((key, why),),
    )


def empty_key() -> DaprError:
    """Return the refusal of a save without a key over gRPC; over HTTP the body is malformed."""
    return DaprError.basic(400, "INVALID_ARGUMENT", "ERR_STATE_SAVE", "state key cannot be empty")


def failed(code: str, text: str, error: CloudRuntimesError) -> DaprError:
    """Return a failure of an operation; ``text``, if any, is put before what went wrong."""
    before = f"{text}: " if text else ""
    if isinstance(error, ConflictError):
        why = f"possible etag mismatch. error from state store: {error.message}"
        return DaprError.basic(409, "ABORTED", code, before + why)
    return DaprError.basic(500, "INTERNAL", code, before + error.message)


def no_etag(code: str, text: str, etag: str) -> DaprError:
    """Return the refusal of an etag that the store can never have given."""
    why = f"invalid etag value: {etag!r:.80} is none of this store"
    return DaprError.basic(400, "INVALID_ARGUMENT", code, f"{text}: {why}")


def no_transactions(store: str) -> DaprError:
    """Return the refusal of a transaction where the component has none."""
    return DaprError(
        500,
        "UNIMPLEMENTED",
        "ERR_STATE_STORE_NOT_SUPPORTED",
        f"state store {store} doesn't support transactions",
        reason="DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED",
        resource=("state", store),
        links=(("Check the list of state stores and the features they support", _STORES),),
    )


def not_an_operation(operation: str) -> DaprError:
    """Return the refusal of an operation of a transaction that is neither ``upsert`` nor ``delete``."""
    return DaprError.basic(
        400, "UNIMPLEMENTED", "ERR_NOT_SUPPORTED_STATE_OPERATION", f"operation type {operation} not supported"
    )


def no_query(store: str) -> DaprError:
    """Return the refusal of a query, as of a store that does not support querying."""
    return DaprError(
        500,
        "INTERNAL",
        "ERR_STATE_STORE_NOT_SUPPORTED",
        "state store does not support querying",
        reason="DAPR_STATE_QUERYING_NOT_SUPPORTED",
        resource=("state", store),
    )


_SAVE: Final = Method("state", "save_bulk", repeatable=True)
_DELETE: Final = Method("state", "delete_bulk", repeatable=True)
_TRANSACTION: Final = Method("state", "transaction", repeatable=False)

_CONCURRENCY: Final = ("", "first-write", "last-write")
_CONSISTENCY: Final = ("", "eventual", "strong")
_TRANSACTING: Final = "error while executing state transaction"
_READ_AT_ONCE: Final = 8
"""Keys of a bulk: of the largest values (16 MiB) these are 128 MiB, which is what an answer may take beyond its budget."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(slots=True)
class Change:
    """Save request, or with ``data=None`` a delete request.

    Attributes:
        key: as received.
        data: the value as bytes.
        content_type: of ``data``.
        etag: ``""``: no condition.
        concurrency, consistency: in Dapr's words, ``""``: not given.
        metadata: for the component; ``ttlInSeconds`` is ours.
    """

    key: str
    data: bytes | None = None
    content_type: str = JSON
    etag: str = ""
    concurrency: str = ""
    consistency: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class StateApi:
    """The state stores of a client.

    Keys are those of the client: the app id is not put before them, so that what the client's own API has saved is there too.
    """

    def __init__(self, context: Context, app_id: str = "") -> None:
        self._context = context
        self._app_id = app_id  # told in refusals
        self._state = context.client.state

    async def get(self, store: str, key: str, consistency: str, metadata: dict[str, str]) -> StateItem[bytes] | None:
        """Return the item, ``None`` where there is none."""
        self.need_store(store)
        self._check_key(store, key)
        try:
            return await self._state.get_item_async(
                store,
                key,
                consistency=self._consistency(store, consistency),
                type=bytes,
                metadata=metadata or None,
            )
        except CloudRuntimesError as error:
            raise failed("ERR_STATE_GET", f"fail to get {key} from state store {store}", error) from error

    async def get_bulk(
        self, store: str, keys: Sequence[str], metadata: dict[str, str], budget: Budget
    ) -> AsyncIterator[tuple[str, StateItem[bytes] | None]]:
        """Yield each key once, with its item, in the order of the keys.

        The values are read a few at a time, so that whoever encodes and charges them can stop before the rest is read.
        """
        for key in keys:
            self._check_key(store, key)
        wanted = list(dict.fromkeys(keys))
        budget.add(sum(map(len, wanted)), len(wanted))
        for start in range(0, len(wanted), _READ_AT_ONCE):
            part = wanted[start : start + _READ_AT_ONCE]
            timeout = budget.remaining()
            try:
                items = await self._state.get_bulk_async(
                    store, part, type=bytes, timeout=timeout, metadata=metadata or None
                )
            except CloudRuntimesError as error:
                raise failed("ERR_STATE_BULK_GET", "", error) from error
            for key in part:
                yield key, items.pop(key, None)
            await asyncio.sleep(0)  # small reads do not leave the loop

    def bulk_budget(self, store: str) -> Budget:
        """Return the budget for the answer of `get_bulk`; refuse a store that is not there."""
        self.need_store(store)
        return self._context.budget(f"the values of state store {store}", "ask for fewer keys at a time")

    async def save(self, store: str, changes: Sequence[Change]) -> None:
        """Save all; of those that fail the others are saved nevertheless."""
        await self._change(
            _SAVE, store, changes, "ERR_STATE_SAVE", f"failed saving state in state store {store}", atomic=False
        )

    async def delete(self, store: str, change: Change) -> None:
        """Delete a key."""
        text = f"failed deleting state with key {change.key}"
        await self._change(_DELETE, store, [change], "ERR_STATE_DELETE", text, atomic=False)

    async def delete_bulk(self, store: str, changes: Sequence[Change]) -> None:
        """Delete several keys."""
        text = f"failed deleting state in state store {store}"
        await self._change(_DELETE, store, changes, "ERR_STATE_BULK_DELETE", text, atomic=False)

    def need_transactions(self, store: str) -> None:
        """Refuse a store that has no transactions; before the body is read, as Dapr does."""
        self.need_store(store)
        try:
            features = self._context.driver("state", store).features
        except CloudRuntimesError as error:
            raise failed("ERR_STATE_TRANSACTION", _TRANSACTING, error) from error
        if spi.TRANSACTION not in features:
            raise no_transactions(store)

    async def transact(self, store: str, changes: Sequence[Change]) -> None:
        """Apply changes in their order, all or none."""
        self.need_transactions(store)
        try:
            await self._change(_TRANSACTION, store, changes, "ERR_STATE_TRANSACTION", _TRANSACTING, atomic=True)
        except DaprError as error:
            if error.error_code == "ERR_STATE_TRANSACTION":  # a stale etag too
                error.status, error.grpc_code = 500, "INTERNAL"
            raise

    async def query(self, store: str) -> None:
        """Refuse: no store of ours has queries."""
        self.need_store(store)
        raise no_query(store)

    def need_store(self, store: str) -> None:
        """Refuse a store that is not there; before the body is read, as Dapr does."""
        lack = self._context.lack("state", store)
        if lack is not None:
            raise lacking(lack, store, self._app_id)

    def _check_key(self, store: str, key: str) -> None:
        if "||" in key:
            raise illegal_key(store, key, f"input key/keyPrefix '{key}' can't contain '||'")
        try:
            check_key(key)
        except InvalidArgumentError as error:
            raise illegal_key(store, key, error.message) from error

    def _consistency(self, store: str, given: str) -> Any:
        """Return the consistency to ask for: one that there is not, or that the component does not know of, is left out, as Dapr's do."""
        return (
            given
            if given in _CONSISTENCY[1:] and spi.CONSISTENCY in self._context.driver("state", store).features
            else None
        )

    async def _change(
        self, method: Method, store: str, changes: Sequence[Change], code: str, text: str, *, atomic: bool
    ) -> None:
        self.need_store(store)
        for change in changes:
            self._check_key(store, change.key)
        if not changes:
            return
        try:
            etags = self._context.driver("state", store).etags
            for change in changes:
                # of a save alone: a delete has a stale one, as in daprd
                if etags and change.etag and change.data is not None and re.fullmatch(etags, change.etag) is None:
                    raise no_etag(code, text, change.etag)
            writes = [self._write(store, change) for change in changes]
            frame = self._context.frame("state")
            op, driver = prepare_write(frame, method, store, writes, CLIENT_TIMEOUT, None)
            if atomic and any(write.etag is not None or write.create for write in writes):
                frame.need(driver, spi.TRANSACTION_ETAG, "a condition in a transaction", store)
            errors = await frame.call_async(op, driver.write_async, writes, atomic or len(writes) == 1)
        except CloudRuntimesError as error:
            raise failed(code, text, error) from error
        if errors:
            # a mismatch goes before: repeating is of no use then
            first = min(errors.values(), key=lambda each: not isinstance(each, ConflictError))
            raise failed(code, text, first) from first

    def _write(self, store: str, change: Change) -> StateWrite:
        if change.concurrency not in _CONCURRENCY:
            raise InvalidArgumentError(f"unrecognized concurrency model '{change.concurrency}'")
        if change.consistency not in _CONSISTENCY:
            raise InvalidArgumentError(f"unrecognized consistency model '{change.consistency}'")
        metadata = dict(change.metadata)
        ttl = metadata.pop("ttlInSeconds", None)
        if change.data is None:
            return delete_write(change.key, change.etag or None, None, metadata or None)
        return save_write(
            change.key,
            change.data,
            metadata or None,
            change.etag or None,
            _ttl(ttl),
            change.concurrency or None,
            self._consistency(store, change.consistency),
            change.content_type,
            None,
        )


def _ttl(given: str | None) -> int | None:
    """Return seconds to live; 0 and less: for ever."""
    if given is None or not given:
        return None
    if _WHOLE.fullmatch(given) is None:
        raise InvalidArgumentError(f"incorrect value for metadata 'ttlInSeconds': {given!r} is no whole number")
    seconds = int(given)
    return seconds if seconds > 0 else None
