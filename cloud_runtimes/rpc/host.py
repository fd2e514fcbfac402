"""The methods that one client offers, and how a call runs one: the same for a caller in the process and one elsewhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs

from .._core import fork, propagation
from .._core.handlers import CONTEXT, DATA, is_async_callable, signature
from .._core.logs import kind_of, repeated
from .._core.workers import Workers
from ..codec.payload import encode_payload
from ..errors import (
    CloudRuntimesError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    UnavailableError,
)
from ..spi.flow import run_sync
from ..spi.rpc import Incoming, RpcReply
from .failures import BARE, error_reply
from .prepare import check_registered, header_map
from .types import RpcRequest, RpcResponse, decode_body

if TYPE_CHECKING:
    import asyncio

    from .._service import RunningHandle, ServiceFrame

deadline: Final[ContextVar[float | None]] = ContextVar("cloud_runtimes_rpc_deadline", default=None)
"""`time.monotonic` at which the caller of what is being handled gives up, which holds for the calls of its handler; ``None``: never, or nothing is being handled."""

WORKERS: Final = 64
"""Plain handlers of one client that run at once; further calls wait, within their deadlines."""

_new_tuple = tuple.__new__
_NO_HEADERS: Final[Mapping[str, str]] = {}
_EMPTY: Final = RpcReply(200, _NO_HEADERS, None, b"")


class Handler:
    """Handler of a method: its function, its arguments, and the type that its data is decoded to."""

    __slots__ = ("frame", "function", "is_async", "label", "takes", "type")

    def __init__(self, frame: ServiceFrame, label: str, function: Callable[..., Any], type: Any) -> None:
        self.frame = frame
        self.label = label
        self.function = function
        client = frame.context.client
        self.takes, self.type = signature(function, label, context=RpcRequest, client=client, type=type)
        self.is_async = is_async_callable(function)

    def run(self, incoming: Incoming) -> RpcReply:
        """Run a plain handler on this thread."""
        return run_sync(self._flow(incoming, sync=True))

    async def run_async(self, incoming: Incoming) -> RpcReply:
        """Run a plain handler on this thread."""
        return await self._flow(incoming, sync=False)

    async def _flow(self, incoming: Incoming, *, sync: bool) -> RpcReply:
        token = deadline.set(incoming.deadline)
        entered = self._entered(incoming)
        failure: BaseException | None = None
        try:
            result = self.function(*self._arguments(incoming))
            if not sync:
                result = await result
        except BaseException as error:
            failure = error
            if isinstance(error, CloudRuntimesError):
                return error_reply(error)
            if isinstance(error, (Exception, SystemExit)):  # a handler ends no server
                return self.failed(error)
            raise
        finally:
            if entered is not None:
                entered.leave(failure)
            propagation.give_back(deadline, token)
        return self._reply(result)

    def _entered(self, incoming: Incoming) -> propagation.Entered | None:
        """Let the handler run in the context that came with the call, or in a span of its own below it."""
        headers = incoming.headers
        if self.frame.interceptors:
            entered = self.frame.first(lambda each: each.serving(incoming.method, headers))
            if entered is not None:
                return entered
        if headers and ("traceparent" in headers or "baggage" in headers):
            return propagation.enter(headers)
        return None

    def _arguments(self, incoming: Incoming) -> tuple[Any, ...]:
        return tuple([self._argument(each, incoming) for each in self.takes])

    def _argument(self, what: int, incoming: Incoming) -> Any:
        if what == DATA:
            return decode_body(incoming.data, incoming.content_type, self.type)
        return _request(incoming) if what == CONTEXT else self.frame.context.client

    def _reply(self, result: Any) -> RpcReply:
        if result is None:
            return _EMPTY
        try:
            if type(result) is RpcResponse:
                return _checked(result)
            data, content_type = encode_payload(result)
        except Exception as error:  # not the caller's fault: no PayloadError of theirs
            return self.failed(error)
        return _new_tuple(RpcReply, (200, _NO_HEADERS, content_type, data))

    def failed(self, error: BaseException) -> RpcReply:
        """Log what a handler failed with, and return what the caller gets of it."""
        message = "the handler of %s failed; the caller gets status 500: %r"
        repeated(f"rpc {self.label} {kind_of(error)}", message, self.label, error, exc_info=error)
        return BARE


Lifespans: TypeAlias = "Callable[[float | None], RunningHandle | None]"
"""Makes what runs beside a server, given the seconds that it has to start and to end; ``None``: nothing does."""


class Host:
    """The methods of one client."""

    def __init__(self, frame: ServiceFrame, lifespan: Lifespans) -> None:
        self.lifespan = lifespan
        self.context = frame.context
        self._frame = frame
        self.handlers: dict[str, Handler] = frame.handlers
        # where the async handlers of a served client run; else it is the caller's loop, or the client's own
        self.loop: asyncio.AbstractEventLoop | None = None
        # how many servers are open, and whether there is an application to mount in another one
        self.servers = 0
        self.mounted = False
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: what served is the parent's."""
        self.loop = None
        self.servers = 0

    @cached_property
    def workers(self) -> Workers:
        """The threads of plain handlers."""
        return Workers("cloud-runtimes-rpc-worker", WORKERS)

    @property
    def app_id(self) -> str:
        """The name that the methods are called under."""
        return self.context.settings.app_id

    def register(self, method: str, function: Callable[..., Any], type: Any) -> None:
        """Add a method."""
        name = check_registered(method)
        if name in self.handlers:
            raise InvalidArgumentError(f"method {name!r} is registered already: one handler has it")
        if not callable(function):
            raise InvalidArgumentError(f"method {name!r}: the handler must be callable, not {function!r:.80}")
        self.handlers[name] = Handler(self._frame, f"{self.app_id}.{name}", function, type)
        hosts.add(self)
        self.context.handles.add(self)

    outlives_fork = True

    def _close_by_client(self, end: float | None) -> None:
        """The client closes: nobody finds it any more, and its threads end with what they run."""
        hosts.changed()
        self.workers.close()

    def answer(self, incoming: Incoming, done: Callable[[RpcReply], None]) -> None:
        """Begin the method of a call, and call back with the reply; see `cloud_runtimes.spi.rpc.Answer`."""
        if self.context.closed:
            done(error_reply(UnavailableError(f"{self.app_id!r} is closing")))
            return
        handler = self.handlers.get(incoming.method)
        if handler is None:
            done(self.unknown(incoming.method))
            return
        limit = self.context.timeout
        if incoming.deadline is None and limit is not None:
            incoming = incoming._replace(deadline=monotonic() + limit)
        begin(self, handler, incoming, done)

    def unknown(self, method: str) -> RpcReply:
        """Answer a call of a method that is not there."""
        near = get_close_matches(method, self.handlers, 1)
        meant = f"; did you mean {near[0]!r}?" if near and len(method) <= 80 else ""
        return error_reply(NotFoundError(f"the service {self.app_id!r} has no method {method[:80]!r}{meant}"))


