"""The servers of one process: one connection for all threads, and one for each event loop. All clients of the process that name them share it."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from ..._core import fork
from ..._core.threads import Mutex
from ...errors import ClosedError, CloudRuntimesError, ResourceExhaustedError, UnavailableError
from ...spi.operation import Operation
from .address import parse_url
from .connection import Connection
from .failures import Lost, Refused, explained
from .protocol import subscribe
from .requests import Batch, Call, Flow, Inbox
from .shared import LoopConnection, ThreadConnection

if TYPE_CHECKING:
    from .settings import NatsSettings

__all__ = ["NatsEngine", "acquire"]

T = TypeVar("T")
_HEAD: Final = 4096
"""Bytes of a message that are kept for its headers."""
_engines: dict[NatsSettings, NatsEngine] = {}
_engines_lock = Mutex()
_inherited: list[Any] = []
"""Of a parent process; kept, since closing them would end them for the parent."""


def acquire(settings: NatsSettings) -> NatsEngine:
    """Return the process's engine for some settings, made without I/O; each call needs one `NatsEngine.release`."""
    with _engines_lock:
        engine = _engines[settings] = _engines.get(settings) or NatsEngine(settings)
        engine.users += 1
        return engine


class NatsEngine:
    """See the module; made by `acquire`.

    Attributes:
        where: what messages call it.
        max_payload: bytes that headers and payload of a message have at most, as the last server said.
        buckets: what is known of the buckets that were looked at, by name; kept by `buckets.Bucket`.
    """

    def __init__(self, settings: NatsSettings) -> None:
        self.settings = settings
        self.users = 0
        self.address = parse_url(settings.url)
        self.where = self.address.where
        self.max_payload = 1 << 20
        self._closed = False
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: begin anew; the connections are the parent's."""
        _inherited.append(getattr(self, "_shared", None))
        _inherited.extend(getattr(self, "_loops", {}).values())
        self._connecting = Mutex()
        self._shared: ThreadConnection | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[LoopConnection]] = WeakKeyDictionary()
        self.buckets: dict[str, Any] = {}

    # -- calls ------------------------------------------------------------

    def run(self, op: Operation, flow: Flow[T]) -> T:
        """Run the steps of a call.

        Raises:
            CloudRuntimesError: it failed; ``maybe_applied`` says whether it may have been applied.
        """
        written = False
        try:
            batch = next(flow)
            while True:
                connection = self._thread_connection(op)
                self._check(batch, connection.max_payload)
                written = written or batch.writes
                try:
                    call = connection.exchange(op, batch)
                except TimeoutError:
                    raise op.timed_out(f"nats {self.where}", maybe_applied=written) from None
                batch = self._next(flow, call)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (Lost, Refused) as error:
            raise self._explained(error, written) from error

    async def run_async(self, op: Operation, flow: Flow[T]) -> T:
        """Asynchronous `run`."""
        written = False
        try:
            batch = next(flow)
            while True:
                connection = await self._loop_connection(op)
                self._check(batch, connection.max_payload)
                written = written or batch.writes
                try:
                    call = await connection.exchange(op, batch)
                except TimeoutError:
                    raise op.timed_out(f"nats {self.where}", maybe_applied=written) from None
                batch = self._next(flow, call)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (Lost, Refused) as error:
            raise self._explained(error, written) from error

    def _next(self, flow: Flow[Any], call: Call) -> Batch:
        if call.failure is not None:
            return flow.throw(call.failure)
        return flow.send(call.answers)

    def _check(self, batch: Batch, max_payload: int) -> None:
        """Refuse what would make the server close the connection."""
        for request in batch.requests:
            if len(request.data) + _HEAD > max_payload:
                raise ResourceExhaustedError(
                    f"nats {self.where}: a message of {len(request.data):,} bytes does not fit the server's max_payload "
                    f"of {max_payload:,}: raise it, or split the value"
                )

    def _explained(self, error: Lost | Refused, maybe_applied: bool) -> CloudRuntimesError:
        if isinstance(error, Refused):
            return explained(self.where, error)
        return UnavailableError(f"nats {self.where}: no server can be reached: {error}", maybe_applied=maybe_applied)

    # -- connections ------------------------------------------------------

    def open(self, op: Operation, greeting: bytes = b"") -> Connection:
        """Return a new connection for its caller alone."""
        try:
            return self._open(op, greeting)
        except (Lost, Refused) as error:
            raise self._explained(error, False) from error

    def _open(self, op: Operation, greeting: bytes) -> Connection:
        if self._closed:
            raise ClosedError("this client is closed: make another")
        connection = Connection(self.address, self.settings)
        connection.open(op, greeting)
        return connection

    def _opened(self, op: Operation) -> tuple[Connection, Inbox]:
        inbox = Inbox()
        connection = self._open(op, subscribe(inbox.subject, 1))
        connection.session.callbacks[1] = inbox.take
        connection.session.bulk = inbox.take_bulk
        self.max_payload = connection.max_payload
        return connection, inbox

    def _thread_connection(self, op: Operation) -> ThreadConnection:
        shared = self._shared
        if shared is not None:
            shared.look()
            if shared.closed is None:
                return shared
        left = op.remaining()
        if not self._connecting.acquire(timeout=-1 if left is None else left):
            raise op.timed_out(f"nats {self.where}")
        try:
            if self._shared is shared:
                self._shared = ThreadConnection(*self._opened(op))
            assert self._shared is not None
            return self._shared
        finally:
            self._connecting.release()

    async def _loop_connection(self, op: Operation) -> LoopConnection:
        """Return the connection of the running loop, made by the first who needs it."""
        loop = asyncio.get_running_loop()
        made = self._loops.get(loop)
        if made is not None and made.done():
            if not made.cancelled() and made.exception() is None:
                made.result().look()
                if made.result().closed is None:
                    return made.result()
            made = None
        if self._closed:
            raise ClosedError("this client is closed: make another")
        if made is None:
            made = self._loops[loop] = loop.create_task(self._connect(op))
        try:
            async with asyncio.timeout_at(None if op.deadline is None else loop.time() + op.deadline - monotonic()):
                return await asyncio.shield(made)
        except TimeoutError as error:
            if isinstance(error, CloudRuntimesError):
                raise
            raise op.timed_out(f"nats {self.where}") from None

    async def _connect(self, op: Operation) -> LoopConnection:
        return LoopConnection(*await asyncio.to_thread(self._opened, op))

    def release(self) -> None:
        """Give up one use; the last one closes all connections."""
        with _engines_lock:
            self.users -= 1
            if self.users > 0:
                return
            if _engines.get(self.settings) is self:
                del _engines[self.settings]
        self._closed = True
        if self._shared is not None:
            self._shared.close()
        for loop, made in list(self._loops.items()):
            if made.done() and not made.cancelled() and made.exception() is None:
                if loop.is_closed():
                    made.result().close()
                else:
                    loop.call_soon_threadsafe(made.result().close)
