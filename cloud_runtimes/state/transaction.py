"""The transaction handle of the state service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .._service import Outbox
from ..errors import ClosedError, CloudRuntimesError
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


class StateTransaction(Outbox):
    """Gathers writes and events and sends them when the block ends: all or nothing; on an exception in the block nothing is sent.

    Its methods wait for nothing. It serves one ``with`` block. That of `Event.transaction` acknowledges the event as well.
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

    def _publishing(self) -> Driver:
        self._open()
        driver = self._frame.driver(self._store_name)
        self._frame.need(driver, spi.OUTBOX, "publish in a transaction", self._store_name)
        publisher: Driver = driver
        return publisher

    def _sending(self) -> tuple[Operation, StateDriver, list[StateWrite]]:
        writes = self._writes
        op, driver = prepare_write(self._frame, TRANSACTION, self._store_name, writes, self._timeout, self._metadata)
        if any(write.etag is not None or write.create for write in writes):
            self._frame.need(driver, spi.TRANSACTION_ETAG, "a condition in a transaction", self._store_name)
        return op, driver, writes

    def _exit(self, error: BaseException | None) -> None:
        self._done = True
        if error is None and (self._writes or self._changes or self._settling):
            op, driver, writes = self._sending()
            if self._settling or self._changes:
                self._frame.call(op, (self._settling or driver).commit, self._all(driver))
            else:
                self._frame.call(op, driver.write, writes, True)

    async def _exit_async(self, error: BaseException | None) -> None:
        self._done = True
        if error is None and (self._writes or self._changes or self._settling):
            op, driver, writes = self._sending()
            if self._settling or self._changes:
                await self._frame.call_async(op, (self._settling or driver).commit_async, self._all(driver))
            else:
                await self._frame.call_async(op, driver.write_async, writes, True)

    def _all(self, driver: StateDriver) -> list[Change]:
        return [driver.change(self._writes), *self._changes] if self._writes else self._changes


def settling_transaction(
    state: StateService,
    store_name: str,
    settling: Settling,
    timeout: float | None,
    metadata: Mapping[str, str] | None,
) -> StateTransaction:
    """Return a transaction that also settles events."""
    transaction = state.transaction(store_name, timeout=timeout, metadata=metadata)
    transaction._settling = settling
    return transaction
