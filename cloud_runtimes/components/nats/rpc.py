"""RPC on NATS: a call is a request to the subject of its method, and the processes of a service are one queue group.

There is no port and no registry: whoever may publish to the subject may call. `rpc_calls` has the other side.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Final

from ..._http.proof import CALLER_HEADER, STATUS_HEADER, TIMEOUT_HEADER
from ...errors import InternalError, InvalidArgumentError, UnavailableError
from ...rpc.local import gathered, gathered_async
from ...spi import rpc as spi
from ...spi.operation import Operation
from ...spi.rpc import Announcement, Answer, CallSource, Guard, RpcCall, RpcDriver, RpcReply
from . import NatsComponent
from .protocol import Message
from .requests import Batch, Flow, Request
from .rpc_calls import CONTENT_TYPE, METHOD_HEADER, QUERY_HEADER, NatsCalls

_LONGEST: Final = 3072
"""Bytes of a subject: a server takes lines of 4,096."""


class NatsRpc(RpcDriver):
    """RPC driver of one service."""

    features = frozenset({spi.HEADERS, spi.HOST, spi.HTTP_METHOD, spi.STATUS})

    def __init__(self, component: NatsComponent, name: str) -> None:
        self.component = component
        self._name = name
        self._caller = component.context.app_id
        self._prefix = f"{component.settings.prefix}.rpc.{name.replace('.', '%2E')}."

    # -- calling ----------------------------------------------------------

    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        body = call.body if type(call.body) is bytes else gathered(call.body)
        return self.component.engine.run(op, self._invoke(op, call, body))

    async def invoke_async(self, op: Operation, call: RpcCall, /) -> RpcReply:
        body = call.body if type(call.body) is bytes else await gathered_async(call.body)
        return await self.component.engine.run_async(op, self._invoke(op, call, body))

    def _invoke(self, op: Operation, call: RpcCall, body: bytes) -> Flow[RpcReply]:
        subject = self._prefix + _subject(call.path)
        if len(subject) > _LONGEST:
            raise InvalidArgumentError(
                f"method {call.method:.80}…: {len(subject):,} bytes of subject; NATS takes {_LONGEST:,}"
            )
        headers = {**call.headers, CALLER_HEADER: self._caller}
        if call.content_type is not None:
            headers[CONTENT_TYPE] = call.content_type
        if call.http_method != "POST":
            headers[METHOD_HEADER] = call.http_method
        if call.query:
            headers[QUERY_HEADER] = call.query
        if (remaining := op.remaining()) is not None:
            headers[TIMEOUT_HEADER] = str(int(remaining * 1000) + 1)
        ((message,),) = yield Batch(Request(subject, body, headers), writes=True)
        if message.status == 503:
            raise self._absent()
        return _reply(message)

    def _absent(self) -> UnavailableError:
        name, where = self._name, self.component.engine.where
        return UnavailableError(
            f"no service {name!r}: nobody serves {self._prefix}> on nats {where}. Serve it (client.rpc.serve() of an "
            f'application with app_id={name!r} and the same home), or say where it is: [rpc.{name}] address = "http://host:port"'
        )

    # -- hosting ----------------------------------------------------------

    def guard(self, op: Operation, /) -> Guard:
        """Return nobody: over HTTP, which is only beside NATS here, callers need a token that the application sets."""
        return Guard()

    async def guard_async(self, op: Operation, /) -> Guard:
        return Guard()

    def announce(self, op: Operation, instance: str, address: str, /) -> Announcement:
        return Announcement()

    async def announce_async(self, op: Operation, instance: str, address: str, /) -> Announcement:
        return Announcement()

    def receive(self, op: Operation, answer: Answer, /) -> CallSource:
        return NatsCalls(self.component.engine, self._name, self._prefix, answer).open(op)

    async def receive_async(self, op: Operation, answer: Answer, /) -> CallSource:
        return await asyncio.to_thread(self.receive, op, answer)


@lru_cache(1024)
def _subject(path: str) -> str:
    """Return the subject of a method's percent-encoded path, which has no wildcards."""
    return path.replace(".", "%2E").replace("/", ".")


def _reply(message: Message) -> RpcReply:
    headers = {name.lower(): value for name, value in message.headers.items()} if message.head else {}
    status = headers.pop(STATUS_HEADER, "200")
    if len(status) != 3 or not status.isascii() or not status.isdigit() or status < "200":
        raise InternalError("what answered is no service of this package: its status is none", maybe_applied=True)
    return RpcReply(int(status), headers, headers.pop(CONTENT_TYPE, None), message.data)
