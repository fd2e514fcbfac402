"""The servers of one process: one connection for all threads, and one for each event loop. All clients of the process that name them share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from hashlib import blake2b
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote

from ..._core import fork
from ...errors import ClosedError, CloudRuntimesError, UnavailableError
from ...spi.flow import FlowEngine
from ...spi.operation import Operation
from .._net.connections import ConnectionLost, Servers
from .._net.engines import Engine
from .._net.loops import LoopConnections
from .._net.threads import ThreadConnections
from . import EtcdComponent, EtcdSettings
from .connection import Connection, Login, LoopConnection, ThreadConnection, parse_url
from .failures import ServerError, map_error
from .http2 import Stream
from .messages import METHODS, grant, range_of, read_lease, read_range, renewal, revocation, under
from .notifier import EtcdNotifier

T = TypeVar("T")
_PATIENCE: Final = 5.0
"""Seconds that a call waits for a cluster to elect a leader."""
_PAUSE: Final = 0.1
_SHARE: Final = 3.0
"""Seconds after which what only asks goes to another server, if there is one."""
_SHARED: Final = 10
"""Seconds of a lease from which on it serves all that is written within one second."""


class Request:
    """A call of the server: ``Request(range_of, key)``.

    Attributes:
        method, message: of gRPC; what makes the message says the method.
        writes: whether it changes what others see.
        sent: whether it was.
        until: `time.monotonic` to which an answer is waited for; ``None``: without end. The engine sets it.
    """

    __slots__ = ("message", "method", "sent", "until", "writes")

    def __init__(self, make: Callable[..., bytes], *arguments: Any, writes: bool = False, **options: Any) -> None:
        self.method = METHODS[make]
        self.message = make(*arguments, **options)
        self.writes = writes
        self.sent = False
        self.until: float | None = None


Flow: TypeAlias = Generator[Request, bytes, T]
"""The steps of a call, without I/O: yields requests, and gets their answers or `ServerError`."""
_Steps: TypeAlias = Generator[Request | float, Any, T]
"""Yields requests, and gets their answered calls, or seconds to wait."""


class Lease(NamedTuple):
    """A lease of the server, 0: none; and until when it lasts at least, by `time.monotonic`."""

    id: int
    until: float


class EtcdEngine(Engine, FlowEngine[Request, bytes]):
    """See the module; made by `acquire`.

    Attributes:
        address: of the servers.
        where: what messages call them.
    """

    settings: EtcdSettings
    notifier: EtcdNotifier

    def __init__(self, settings: EtcdSettings) -> None:
        super().__init__(settings)
        self.address = parse_url(settings.url)
        self.where = self.address.where
        self._servers = Servers(self.address.servers)
        self._login = Login(self.address)
        self._closed = False
        self.notifier = EtcdNotifier(self)
        self.forked()
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: begin anew; the connections are the parent's."""
        fork.keep(getattr(self, "_threads", None), getattr(self, "_loops", None))
        self._threads: ThreadConnections[ThreadConnection] = ThreadConnections(f"etcd {self.where}")
        self._loops: LoopConnections[LoopConnection] = LoopConnections(f"etcd {self.where}")
        self._leases: dict[int, Lease] = {}

    # -- calls ------------------------------------------------------------

    def steps(self, op: Operation, flow: Flow[T]) -> _Steps[T]:
        """Yield the requests of a call, again where another server or a moment later helps."""
        written = False
        try:
            request = next(flow)
            while True:
                answer, failure = b"", None
                try:
                    answer = yield from self._answered(op, request)
                except ServerError as error:
                    written = written or (request.writes and error.unsure)
                    failure = error
                except ConnectionLost as error:
                    what = "the connection ended" if request.sent else "no server can be reached"
                    text, unsure = f"etcd {self.where}: {what}: {error}", request.sent and request.writes
                    raise UnavailableError(text, retryable=not error.lasts, maybe_applied=written or unsure) from error
                except CloudRuntimesError as error:
                    error.maybe_applied = error.maybe_applied or written
                    raise
                else:
                    written = written or request.writes
                request = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except ServerError as error:
            translated = map_error(self.where, error)
            translated.maybe_applied = written
            raise translated from error
        finally:
            failure = None  # in no cycle with the frames of an error

    def _answered(self, op: Operation, request: Request) -> _Steps[bytes]:
        """Yield a request, again where another server or a moment later helps, and return its answer."""
        others = 0 if request.writes else len(self.address.servers) - 1
        renewals, end = 1, None
        while True:
            until = op.deadline
            if others and (until is None or until > monotonic() + _SHARE):
                until = monotonic() + _SHARE
            try:
                request.until = until
                stream = yield request
            except ConnectionLost:
                if not request.sent or not others:
                    raise
                others -= 1
                continue
            except TimeoutError as error:
                if isinstance(error, CloudRuntimesError):
                    raise
                if until == op.deadline:
                    raise op.timed_out(f"etcd {self.where}", maybe_applied=request.writes) from None
                others -= 1
                continue
            if not stream.status:
                return stream.messages[0] if stream.messages else b""
            refused = ServerError(stream.status, stream.text)
            if refused.token_ended and renewals and self._login.wanted:
                renewals -= 1
                self.renew_token()
                continue
            if refused.passes and not (refused.unsure and request.writes):
                now = monotonic()
                end = end or now + _PATIENCE
                if now + _PAUSE < (end if op.deadline is None else min(end, op.deadline)):
                    yield _PAUSE
                    continue
            raise refused

    def exchange(self, op: Operation, request: Request) -> Stream:
        connection = self._threads.get(op, self._connect)
        request.sent = True
        began = monotonic()
        try:
            stream = connection.call(request.method, request.message, request.until)
        except TimeoutError:
            connection.expired(began)
            raise
        if stream.status and _leaves(stream.status, stream.text):
            connection.retire(ConnectionLost("the server refused a call"))
        return stream

    async def exchange_async(self, op: Operation, request: Request) -> Stream:
        connection = await self._loops.get(op, self._connect_async)
        request.sent = True
        began = monotonic()
        try:
            stream = await connection.call(request.method, request.message, request.until)
        except TimeoutError:
            connection.expired(began)
            raise
        if stream.status and _leaves(stream.status, stream.text):
            connection.retire(ConnectionLost("the server refused a call"))
        return stream

    def ready(self, op: Operation) -> None:
        """See the base: also that there is a leader among them."""
        self.run(op, self._ping())

    def _ping(self) -> Flow[None]:
        yield Request(range_of, f"{self.settings.prefix}/".encode(), keys_only=True)

    # -- leases -----------------------------------------------------------

    def lease(self, seconds: int) -> Flow[Lease]:
        """Return a lease that lasts so long at least, and little longer; a long one is shared with others of that second."""
        now = monotonic()
        known = self._leases.get(seconds)
        if known is not None and known.until >= now + seconds:
            return known
        spare = 1 if seconds >= _SHARED else 0
        id, lasts = read_lease((yield Request(grant, seconds + spare)))
        new_lease = Lease(id, now + lasts)
        if spare:
            self._leases = {each: lease for each, lease in self._leases.items() if lease.until > now + each}
            self._leases[seconds] = new_lease
        return new_lease

    def forget(self, lease: Lease) -> None:
        """Share a lease no further: it is gone."""
        self._leases = {each: known for each, known in self._leases.items() if known.id != lease.id}

    # -- connections ------------------------------------------------------

    def open(self, op: Operation) -> Connection:
        """Return a new connection for its caller alone.

        Raises:
            CloudRuntimesError: there is none.
        """
        try:
            return self._open(op)
        except ConnectionLost as error:
            text = f"etcd {self.where}: no server can be reached: {error}"
            raise UnavailableError(text, retryable=not error.lasts) from error

    def _open(self, op: Operation) -> Connection:
        if self._closed:
            raise ClosedError("this client is closed: make another")
        connection = Connection(self.address, self.settings, self._servers, self._login)
        try:
            connection.open(op)
        except ServerError as error:
            raise map_error(self.where, error) from error
        return connection

    def renew_token(self) -> None:
        """Have the next connection get another token."""
        self._login.token = ""

    def own_host(self, op: Operation) -> str:
        """Return this machine's address on the way to the servers."""
        return self._threads.get(op, self._connect).connection.own_host

    def _connect(self, op: Operation) -> ThreadConnection:
        return ThreadConnection(self._open(op))

    async def _connect_async(self, op: Operation) -> LoopConnection:
        return LoopConnection(await asyncio.to_thread(self._open, op))

    def _close(self) -> None:
        self._closed = True
        self.notifier.close()
        self._threads.close()
        self._loops.close()


