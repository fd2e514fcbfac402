"""The body of a call that goes as one message: what comes as a stream is collected first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any

from ...errors import InvalidArgumentError, ResourceExhaustedError
from ...spi.operation import Operation
from ...spi.rpc import RpcCall

__all__ = ["whole", "whole_async"]


def whole(op: Operation, call: RpcCall, most: int, table: str) -> RpcCall:
    """Return a call whose body is bytes.

    Args:
        most: bytes of a message.
        table: of the runtime's configuration, for messages.

    Raises:
        ResourceExhaustedError: the body is more than a message has room for.
        DeadlineExceededError: the time is up before it has ended.
    """
    if isinstance(call.body, bytes):
        return call
    if isinstance(call.body, AsyncIterable):
        raise InvalidArgumentError("an async iterator is sent by the _async methods")
    parts = _Parts(most, table)
    for part in call.body:
        parts.add(part)
        if op.remaining() == 0.0:
            raise op.timed_out("the end of the body")
    return call._replace(body=parts.whole())


async def whole_async(op: Operation, call: RpcCall, most: int, table: str) -> RpcCall:
    """Asynchronous `whole`; a plain stream is read in a thread."""
    if isinstance(call.body, bytes):
        return call
    parts = _Parts(most, table)
    try:
        async with asyncio.timeout(op.remaining()) as limit:
            if isinstance(call.body, AsyncIterable):
                async for part in call.body:
                    parts.add(part)
            else:
                pieces = iter(call.body)
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    parts.add(piece)
    except TimeoutError:
        if limit.expired():
            raise op.timed_out("the end of the body") from None
        raise  # the stream's own
    return call._replace(body=parts.whole())


class _Parts:
    """A body that comes in parts."""

    def __init__(self, most: int, table: str) -> None:
        self._most = most
        self._table = table
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: Any) -> None:
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise InvalidArgumentError(f"a stream must give bytes, not {type(part).__name__}")
        self._parts.append(bytes(part))
        self._size += len(self._parts[-1])
        if self._size > self._most:
            raise ResourceExhaustedError(
                f"the body is larger than a message may be ({self._most:,} bytes): raise max_message in {self._table}, "
                "and the sidecar's own limit"
            )

    def whole(self) -> bytes:
        """Return the body."""
        return b"".join(self._parts)
