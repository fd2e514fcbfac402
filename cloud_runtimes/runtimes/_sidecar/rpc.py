"""RPC over a sidecar, which knows the address of this application and of all others."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import ClassVar

from ..._http.http1 import StreamError, pieces, pieces_async
from ...errors import ResourceExhaustedError
from ...spi.operation import Operation
from ...spi.rpc import Announcement, Guard, RpcCall, RpcDriver, RpcReply
from .transport import Flow, SidecarDriver

__all__ = ["SidecarRpc"]


class SidecarRpc(SidecarDriver, RpcDriver):
    """The way to one service."""

    table: ClassVar[str]  # of the configuration, for messages
    buffers: bool = True  # a call is one message, so a body that is a stream is collected first

    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        if self.buffers and not isinstance(call.body, bytes):
            call = self._collected(op, call)
        return self._transport.run(op, self._invoke(op, call))

    async def invoke_async(self, op: Operation, call: RpcCall, /) -> RpcReply:
        if self.buffers and not isinstance(call.body, bytes):
            call = await self._collected_async(op, call)
        return await self._transport.run_async(op, self._invoke(op, call))

    @abstractmethod
    def _invoke(self, op: Operation, call: RpcCall) -> Flow[RpcReply]: ...

    def _collected(self, op: Operation, call: RpcCall) -> RpcCall:
        body = bytearray()
        try:
            for piece in pieces(call.body):
                self._add(body, piece)
                if op.remaining() == 0.0:
                    raise op.timed_out("the end of the body")
        except StreamError as error:
            raise error.error from None
        return call._replace(body=bytes(body))

    async def _collected_async(self, op: Operation, call: RpcCall) -> RpcCall:
        body = bytearray()
        try:
            async with asyncio.timeout(op.remaining()):
                async for piece in pieces_async(call.body):
                    self._add(body, piece)
        except StreamError as error:
            raise error.error from None
        except TimeoutError:
            raise op.timed_out("the end of the body") from None
        return call._replace(body=bytes(body))

    def _add(self, body: bytearray, piece: bytes) -> None:
        body += piece
        if len(body) > self._transport.largest:
            raise ResourceExhaustedError(
                f"the body is larger than a message may be ({self._transport.largest:,} bytes): "
                f"raise max_message in {self.table}, and the sidecar's own limit"
            )

    def guard(self, op: Operation, /) -> Guard:
        return Guard(open=True)

    async def guard_async(self, op: Operation, /) -> Guard:
        return self.guard(op)

    def announce(self, op: Operation, instance: str, address: str, /) -> Announcement:
        return Announcement()  # the sidecar has the address already

    async def announce_async(self, op: Operation, instance: str, address: str, /) -> Announcement:
        return Announcement()
