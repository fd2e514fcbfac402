"""The transaction handle of the state service."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .._service import Outbox
from ..errors import ClosedError, CloudRuntimesError, ConflictError
from ..spi import state as spi
from ..spi.change import Change
from ..spi.driver import Driver
from ..spi.operation import Method, Operation
from ..spi.state import StateDriver, StateWrite
from .prepare import delete_write, prepare_write, save_write
from .types import Concurrency, Consistency, Ttl

if TYPE_CHECKING:
    from .service import StateService

TRANSACTION = Method("state", "transaction", repeatable=False)


class Settling(Protocol):
    """Commits a transaction that settles events too."""

    def commit(self, op: Operation, changes: Sequence[Change]) -> None:
        """Settle the events and apply changes, all or nothing."""

    async def commit_async(self, op: Operation, changes: Sequence[Change]) -> None:
        """Settle the events and apply changes, all or nothing."""


class Once(Protocol):
    """Ids of handled events, which a transaction writes too; see `HandledIds`."""

    @property
    def keys(self) -> Sequence[str]:
        """The keys of the ids."""

    @property
    def writes(self) -> Sequence[StateWrite]:
        """Return what puts them into the store, where they are not."""

    def check(self) -> None:
        """Refuse events that are settled already."""

    def done(self) -> None:
        """Acknowledge the events."""

    def resolve(self, found: Collection[str], conflict: ConflictError) -> None:
        """Acknowledge the events whose ids the store has, or raise."""


class StateTransaction(Outbox):
    """Gathers writes and events and sends them when the block ends: all or nothing; on an exception in the block nothing is sent.

    Its methods wait for nothing. It serves one ``with`` block. That of `Event.transaction` acknowledges the event as well, or writes its id.
    """

    _method = TRANSACTION

    def __init__(
        self,
        service: StateService,
        store_name: str,
        timeout: float | None,
        metadata: Mapping[str, str] | None,
    ) -> None:
        super().__init__(service, store_name)
        self._settling: Settling | None = None
        self._once: Once | None = None
        self._timeout = timeout
        self._metadata = metadata
        self._writes: list[StateWrite] = []
        self._done = False

    def save(
        self,
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
    ) -> None:
        """Add a save, which is sent when the block ends. The value is encoded now.

        Args:
            key, value, metadata, etag, ttl, concurrency, consistency, content_type, fence: as in `StateService.save`.

        Raises:
            PayloadError: the value cannot be encoded.
            InvalidArgumentError: an argument is wrong.
            ClosedError: the transaction has ended.
        """
        self._add(save_write, key, value, metadata, etag, ttl, concurrency, consistency, content_type, fence)

    def delete(self, key: str, *, etag: str | None = None, fence: int | None = None) -> None:
        """Add a delete, which is sent when the block ends.

        Args:
            key, etag, fence: as in `StateService.delete`.

        Raises:
            InvalidArgumentError: an argument is wrong.
            ClosedError: the transaction has ended.
        """
        self._add(delete_write, key, etag, fence)

    def _add(self, prepare: Callable[..., StateWrite], *arguments: Any) -> None:
        try:
            self._open()
            self._writes.append(prepare(*arguments))
        except CloudRuntimesError as error:
            self._frame.add_context(error, TRANSACTION, self._store_name)
            raise

    def _open(self) -> None:
        self._check_process()
        if self._done:
            raise ClosedError("this transaction has ended: open another")

    async def _open_async(self) -> None:
        self._open()

    def _add_events(self, writes: Sequence[StateWrite | Change]) -> None:
        for each in writes:
            if isinstance(each, Change):
                self._changes.append(each)
            else:
                self._writes.append(each)

    def _publishing(self) -> Driver:
        self._open()
        driver = self._frame.driver(self._store_name)
        self._frame.need(driver, spi.OUTBOX, "publish in a transaction", self._store_name)
        publisher: Driver = driver
        return publisher

    def _sending(self) -> tuple[Operation, StateDriver, list[StateWrite]] | None:
        if self._events:
            self._gather()
        writes = self._writes
        if not (writes or self._changes or self._settling or self._once):
            return None
        op, driver = prepare_write(self._frame, TRANSACTION, self._store_name, writes, self._timeout, self._metadata)
        for write in writes:
            if write.etag is not None or write.create:
                self._frame.need(driver, spi.TRANSACTION_ETAG, "a condition in a transaction", self._store_name)
                break
        if self._once is not None:
            self._once.check()
            writes += self._once.writes
        return op, driver, writes

    def _exit(self, error: BaseException | None) -> None:
        self._done = True
        if error is not None or (sending := self._sending()) is None:
            return
        op, driver, writes = sending
        try:
            if self._settling or self._changes:
                self._frame.call(op, (self._settling or driver).commit, self._all(driver))
            else:
                self._frame.call(op, driver.write, writes, True)
        except ConflictError as conflict:
            if self._once is None:
                raise
            self._once.resolve(self._frame.call(op, driver.get_bulk, self._once.keys, _strong(driver)), conflict)
        else:
            self._finish()

    async def _exit_async(self, error: BaseException | None) -> None:
        self._done = True
        if error is not None or (sending := self._sending()) is None:
            return
        op, driver, writes = sending
        try:
            if self._settling or self._changes:
                await self._frame.call_async(op, (self._settling or driver).commit_async, self._all(driver))
            else:
                await self._frame.call_async(op, driver.write_async, writes, True)
        except ConflictError as conflict:
            if self._once is None:
                raise
            found = await self._frame.call_async(op, driver.get_bulk_async, self._once.keys, _strong(driver))
            self._once.resolve(found, conflict)
        else:
            self._finish()

    def _finish(self) -> None:
        if self._events:
            self._tell_committed()
        if self._once is not None:
            self._once.done()

    def _all(self, driver: StateDriver) -> list[Change]:
        return [driver.change(self._writes), *self._changes] if self._writes else self._changes


def _strong(driver: StateDriver) -> str | None:
    return "strong" if spi.CONSISTENCY in driver.features else None


def settling_transaction(
    state: StateService,
    store_name: str,
    timeout: float | None,
    metadata: Mapping[str, str] | None,
    *,
    settling: Settling | None = None,
    once: Once | None = None,
) -> StateTransaction:
    """Return a transaction that also settles events, or writes their ids."""
    transaction = state.transaction(store_name, timeout=timeout, metadata=metadata)
    transaction._settling, transaction._once = settling, once
    return transaction
