"""RPC by Layotto's service invocation, which a route of the sidecar's configuration leads to the service."""

from __future__ import annotations

from typing import Final

from ...errors import CloudRuntimesError, UnavailableError
from ...spi import rpc as spi
from ...spi.operation import Operation
from ...spi.rpc import RpcCall, RpcReply
from .._sidecar.rpc import SidecarRpc
from .._sidecar.transport import Flow, SidecarError

_TICK: Final = 0.1
"""Seconds by which the sidecar's clock may be ahead of a deadline."""


class LayottoRpc(SidecarRpc):
    """The way to one service. Who calls this application is a route of a sidecar, which shows no token."""

    features = frozenset({spi.HEADERS, spi.HOST, spi.HTTP_METHOD})
    table = "[layotto]"

    def _invoke(self, op: Operation, call: RpcCall) -> Flow[RpcReply]:
        try:
            return (yield from self._transport.invoke(self._name, call))
        except SidecarError as refused:
            failure: CloudRuntimesError = refused.error(applied=True)
            remaining = op.remaining()
            if isinstance(failure, UnavailableError) and remaining is not None and remaining < _TICK:
                # the sidecar knows the deadline too, and says of what is late that it is not available
                failure = op.timed_out("the service", maybe_applied=True)
            elif isinstance(failure, UnavailableError):
                # also any status of the application's but 200
                failure = UnavailableError(
                    f"the service {op.component!r} was not reached, or did not answer with 200: {failure.message}; "
                    "the sidecar's configuration leads to a service's address by a route for its name",
                    maybe_applied=True,
                    retryable=False,
                )
        raise failure
