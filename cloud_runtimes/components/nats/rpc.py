"""RPC on NATS: a call is a request to the subject of its method, and the processes of a service are one queue group.

There is no port and no registry: whoever may publish to the subject may call. Calls that arrive have a connection of their own, in the loop of the server.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Self, TypeAlias
from urllib.parse import unquote

from ..._core.backoff import Backoff
from ..._core.logs import logger, repeated
from ..._http.limits import MAX_SERVED
from ..._http.proof import CALLER_HEADER, STATUS_HEADER, TIMEOUT_HEADER
from ...codec.payload import OCTETS
from ...errors import CloudRuntimesError, InternalError, InvalidArgumentError, ResourceExhaustedError, UnavailableError
from ...rpc.failures import error_reply
from ...rpc.local import gathered, gathered_async
from ...spi import rpc as spi
from ...spi.operation import Method, Operation
from ...spi.rpc import Announcement, Answer, CallSource, Guard, Incoming, RpcCall, RpcDriver, RpcReply
from .._net.connections import ConnectionLost
from . import NatsComponent
from .protocol import Message, payload_size, publish, subscribe, unsubscribe
from .requests import Batch, Flow, Request
from .shared import LoopConnection

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import NatsEngine
    from .requests import Inbox


METHOD_HEADER: Final = "cloud-runtimes-method"
"""Of HTTP; ``POST`` without it."""
QUERY_HEADER: Final = "cloud-runtimes-query"
CONTENT_TYPE: Final = "content-type"
_SERVE: Final = Method("rpc", "serve", repeatable=False, writes=False)
_SID: Final = 2
_CONNECT: Final = 5.0
"""Seconds that one attempt to connect again has."""
_FENCE: Final = 1.0
_SILENT: Final = 30.0
"""Seconds after which a silent server is asked whether it is there."""
_ANSWER: Final = 5.0
"""Seconds that it has to say so."""
_OURS: Final = "cloud-runtimes-"
_HIDDEN: Final = frozenset([CONTENT_TYPE])

_Opened: TypeAlias = "tuple[Connection, Inbox, list[Message]]"


class NatsCalls(CallSource):
    """The calls of one service that this process gets; made by `NatsRpc.receive`."""

    def __init__(self, engine: NatsEngine, service: str, prefix: str, answer: Answer) -> None:
        self.address = f"nats://{engine.where}/{prefix.rstrip('.')}"
        self._engine = engine
        self._service = service
        self._prefix = prefix.encode()
        self._commands = (b"$", self._prefix.partition(b".")[0] + b".")
        self._greeting = subscribe(f"{prefix}>", _SID, service)
        self._answer = answer
        self._opened: _Opened | None = None
        self._connection: LoopConnection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._grace: float | None = None
        self._in_hand = 0
        self._unsent: list[bytes] = []

    # -- the connection ---------------------------------------------------

    def open(self, op: Operation) -> Self:
        """Subscribe."""
        self._opened = self._connect(op)
        return self

    def _connect(self, op: Operation) -> _Opened:
        early: list[Message] = []  # a call may come before the answer to the login
        connection, inbox = self._engine.serving(op, self._greeting, {_SID: early.append})
        if self._stopping:  # nobody waits for it any more
            connection.close()
        return connection, inbox, early

    def _use(self, opened: _Opened) -> None:
        connection, inbox, early = opened
        connection.session.callbacks[_SID] = self._take
        self._connection = LoopConnection(connection, inbox)
        self._connection.when_closed = self._changed.set
        if self._unsent:
            self._connection.send(b"".join(self._unsent))
            self._unsent.clear()
        for each in early:
            self._take(each)

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        opened, self._opened = self._opened, None
        assert opened is not None
        if self._stopping:
            opened[0].close()
            return
        self._use(opened)
        try:
            while not self._stopping:
                await self._watch()
                if not self._stopping:
                    await self._connect_again()
            await self._drain()
        finally:
            self._stopping = True
            assert self._connection is not None
            self._connection.close()

    async def _watch(self) -> None:
        """Return when the connection has ended, or shall."""
        connection = self._connection
        assert connection is not None
        while not self._stopping and connection.closed is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(_SILENT):
                    await self._changed.wait()
            except TimeoutError:
                if monotonic() - connection.connection.heard >= _SILENT:
                    await self._fence(connection, _ANSWER)

    async def _connect_again(self) -> None:
        before, pauses = self._connection, Backoff(0.02, 2.0)
        assert before is not None
        while not self._stopping:
            op = Operation(_SERVE, self._service, _CONNECT)
            opening = asyncio.ensure_future(asyncio.to_thread(self._connect, op))
            opening.add_done_callback(lambda _: self._changed.set())
            while not opening.done():
                self._changed.clear()
                await self._changed.wait()
                if self._stopping:  # a server that hangs keeps nobody
                    return
            self._changed.clear()
            error = opening.exception()
            if error is None:
                self._use(opening.result())
                await self._leave(before)
                return
            if not isinstance(error, CloudRuntimesError):
                raise error
            repeated(f"calls of {self._service}", "calls of %s do not arrive: %s", self._service, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(pauses.next()):
                    await self._changed.wait()

    async def _leave(self, connection: LoopConnection) -> None:
        """Get no more calls over a connection, and take in those that are on their way."""
        connection.send(unsubscribe(_SID))
        await self._fence(connection, _FENCE)
        if connection is not self._connection:
            connection.close()

    async def _fence(self, connection: LoopConnection, seconds: float) -> None:
        """Wait until the server has worked off what it was sent: any answer tells."""
        try:
            await connection.exchange(Operation(_SERVE, self._service, seconds), Batch(Request("$JS.API.INFO")))
        except (ConnectionLost, TimeoutError):
            pass

    def stop(self, timeout: float | None) -> None:
        if self._stopping:
            return
        self._grace = timeout
        self._stopping = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._changed.set)
            except RuntimeError:  # it has ended
                pass
        elif self._opened is not None:
            self._opened[0].close()

    async def _drain(self) -> None:
        connection = self._connection
        assert connection is not None
        end = None if self._grace is None else monotonic() + self._grace
        await self._leave(connection)
        try:
            async with asyncio.timeout(None if end is None else max(0.0, end - monotonic())):
                while self._in_hand:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            late = "calls under way %g s after the stop get no answer: %d"
            logger().warning(late, self._grace, self._in_hand)
        await self._fence(self._connection or connection, _FENCE)  # the answers have left

    # -- calls ------------------------------------------------------------

    def _take(self, message: Message) -> None:
        reply_to = message.reply
        try:
            if self._in_hand >= MAX_SERVED:
                why = f"{self._service!r} has {MAX_SERVED:,} calls in hand: call again later, or start more processes"
                raise ResourceExhaustedError(why, retryable=True)
            incoming = self._incoming(message)
        except CloudRuntimesError as error:
            self._send(reply_to, error_reply(error))
            return
        self._in_hand += 1
        self._answer(incoming, partial(self._answered, reply_to))

    def _answered(self, reply_to: bytes, reply: RpcReply) -> None:
        self._in_hand -= 1
        self._send(reply_to, reply)
        if self._stopping:
            self._changed.set()

    def _incoming(self, message: Message) -> Incoming:
        headers = {name.lower(): value for name, value in message.headers.items()} if message.head else {}
        limit = headers.get(TIMEOUT_HEADER)
        if limit is not None and (not limit.isascii() or not limit.isdigit() or len(limit) > 12):
            raise InvalidArgumentError(f"{TIMEOUT_HEADER} must be milliseconds")
        return Incoming(
            _method_of(message.subject[len(self._prefix) :]),
            headers.get(METHOD_HEADER, "POST"),
            {name: value for name, value in headers.items() if name not in _HIDDEN and not name.startswith(_OURS)},
            headers.get(QUERY_HEADER, ""),
            headers.get(CONTENT_TYPE, OCTETS) if message.data else None,
            message.data,
            headers.get(CALLER_HEADER),
            None if limit is None else monotonic() + int(limit) / 1000,
        )

    def _send(self, subject: bytes, reply: RpcReply) -> None:
        connection = self._connection
        assert connection is not None
        if not subject:
            return  # nobody waits for it
        if subject.startswith(self._commands):  # this process may publish more than its caller may
            repeated(f"calls of {self._service}", "a caller of %s wants its answer where commands go", self._service)
            return
        headers = _headers(reply)
        size, limit = payload_size(reply.data, headers), connection.max_payload
        if size > limit:
            why = f"the reply of {size:,} bytes does not fit the NATS server's max_payload of {limit:,}: raise it, or reply less"
            reply = error_reply(ResourceExhaustedError(why, maybe_applied=True))
            headers = _headers(reply)
        command = publish(subject.decode(), reply.data, headers=headers)
        if connection.ended:  # another one follows
            self._unsent.append(command)
        else:
            connection.send(command)


def _headers(reply: RpcReply) -> dict[str, str]:
    headers = dict(reply.headers)
    if reply.status != 200:
        headers[STATUS_HEADER] = str(reply.status)
    if reply.content_type is not None:
        headers[CONTENT_TYPE] = reply.content_type
    return headers


@lru_cache(1024)
def _method_of(subject: bytes) -> str:
    """Return the method of a subject that `NatsRpc` has made of its percent-encoded path."""
    return unquote(subject.decode("utf-8", "replace").replace(".", "/"))


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
