"""The body of a call that goes as one message: what comes as a stream is collected first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any

from ...errors import InvalidArgumentError, ResourceExhaustedError
from ...spi.operation import Operation
from ...spi.rpc import RpcCall

__all__ = ["collected", "collected_async"]


def collected(op: Operation, call: RpcCall, most: int, table: str) -> RpcCall:
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
    body = bytearray()
    for part in call.body:
        _add(body, part, most, table)
        if op.remaining() == 0.0:
            raise op.timed_out("the end of the body")
    return call._replace(body=bytes(body))


async def collected_async(op: Operation, call: RpcCall, most: int, table: str) -> RpcCall:
    """Asynchronous `collected`; a plain stream is read in a thread."""
    if isinstance(call.body, bytes):
        return call
    body = bytearray()
    try:
        async with asyncio.timeout(op.remaining()) as limit:
            if isinstance(call.body, AsyncIterable):
                async for part in call.body:
                    _add(body, part, most, table)
            else:
                parts = iter(call.body)
                while (piece := await asyncio.to_thread(next, parts, None)) is not None:
                    _add(body, piece, most, table)
    except TimeoutError:
        if limit.expired():
            raise op.timed_out("the end of the body") from None
        raise  # the stream's own
    return call._replace(body=bytes(body))


def _add(body: bytearray, part: Any, most: int, table: str) -> None:
    if not isinstance(part, (bytes, bytearray, memoryview)):
        raise InvalidArgumentError(f"a stream must give bytes, not {type(part).__name__}")
    body += part
    if len(body) > most:
        raise ResourceExhaustedError(
            f"the body is larger than a message may be ({most:,} bytes): raise max_message in {table}, "
            "and the sidecar's own limit"
        )
