"""RPC by Dapr's service invocation."""

from __future__ import annotations

import os
from typing import Final

from ...errors import DeadlineExceededError, PermissionDeniedError, UnavailableError
from ...spi import rpc as spi
from ...spi.operation import Operation
from ...spi.rpc import Guard, RpcCall, RpcReply
from .._sidecar.rpc import SidecarRpc
from .._sidecar.transport import Flow
from .grpc_transport import GrpcTransport
from .transport import DaprSidecarError

_NOBODY: Final = (
    " err: no service ",
    " err: couldn't find service",
    " err: failed to resolve address",
    " err: timeout waiting for address",
)
"""Of a sidecar of ours and of Dapr: there is nobody, so nothing was sent. With any other words that is not known."""

_LATE: Final = " err: context deadline exceeded"
"""Of Dapr, which knows the deadline of a call over gRPC and may notice it first, or has a policy of its own."""


class DaprRpc(SidecarRpc):
    """The way to one service. Who calls this application is its sidecar, on ``APP_PORT``."""

    _transport: GrpcTransport
    table = "[dapr]"

    def __init__(self, transport: GrpcTransport, name: str) -> None:
        super().__init__(transport, name)
        self.callbacks = transport.callbacks
        self.buffers = transport.buffers_calls
        self.features = frozenset({spi.HEADERS, spi.HOST, spi.HTTP_METHOD} | (set() if self.buffers else {spi.STATUS}))

    def _invoke(self, op: Operation, call: RpcCall) -> Flow[RpcReply]:
        try:
            return (yield from self._transport.invoke(self._name, call))
        except DaprSidecarError as refused:
            error_reply = refused.error_reply
        if error_reply.status == 403:
            raise PermissionDeniedError(f"the sidecar may not call {op.component!r}: {error_reply.message}")
        if error_reply.message.endswith(_LATE):
            raise DeadlineExceededError(
                f"the sidecar had no answer of {op.component!r} in time: {error_reply.message}", maybe_applied=True
            )
        raise UnavailableError(
            f"the service {op.component!r} was not reached by the sidecar: {error_reply.message}: start it beside a sidecar of its own, whose app id this is and whose address this one can resolve",
            maybe_applied=error_reply.status != 404 and not any(each in error_reply.message for each in _NOBODY),
        )

    def guard(self, op: Operation, /) -> Guard:
        token = os.environ.get("APP_API_TOKEN")
        # without a token whoever reaches the port may call, as with every application of Dapr
        return Guard(open=True) if not token else Guard(sidecar=token.encode())