_running: Final[set[asyncio.Future[RpcReply]]] = set()
"""Handlers that run, since a loop does not hold its tasks."""


def begin(host: Host, handler: Handler, incoming: Incoming, done: Callable[[RpcReply], None]) -> None:
    """Begin a handler, a plain one in a thread, an async one in the running loop, and call back with the reply: at the deadline of its call at the latest."""
    import asyncio

    loop = asyncio.get_running_loop()
    waiting: Any = None
    future: asyncio.Future[RpcReply]
    if handler.is_async:
        future = loop.create_task(handler.run_async(incoming))
    else:
        waiting = host.workers.submit(partial(handler.run, incoming))
        future = asyncio.wrap_future(waiting, loop=loop)
    timer: asyncio.TimerHandle | None = None

    def late() -> None:
        nonlocal timer
        timer = None
        future.remove_done_callback(over)
        begun = waiting is None or not waiting.cancel()
        future.cancel()
        done(error_reply(DeadlineExceededError(f"{handler.label} did not answer in time", maybe_applied=begun)))

    def over(future: asyncio.Future[RpcReply]) -> None:
        if timer is not None:
            timer.cancel()
        if future.cancelled():  # its own doing
            done(BARE)
        elif (error := future.exception()) is not None:
            done(handler.failed(error))
        else:
            done(future.result())

    _running.add(future)
    future.add_done_callback(_running.discard)
    future.add_done_callback(over)
    if incoming.deadline is not None:
        timer = loop.call_later(max(0.0, incoming.deadline - monotonic()), late)


async def run(host: Host, handler: Handler, incoming: Incoming) -> RpcReply:
    """Run a handler as `begin` does, and return the reply."""
    import asyncio

    if handler.is_async and incoming.deadline is None:
        return await handler.run_async(incoming)
    reply: asyncio.Future[RpcReply] = asyncio.get_running_loop().create_future()
    begin(host, handler, incoming, lambda response: None if reply.done() else reply.set_result(response))
    return await reply


class _Hosts:
    """The clients of this process that have methods; `version` changes with them."""

    def __init__(self) -> None:
        self.version = 0
        self._all: list[weakref.ref[Host]] = []

    def add(self, host: Host) -> None:
        if not any(each() is host for each in self._all):
            self._all = [*self._all, weakref.ref(host)]
        self.version += 1

    def changed(self) -> None:
        """A client has closed."""
        self._all = [each for each in self._all if (host := each()) is not None and not host.context.closed]
        self.version += 1

    def open(self) -> list[Host]:
        """Return the open clients that have methods."""
        return [host for each in self._all if (host := each()) is not None and not host.context.closed]

    def find(self, app_id: str) -> Host | None:
        """Return the latest open client of that name that has methods."""
        for each in reversed(self._all):
            host = each()
            if host is not None and not host.context.closed and host.app_id == app_id:
                return host
        return None


hosts: Final = _Hosts()


def _request(incoming: Incoming) -> RpcRequest:
    return RpcRequest(
        method=incoming.method,
        http_method=incoming.http_method,
        headers=dict(incoming.headers),
        query=parse_qs(incoming.query, keep_blank_values=True) if incoming.query else {},
        content_type=incoming.content_type,
        data=incoming.data,
        caller=incoming.caller,
        _deadline=incoming.deadline,
    )


def _checked(response: RpcResponse) -> RpcReply:
    """Return a handler's own response as a reply; what cannot be sent is refused."""
    status = response.status
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise InvalidArgumentError(f"status {status!r}: give 200 to 599")
    if not isinstance(response.data, (bytes, bytearray, memoryview)):
        raise PayloadError(f"RpcResponse.data must be bytes, not {type(response.data).__name__}")
    data, content_type = encode_payload(response.data, response.content_type)
    if not data and response.content_type is None:
        content_type = None  # type: ignore[assignment]
    if data and status in (204, 205, 304):
        raise InvalidArgumentError(f"status {status} has no body")
    return RpcReply(status, header_map(response.headers), content_type, data)