def _leaves(status: int, text: str) -> bool:
    """Return whether a call that failed should have another connection the next time."""
    error = ServerError(status, text)
    return error.passes or error.token_ended


# -- leases whose ids their owners know without asking --------------------------


def names_of(component: EtcdComponent, service: str) -> Flow[list[str]]:
    """Return the names of a service that have keys."""
    head = component.key(service, "")
    key, end = head, under(head)
    names: list[str] = []
    while items := read_range((yield Request(range_of, key, end, limit=1, keys_only=True))).items:
        name = items[0].key[len(head) :].partition(b"/")[0]
        names.append(unquote(name.decode(errors="replace")))
        key = under(head + name + b"/")  # behind all that it has
    return sorted(names)


def lease_of(*names: str) -> int:
    """Return the id of the lease of something."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=8).digest(), "big") >> 1 or 1


def ensure(id: int, seconds: int) -> Flow[None]:
    """Have a lease of that id, which lasts so long from now at least."""
    while True:
        try:
            yield Request(grant, seconds, id)
            return
        except ServerError as error:
            if not error.lease_exists:
                raise
        if (yield from renew(id)):
            return


def renew(id: int) -> Flow[bool]:
    """Have a lease last as long as it was given for, from now; ``False``: there is none."""
    _, seconds = read_lease((yield Request(renewal, id)))
    return seconds > 0


def revoke(id: int) -> Flow[bool]:
    """End a lease, and what has it; ``False``: there is none."""
    try:
        yield Request(revocation, id, writes=True)
    except ServerError as error:
        if error.no_lease:
            return False
        raise
    return True
