"""A call to a method of the same process: encoded and decoded as between processes, so that nobody shares what can change.

A plain handler runs on the thread of a sync caller (a hop to another would cost ten times the call), so that its deadline is known only when it returns; every other call is left at its deadline.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .._http.limits import MAX_BODY
from ..errors import ClosedError, InvalidArgumentError, ResourceExhaustedError
from ..spi.operation import Operation, mark_interrupted
from ..spi.rpc import Incoming, RpcCall, RpcReply
from .failures import BARE, too_large
from .host import Host

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

_new_tuple = tuple.__new__
_WAITING: Final = "the handler"


def _incoming(op: Operation, call: RpcCall, data: bytes, caller: str) -> Incoming:
    return _new_tuple(
        Incoming,
        (call.method, call.http_method, call.headers, call.query, call.content_type, data, caller, op.deadline),
    )


def call(host: Host, op: Operation, call: RpcCall, caller: str) -> RpcReply:
    """Run a method for a sync caller."""
    handler = host.handlers.get(call.method)
    if handler is None:
        return host.unknown(call.method)
    body = call.body
    if type(body) is not bytes:
        body = gathered(body)
    elif len(body) > MAX_BODY:
        return too_large()
    incoming = _incoming(op, call, body, caller)
    if handler.is_async:
        return _elsewhere(host, op, handler.run_async(incoming))
    reply = handler.run(incoming)
    if op.deadline is not None and monotonic() >= op.deadline:
        raise op.timed_out(_WAITING, maybe_applied=True)
    return reply


async def call_async(host: Host, op: Operation, call: RpcCall, caller: str) -> RpcReply:
    """Run a method for an async caller."""
    import asyncio

    handler = host.handlers.get(call.method)
    if handler is None:
        return host.unknown(call.method)
    body = call.body
    if type(body) is not bytes:
        body = await gathered_async(body)
    elif len(body) > MAX_BODY:
        return too_large()
    incoming = _incoming(op, call, body, caller)
    if not handler.is_async:
        return await _awaited(op, asyncio.wrap_future(host.workers.submit(partial(handler.run, incoming))))
    loop = host.loop
    if loop is None or loop.is_closed() or loop is asyncio.get_running_loop():
        return await _awaited(op, asyncio.ensure_future(handler.run_async(incoming)))
    return await _awaited(op, asyncio.wrap_future(asyncio.run_coroutine_threadsafe(handler.run_async(incoming), loop)))


async def _awaited(op: Operation, future: asyncio.Future[RpcReply]) -> RpcReply:
    """Wait for a handler to the deadline; one that does not heed its cancellation is left alone."""
    import asyncio

    try:
        done, _ = await asyncio.wait((future,), timeout=op.remaining())
    except asyncio.CancelledError as error:
        future.cancel()
        mark_interrupted(error, True)
        raise
    if not done:
        future.cancel()
        raise op.timed_out(_WAITING, maybe_applied=True)
    return BARE if future.cancelled() else future.result()


def _elsewhere(host: Host, op: Operation, flow: Coroutine[Any, Any, RpcReply]) -> RpcReply:
    """Run an async handler where it is served; where nothing serves, or this thread would wait for itself, in the client's own loop."""
    import asyncio
    from concurrent.futures import CancelledError

    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    loop = host.loop
    if loop is None or loop.is_closed() or loop is here:
        loop = host.context.loop()
        if loop is here:
            flow.close()
            raise InvalidArgumentError(
                "an async handler would be waited for in the loop that runs it: use invoke_method_async there"
            )
    future: Future[RpcReply] = asyncio.run_coroutine_threadsafe(flow, loop)
    try:
        return future.result(op.remaining())
    except TimeoutError as error:
        if future.done():
            raise
        future.cancel()
        raise op.timed_out(_WAITING, maybe_applied=True) from error
    except CancelledError:
        if not host.context.closed:
            return BARE  # the handler's own doing
        raise ClosedError("the client was closed while its method ran", maybe_applied=True) from None
    except BaseException as error:
        future.cancel()
        if not isinstance(error, Exception):
            mark_interrupted(error, True)
        raise


def gathered(body: Any) -> bytes:
    """Read a stream to its end, or to the `MAX_BODY` bytes that are taken."""
    if hasattr(body, "__anext__"):
        raise InvalidArgumentError("an async iterator is sent by the _async methods")
    parts: list[bytes] = []
    size = 0
    for piece in body:
        size = _room(size, piece)
        parts.append(bytes(piece))
    return b"".join(parts)


async def gathered_async(body: Any) -> bytes:
    """Asynchronous `gathered`, which also reads async iterators."""
    if not hasattr(body, "__anext__"):
        import asyncio

        return await asyncio.to_thread(gathered, body)
    parts: list[bytes] = []
    size = 0
    async for piece in body:
        size = _room(size, piece)
        parts.append(bytes(piece))
    return b"".join(parts)


def _room(size: int, piece: Any) -> int:
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise InvalidArgumentError(f"a stream must give bytes, not {type(piece).__name__}")
    size += len(piece)
    if size > MAX_BODY:
        raise ResourceExhaustedError(f"the body is larger than the {MAX_BODY:,} bytes that are taken")
    return size
