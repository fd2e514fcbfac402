"""The servers of one process: one connection for what is published and made. All clients of the process that name them share it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from ..._core import fork
from ..._core.threads import Mutex
from ...errors import ClosedError, CloudRuntimesError, ResourceExhaustedError, UnavailableError
from ...spi.flow import FlowEngine
from ...spi.operation import Operation
from .._net.connections import ConnectionLost, Servers
from .._net.engines import Engine
from .connection import Connection
from .failures import ServerError, map_error
from .link import Link, Waiting
from .session import Publish, Step
from .settings import RabbitmqSettings, parse_url

if TYPE_CHECKING:
    from .management import Management

T = TypeVar("T")
Flow: TypeAlias = Generator[tuple[Step, ...], None, T]
"""The steps of a call, without I/O: yields some, and goes on once they have settled."""
_SILENT: Final = 2.0
"""Seconds without a byte after which a caller that gave up lets others try another connection."""


class RabbitmqEngine(Engine, FlowEngine[tuple[Step, ...], None]):
    """See the module; made by `acquire`.

    Attributes:
        where: what messages call it.
        declared: exchanges and queues that are known to be there.
        frame_max: bytes of a frame, as the last server said.
        management: its management interface; ``None``: the settings name none.
    """

    settings: RabbitmqSettings

    def __init__(self, settings: RabbitmqSettings) -> None:
        super().__init__(settings)
        self.address = parse_url(settings.url)
        self.management = self._manage()
        self.where = self.address.where
        self._servers = Servers(self.address.servers)
        self.frame_max = 131072
        self._closed = False
        self._link: Link | None = None
        self.forked()
        fork.register(self)

    def _manage(self) -> Management | None:
        if self.settings.management is None:
            return None
        from .management import Management

        return Management(self.settings.management, self.address)

    def forked(self) -> None:
        """In a forked child: begin anew; the connection is the parent's."""
        fork.keep(self._link)
        self._link = None
        self._connecting = Mutex()
        self.declared: set[str] = set()

    # -- calls ------------------------------------------------------------

    def exchange(self, op: Operation, steps: tuple[Step, ...]) -> None:
        link = self._connected(op)
        waiting = link.submit(steps)
        try:
            waiting.future.result(op.remaining())
        except TimeoutError:
            raise self._given_up(op, link, waiting) from None

    async def exchange_async(self, op: Operation, steps: tuple[Step, ...]) -> None:
        link = self._link
        if link is None or link.closed is not None:
            link = await asyncio.to_thread(self._connected, op)
        waiting = link.submit(steps)
        try:
            async with asyncio.timeout(op.remaining()):
                await asyncio.wrap_future(waiting.future)
        except TimeoutError:
            raise self._given_up(op, link, waiting) from None

    def steps(self, op: Operation, flow: Flow[T]) -> Generator[tuple[Step, ...], None, T]:
        """Yield the steps of a call; raises our errors for those of a connection, in the flow too."""
        sent: list[Step] = []
        try:
            steps = next(flow)
            while True:
                sent += steps
                failure: BaseException | None = None
                try:
                    yield steps
                except (ConnectionLost, ServerError) as error:
                    failure = self.map_error(error, _published(sent))
                except BaseException as error:
                    failure = error
                steps = flow.send(None) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (ConnectionLost, ServerError) as error:
            raise self.map_error(error, _published(sent)) from error

    def map_error(self, error: Exception, maybe_applied: bool = False) -> CloudRuntimesError:
        """Return our error for one of a connection."""
        if isinstance(error, ServerError):
            if error.code == 0 and self._link is not None:
                # a channel that was opened while a queue had no leader is refused messages for ever (RabbitMQ 3.10)
                self._link.end(ConnectionLost("the server did not take messages"))
            return map_error(self.where, error)
        return UnavailableError(
            f"rabbitmq {self.where}: no server can be reached: {error}", maybe_applied=maybe_applied
        )

    def _given_up(self, op: Operation, link: Link, waiting: Waiting) -> CloudRuntimesError:
        """Return the error of a call whose time is over; a server that said nothing meanwhile is not asked by others."""
        sent = link.forget(waiting)
        if (why := link.blocked) is not None:
            return ResourceExhaustedError(
                f"rabbitmq {self.where}: the server takes no messages now (connection.blocked: {why}): "
                "free its memory or disk, or raise the watermark",
                retryable=True,
                maybe_applied=sent,
            )
        if link.connection.heard < waiting.since <= monotonic() - _SILENT:
            link.end(ConnectionLost("the server did not answer"))
        return op.timed_out(f"rabbitmq {self.where}", maybe_applied=sent)

    def ready(self, op: Operation) -> None:
        self.run(op, self._nothing())

    def _nothing(self) -> Flow[None]:
        yield ()

    # -- connections ------------------------------------------------------

    def open(self, op: Operation, name: str, heartbeat: float = inf) -> Connection:
        """Return a new connection for its caller alone."""
        if self._closed:
            raise ClosedError("this client is closed: make another")
        connection = Connection(self.address, self._servers, f"cloud-runtimes {name}", heartbeat)
        try:
            connection.open(op)
        except (ConnectionLost, ServerError) as error:
            raise self.map_error(error) from error
        self.frame_max = connection.session.frame_max
        return connection

    def _connected(self, op: Operation) -> Link:
        link = self._link
        if link is not None and link.closed is None:
            return link
        remaining = op.remaining()
        if not self._connecting.acquire(timeout=-1 if remaining is None else remaining):
            raise op.timed_out(f"rabbitmq {self.where}")
        try:
            if self._link is link:
                self._link = Link(self.open(op, "publishing"))
            assert self._link is not None
            if self._closed:  # meanwhile
                self._link.end(ConnectionLost("the client was closed"))
                raise ClosedError("this client is closed: make another")
            return self._link
        finally:
            self._connecting.release()

    def _close(self) -> None:
        self._closed = True
        if self.management is not None:
            self.management.close()
        if self._link is not None:
            self._link.end(ConnectionLost("the client was closed"))


def _published(steps: Sequence[Step]) -> bool:
    """Return whether some of the steps publish."""
    return any(isinstance(step, Publish) and step.first for step in steps)
