"""The SPI of the RPC service: what a runtime must do to carry a call, and to let others find this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from .driver import Driver
from .executor import in_thread
from .operation import Operation

if TYPE_CHECKING:
    from .inventory import ServiceInfo

__all__ = [
    "HEADERS",
    "HOST",
    "HTTP_METHOD",
    "SERVICES",
    "STATUS",
    "Announcement",
    "Answer",
    "Body",
    "CallSource",
    "Callback",
    "Callbacks",
    "Guard",
    "Incoming",
    "RpcCall",
    "RpcDriver",
    "RpcReply",
]

HEADERS = "headers"
"""``headers=`` and ``query=`` reach the method, and its headers come back."""
HOST = "host"
"""``serve``, ``serving`` and ``asgi_app``: methods of this process can be called by others."""
HTTP_METHOD = "http_method"
"""``http_method=`` other than POST."""
SERVICES = "services"
"""`RpcDriver.services`."""
STATUS = "status"
"""A failure arrives with its own status and body."""

Body: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]


class RpcCall(NamedTuple):
    """A call, checked and encoded.

    Attributes:
        method: the method's name, ``/``-separated.
        path: the same, percent-encoded.
        http_method: in capitals.
        body: bytes, or a stream that is read once.
        content_type: of the body; ``None``: there is no body.
        headers: names in lower case.
        query: encoded, without ``?``; ``""``: none.
    """

    method: str
    path: str
    http_method: str
    body: Body
    content_type: str | None
    headers: Mapping[str, str]
    query: str

    def __repr__(self) -> str:
        return f"<RpcCall {self.http_method}>"  # headers hold tokens, and frames of errors hold this


class RpcReply(NamedTuple):
    """Reply to a call; see `RpcResponse`."""

    status: int
    headers: Mapping[str, str]
    content_type: str | None
    data: bytes


class Incoming(NamedTuple):
    """A call as it arrives at a method.

    Attributes:
        method, http_method, headers, query, content_type: as in `RpcCall`.
        data: the body.
        caller: the ``app_id`` that the caller says it has.
        deadline: `time.monotonic` at which the caller gives up; ``None``: it did not say.
    """

    method: str
    http_method: str
    headers: Mapping[str, str]
    query: str
    content_type: str | None
    data: bytes
    caller: str | None
    deadline: float | None


Answer: TypeAlias = Callable[[Incoming, Callable[[RpcReply], None]], None]
"""What begins the method of a call, in the running loop, and later calls back there with the reply, once. It never raises an `Exception`."""


class Guard(NamedTuple):
    """Admission of callers, and the proof of this process's identity.

    Attributes:
        secrets: callers and server know one of them; none: nobody can call.
        open: take calls without a token.
        sidecar: the ``dapr-api-token`` that a sidecar sends with its calls; ``None``: a sidecar is not recognized by
            it.
    """

    secrets: tuple[bytes, ...] = ()
    open: bool = False
    sidecar: bytes | None = None

    def __repr__(self) -> str:
        return f"<Guard of {len(self.secrets)} secrets{', open' if self.open else ''}>"


Callback: TypeAlias = Callable[[str | None, bytes], Awaitable[RpcReply]]
"""What answers a callback: gets the content type and the body, and runs in the loop of the server."""


class Callbacks(ABC):
    """Callbacks, beside methods, from a sidecar to the server of its application."""

    @abstractmethod
    def subscriptions(self) -> RpcReply:
        """Return which events are wanted, and where (``GET /dapr/subscribe``)."""

    @abstractmethod
    def find(self, http_method: str, name: str) -> Callback | None:
        """Return what answers a path, ``None``: no callback has it. A method of that name comes before it."""

    @abstractmethod
    def lacks_runner(self, name: str) -> bool:
        """Return whether a path is a due job's, and nothing runs jobs yet."""


class Announcement:
    """Announcement of this process to callers; ends with `close`."""

    def close(self, timeout: float | None) -> None:
        """Take it back, within ``timeout`` seconds; twice does nothing."""


class CallSource(ABC):
    """Calls that come to this process over the driver's own connection, without a port of its own.

    Attributes:
        address: where callers reach it, for messages.
    """

    address: str

    @abstractmethod
    async def serve(self) -> None:
        """Take calls and answer them, in the running loop, until `stop`; then end what is in hand.

        A connection that breaks is made again, for as long as it takes.
        """

    @abstractmethod
    def stop(self, timeout: float | None) -> None:
        """Take no more calls, and give those in hand ``timeout`` seconds. Thread-safe; twice does nothing."""


class RpcDriver(Driver, ABC):
    """Carries calls to one service.

    Obligations, besides those of every `Driver`:

    * `invoke` returns a reply whatever its status. It raises `UnavailableError` where the service was not reached, and says in ``maybe_applied`` whether the method may have run. It never follows a redirect and never sends a call twice, unless nothing of it was sent before.
    * Nothing of a call is sent to a process that has not proved to be the service, where the driver can ask for a proof.

    Attributes:
        callbacks: what else the server answers; ``None``: nothing.
        methods: names of the methods that this process has, for `announce`; ``None``: not known.
        allowed_hosts: names under which this process is reached, beyond those that nobody can register; see `RequestGuard`.
    """

    callbacks: Callbacks | None = None
    methods: Callable[[], Iterable[str]] | None = None
    allowed_hosts: tuple[str, ...] = ()

    @abstractmethod
    def invoke(self, op: Operation, call: RpcCall, /) -> RpcReply:
        """Make a call. ``op.component`` is the service."""

    invoke_async = in_thread(invoke)

    @abstractmethod
    def guard(self, op: Operation, /) -> Guard:
        """Return who may call this process."""

    guard_async = in_thread(guard)

    @abstractmethod
    def announce(self, op: Operation, instance: str, address: str, /) -> Announcement:
        """Let others find the service at ``address`` (``http://host:port``); ``instance`` is this server's own name.

        A host ``0.0.0.0`` or ``[::]`` is all addresses of this machine; the driver names one that others reach.
        """

    announce_async = in_thread(announce)

    def receive(self, op: Operation, answer: Answer, /) -> CallSource | None:
        """Let others call the service over the driver's own connection; calls wait until `CallSource.serve`.

        ``None``: calls come over HTTP, to where `announce` says.
        """
        return None

    receive_async = in_thread(receive)

    def services(self, op: Operation, prefix: str, /) -> Sequence[ServiceInfo]:
        """Return the applications whose names begin so and that have announced themselves, in the order of their names (`SERVICES`)."""
        raise NotImplementedError

    services_async = in_thread(services)
