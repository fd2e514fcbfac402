"""The transaction handle of the state service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._core.handles import Handle
from ..errors import ClosedError, CloudRuntimesError
from ..spi import state as spi
from ..spi.operation import Method, Operation
from ..spi.state import StateDriver, StateWrite
from .prepare import delete_write, save_write
from .types import Concurrency, Consistency, Ttl

if TYPE_CHECKING:
    from .service import StateService

__all__ = ["TRANSACTION", "StateTransaction"]

TRANSACTION = Method("state", "transaction", repeatable=False)


class StateTransaction(Handle):
    """Gathers writes and sends them when the block ends: all or nothing; on an exception in the block nothing is sent.

    Its methods wait for nothing. It serves one ``with`` block.
    """

    def __init__(
        self, service: StateService, store_name: str, timeout: float | None, metadata: Mapping[str, str] | None
    ) -> None:
        super().__init__()
        self._service = service
        self._store_name = store_name
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
            self._service._add_context(error, TRANSACTION, self._store_name)
            raise

    def _open(self) -> None:
        self._check_process()
        if self._done:
            raise ClosedError("this transaction has ended: open another")

    async def _open_async(self) -> None:
        self._open()

    def _sending(self) -> tuple[Operation, StateDriver, list[StateWrite]]:
        writes = self._writes
        op, driver = self._service._writing(TRANSACTION, self._store_name, writes, self._timeout, self._metadata)
        if any(write.etag is not None or write.create for write in writes):
            self._service._need(driver, spi.TRANSACTION_ETAG, "a condition in a transaction", self._store_name)
        return op, driver, writes

    def _exit(self, error: BaseException | None) -> None:
        self._done = True
        if error is None and self._writes:
            op, driver, writes = self._sending()
            self._service._call(op, driver.write, writes, True)

    async def _exit_async(self, error: BaseException | None) -> None:
        self._done = True
        if error is None and self._writes:
            op, driver, writes = self._sending()
            await self._service._call_async(op, driver.write_async, writes, True)
