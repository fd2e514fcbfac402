"""The servers of one process: one connection for all threads, and one for each event loop. All clients of the process that name them share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

from ..._core import fork
from ...errors import ClosedError, CloudRuntimesError, ResourceExhaustedError, UnavailableError
from ...spi.flow import FlowEngine
from ...spi.operation import Operation
from .._net.connections import ConnectionLost
from .._net.engines import Engine
from .._net.loops import LoopConnections
from .._net.threads import ThreadConnections
from . import NatsSettings
from .connection import Connection, Servers, parse_url
from .failures import ServerError, map_error
from .notifier import NatsNotifier
from .protocol import Message, payload_size, subscribe
from .requests import Batch, Bulk, Call, Flow, Inbox, Request
from .shared import LoopConnection, ThreadConnection

T = TypeVar("T")
Callbacks: TypeAlias = Mapping[int, Callable[[Message], None]]
_ANSWER: Final = 1.0
"""Seconds after which a question without an answer is asked again."""
_WRITTEN: Final = 2.0
"""The same of a write, and longer each time: a server that is slow has it in hand."""
_PAUSE: Final = 0.05
"""Seconds before a flow tries again what nobody was there for."""


class NatsEngine(Engine, FlowEngine[Batch, list[list[Message]]]):
    """See the module; made by `acquire`.

    Attributes:
        where: what messages call it.
        api: what subjects of JetStream's API begin with.
        max_payload: bytes that headers and payload of a message have at most, as the last server said.
        buckets: what is known of the buckets that were looked at, by name; kept by `buckets.Bucket`.
    """

    settings: NatsSettings
    notifier: NatsNotifier

    def __init__(self, settings: NatsSettings) -> None:
        super().__init__(settings)
        self.address = parse_url(settings.url)
        self.where = self.address.where
        self._servers = Servers(self.address.servers)
        self.api = "$JS.API." if settings.domain is None else f"$JS.{settings.domain}.API."
        self.max_payload = 1 << 20
        self._closed = False
        self.notifier = NatsNotifier(self)
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: begin anew; the connections are the parent's."""
        fork.keep(getattr(self, "_threads", None), getattr(self, "_loops", None))
        self._threads: ThreadConnections[ThreadConnection] = ThreadConnections(f"nats {self.where}")
        self._loops: LoopConnections[LoopConnection] = LoopConnections(f"nats {self.where}")
        self.buckets: dict[str, Any] = {}

    # -- calls ------------------------------------------------------------

    def exchange(self, op: Operation, batch: Batch) -> Call:
        connection = self._threads.get(op, self._connect)
        return connection.exchange(op, self._checked(batch, connection.max_payload), batch.resend_at)

    async def exchange_async(self, op: Operation, batch: Batch) -> Call:
        connection = await self._loops.get(op, self._connect_async)
        return await connection.exchange(op, self._checked(batch, connection.max_payload), batch.resend_at)

    def steps(self, op: Operation, flow: Flow[T]) -> Generator[Batch | float, Any, T]:
        """Yield what a call sends, and sends again where no answer came."""
        written = False
        try:
            batch = next(flow)
            while True:
                if batch.failure is not None:
                    remaining = op.remaining()
                    if remaining is not None and remaining <= _PAUSE:
                        raise batch.failure
                    yield _PAUSE
                    batch = flow.send([])
                    continue
                at = monotonic() + (_WRITTEN * (batch.sent + 1) if batch.writes else _ANSWER)
                resends = at < batch.until and (op.deadline is None or at < op.deadline)
                batch.resend_at = at if resends else None
                answers: list[list[Message]] = []
                failure: BaseException | None
                try:
                    call = yield batch
                    answers, failure = call.answers, call.failure
                except TimeoutError as error:
                    if isinstance(error, CloudRuntimesError):
                        failure = error
                    elif batch.resend_at is not None:
                        batch.unanswered = True
                        continue
                    else:
                        failure = op.timed_out(f"nats {self.where}", maybe_applied=batch.writes)
                except (ConnectionLost, ServerError) as error:
                    failure = self._map_error(error, batch.writes and batch.sent > 0)
                except BaseException as error:
                    failure = error  # no connection, too large a message, or an interrupt
                finally:
                    before, written = written, written or (batch.writes and batch.sent > 0)
                if failure is None:
                    batch = flow.send(answers)
                    continue
                if isinstance(failure, CloudRuntimesError) and (batch.sent or isinstance(failure, TimeoutError)):
                    failure.maybe_applied = failure.maybe_applied or before
                batch = flow.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (ConnectionLost, ServerError) as error:
            raise self._map_error(error, written) from error
        finally:
            failure = None  # in no cycle with the frames of an error

    def _checked(self, batch: Batch, max_payload: int) -> Batch:
        """Refuse what would make the server close the connection; send it to the domain."""
        for request in batch.requests:
            if (error := self.too_large(request, max_payload)) is not None:
                raise error
        batch.sent += 1
        return batch if self.settings.domain is None else batch.moved(self.api)

    def too_large(self, request: Request | Bulk, max_payload: int) -> ResourceExhaustedError | None:
        """Return why a message is refused."""
        size = payload_size(request.data, request.headers)
        if size <= max_payload:
            return None
        return ResourceExhaustedError(
            f"nats {self.where}: a message of {size:,} bytes does not fit the server's max_payload "
            f"of {max_payload:,}: raise it, or split the value"
        )

    def _map_error(self, error: ConnectionLost | ServerError, maybe_applied: bool) -> CloudRuntimesError:
        if isinstance(error, ServerError):
            return map_error(self.where, error)
        return UnavailableError(f"nats {self.where}: no server can be reached: {error}", maybe_applied=maybe_applied)

    def ready(self, op: Operation) -> None:
        self.run(op, self._ping())

    def _ping(self) -> Flow[None]:
        yield Batch(Request("$JS.API.INFO"))

    # -- connections ------------------------------------------------------

    def open(self, op: Operation, greeting: bytes = b"") -> Connection:
        """Return a new connection for its caller alone."""
        try:
            return self._open(op, greeting)
        except (ConnectionLost, ServerError) as error:
            raise self._map_error(error, False) from error

    def serving(self, op: Operation, greeting: bytes, callbacks: Callbacks) -> tuple[Connection, Inbox]:
        """Return a new connection for its caller alone, on which it also makes requests; number 1 is their subscription."""
        try:
            return self._opened(op, greeting, callbacks)
        except (ConnectionLost, ServerError) as error:
            raise self._map_error(error, False) from error

    def _open(self, op: Operation, greeting: bytes, callbacks: Callbacks | None = None) -> Connection:
        if self._closed:
            raise ClosedError("this client is closed: make another")
        connection = Connection(self.address, self.settings, self._servers, greeting)
        connection.session.callbacks.update(callbacks or {})
        connection.open(op)
        return connection

    def _opened(
        self, op: Operation, greeting: bytes = b"", callbacks: Callbacks | None = None
    ) -> tuple[Connection, Inbox]:
        inbox = Inbox(self.settings.inbox_prefix)
        connection = self._open(op, subscribe(inbox.subject, 1) + greeting, {1: inbox.take, **(callbacks or {})})
        connection.session.bulk = inbox.take_bulk
        self.max_payload = connection.max_payload
        return connection, inbox

    def _connect(self, op: Operation) -> ThreadConnection:
        return ThreadConnection(*self._opened(op))

    async def _connect_async(self, op: Operation) -> LoopConnection:
        return LoopConnection(*await asyncio.to_thread(self._opened, op))

    def _close(self) -> None:
        self._closed = True
        self.notifier.close()
        self._threads.close()
        self._loops.close()
