"""Base of sidecar drivers and transports: drivers ask for calls by name, a transport sends them by HTTP or gRPC.

A call is a generator that yields requests and is sent replies, so one serves both APIs; a `Transport` runs it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

from ... import errors
from ...errors import ClosedError, CloudRuntimesError
from ...spi.flow import FlowDriver, FlowEngine
from ...spi.operation import Operation, mark_interrupted

if TYPE_CHECKING:
    from .channel import Channel

P = ParamSpec("P")
T = TypeVar("T")
Flow: TypeAlias = Generator[Any, Any, T]
"""The requests of an operation, one after another, and its result."""
Receive: TypeAlias = Callable[[Any], None]
"""Gets the messages of a stream."""
Ended: TypeAlias = Callable[[Exception | None], None]
"""Gets why a stream ended; ``None``: the sidecar ended it well."""


class ErrorReply(NamedTuple):
    """A refusal of the sidecar, before it is known what that means here."""

    status: int  # HTTP; of gRPC the one that its code stands for
    code: str  # ``errorCode`` of Dapr, or ``grpc CODE``; "": the answer is none of the sidecar's
    reason: str  # of the ``ErrorInfo``; "": there is none
    message: str


class SidecarError(Exception):
    """A sidecar said no; `Transport.steps` makes it one of our errors. Of a bulk ``failed`` has the ids of what failed, if they are known."""

    headers: Mapping[str, str] = {}
    info: Mapping[str, str] = {}  # metadata of the ``ErrorInfo``

    def __init__(self, error_reply: ErrorReply, failed: frozenset[str] | None = None) -> None:
        super().__init__(error_reply.message)
        self.error_reply = error_reply
        self.failed = failed

    @abstractmethod
    def error(self, *, applied: bool) -> CloudRuntimesError:
        """Return our error; ``applied``: where it is not known, a write may have happened."""


def stream_error(failure: Exception | None, ended: str) -> CloudRuntimesError:
    """Return why a stream ended: `UnavailableError`, so that another is opened, unless the sidecar has refused it for good."""
    if isinstance(failure, CloudRuntimesError):
        return failure
    if not isinstance(failure, SidecarError):
        return errors.UnavailableError(ended if failure is None else f"{ended}: {failure}")
    ours = failure.error(applied=False)
    # sidecars end streams that they are going to serve again by plain errors, which gRPC calls UNKNOWN
    return errors.UnavailableError(f"{ended}: {ours.message}") if isinstance(ours, errors.InternalError) else ours


class Token(str):
    """A token of the sidecar; no ``repr`` shows it, since headers stand in the frames of errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<Token>"


class StateValue(NamedTuple):
    """A value of a state store: its bytes as they are kept, and when it expires, as RFC 3339."""

    data: bytes
    etag: str | None
    expires: object


class StateItem(NamedTuple):
    """Write of a key."""

    key: str
    value: bytes | None  # as it is to be kept; ``None``: a delete
    etag: str | None = None  # only if it is the current one
    create: bool = False  # ``first-write``
    consistency: str | None = None
    metadata: Mapping[str, str] = {}


class Stream(Protocol):
    """Messages that go both ways until one side ends it."""

    def send(self, message: Any) -> None:
        """Queue a message."""

    def finish(self) -> None:
        """Say that no more are coming; what was queued is sent first."""

    def cancel(self) -> None:
        """End it now."""

    def join(self, timeout: float | None) -> bool:
        """Wait for its end; returns whether it came in time."""


class Transport(FlowEngine[Any, Any]):
    """The way to one sidecar. Calls raise `SidecarError` for what the sidecar refuses."""

    exact: ClassVar[bool]  # JSON comes back as it was saved, whatever its numbers
    streams: ClassVar[bool]
    largest: int  # bytes of a message

    def __init__(self, url: str) -> None:
        self.url = url
        self._closed = False

    def steps(self, op: Operation, flow: Flow[T]) -> Flow[T]:
        """Yield the requests of a call; raises our error for a refusal that its flow lets pass."""
        wrote = False
        request: Any = None
        reply: Any = None
        failure: BaseException | None = None
        try:
            request = next(flow)
            while True:
                self._check()
                reply = failure = None
                try:
                    reply = yield request
                except BaseException as error:
                    failure = error
                if failure is None:
                    wrote = wrote or (op.method.writes and self.writes(op, request) and not self._refuses(reply))
                    request = flow.send(reply)
                else:
                    request = flow.throw(failure)  # it may know what that means
        except StopIteration as done:
            result: T = done.value
            return result
        except SidecarError as refused:
            ours = refused.error(applied=op.method.writes)
            ours.maybe_applied = ours.maybe_applied or wrote
            raise ours from None
        except BaseException as error:
            may_write = op.method.writes and request is not None and self.writes(op, request)
            applied = wrote or (may_write and getattr(error, "maybe_applied", True))
            if isinstance(error, CloudRuntimesError):
                error.maybe_applied = applied
            elif not isinstance(error, Exception):
                mark_interrupted(error, applied)
            raise
        finally:
            reply = failure = None  # a reply may hold a secret, and stands in no frame of an error

    def native(self) -> Any:
        """Return the client library's object; ``None``: there is none, as with HTTP."""
        return None

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this client is closed: make another")

    @abstractmethod
    def writes(self, op: Operation, request: Any) -> bool:
        """Return whether a request may change anything."""

    def _refuses(self, reply: Any) -> bool:
        """Return whether a reply says that nothing was done."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class SidecarDriver(FlowDriver):
    """A driver of one component of the sidecar. Its transport is a `Channel`, or has the same calls over HTTP."""

    def __init__(self, transport: Any, name: str) -> None:
        self.flows = transport
        self._transport: Channel = transport
        self._name = name


def resolve(future: Future[T], reply: T) -> None:
    """Answer a callback of the sidecar that waits for the future, from any thread. The first answer counts."""
    try:
        future.set_result(reply)
    except InvalidStateError:
        pass  # answered before, or given up by the sidecar
