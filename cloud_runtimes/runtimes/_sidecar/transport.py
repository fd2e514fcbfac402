"""The calls that sidecars have in common, as methods; subclasses send them by HTTP or gRPC.

A call is a generator that yields requests and is sent replies, so one serves both APIs; `Transport.run` and `run_async` drive it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

from ...errors import ClosedError, CloudRuntimesError
from ...spi.flow import run_sync
from ...spi.operation import Operation, mark_interrupted
from ...spi.rpc import RpcCall, RpcReply
from ...spi.secret import Secret
from .failures import SidecarError

__all__ = ["Flow", "StateValue", "StateItem", "Stream", "Token", "Transport", "resolve"]

T = TypeVar("T")
Flow: TypeAlias = Generator[Any, Any, T]
"""The requests of an operation, one after another, and its result."""


class Token(str):
    """A token that is sent as it is and that no ``repr`` shows: headers stand in the frames of errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<Token>"


class StateValue(NamedTuple):
    """A value of a state store: its bytes as they are kept, and when it expires, as RFC 3339."""

    data: bytes
    etag: str | None
    expires: object


class StateItem(NamedTuple):
    """One write.

    Attributes:
        value: as it is to be kept; ``None``: a delete.
        etag: only if it is the current one; ``None``: no condition.
        create: ``first-write``.
    """

    key: str
    value: bytes | None
    etag: str | None = None
    create: bool = False
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
        """Wait for its end; tells whether it came in time."""


class Transport(ABC):
    """The way to one sidecar.

    Calls raise `SidecarError` for what the sidecar says no to; `run` makes it one of our errors.

    Attributes:
        url: for messages.
        exact: JSON comes back as it was saved, whatever its numbers.
        streams: `open` works.
        largest: bytes of a message.
    """

    url: str
    exact: ClassVar[bool]
    streams: ClassVar[bool]
    largest: int

    def __init__(self, url: str) -> None:
        self.url = url
        self._closed = False

    # -- driving ------------------------------------------------------------

    def run(self, op: Operation, flow: Flow[T]) -> T:
        """Make the requests of an operation and return its result."""
        return run_sync(self._run(op, flow, self._sent))

    async def run_async(self, op: Operation, flow: Flow[T]) -> T:
        """Asynchronous `run`."""
        return await self._run(op, flow, self._send_async)

    async def _run(self, op: Operation, flow: Flow[T], send: Callable[[Operation, Any], Awaitable[Any]]) -> T:
        wrote = False
        replies: list[Any] = []  # emptied before an error can leave: a reply may hold a secret
        try:
            request = next(flow)
            while True:
                self._check()
                replies.append(await send(op, request))
                wrote = wrote or (op.method.writes and self._wrote(request, replies[0]))
                request = flow.send(replies.pop())
        except StopIteration as done:
            result: T = done.value
            return result
        except SidecarError as refused:
            raise self._ours(op, refused, wrote) from None
        except BaseException as error:
            mark_applied(error, wrote, op.method.writes)
            raise

    async def _sent(self, op: Operation, request: Any) -> Any:
        return self._send(op, request)

    @staticmethod
    def _ours(op: Operation, refused: SidecarError, wrote: bool) -> CloudRuntimesError:
        error = refused.error(applied=op.method.writes)
        error.maybe_applied = error.maybe_applied or wrote
        return error

    def native(self) -> Any:
        """Return the client library's object; ``None``: there is none, as with HTTP."""
        return None

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this client is closed: make another")

    @abstractmethod
    def _send(self, op: Operation, request: Any) -> Any:
        """Make one request."""

    @abstractmethod
    async def _send_async(self, op: Operation, request: Any) -> Any: ...

    @abstractmethod
    def _wrote(self, request: Any, reply: Any) -> bool:
        """Tell whether something is changed, whatever becomes of the rest of the operation."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    # -- calls --------------------------------------------------------------

    @abstractmethod
    def ready(self) -> Flow[str]:
        """Return ``""`` once the sidecar answers, else why it does not yet."""

    @abstractmethod
    def invoke(self, service: str, call: RpcCall) -> Flow[RpcReply]:
        """Return an application's answer, whatever its status; `SidecarError` is a failure of the sidecar's own, with the code ``ERR_DIRECT_INVOKE``."""

    @abstractmethod
    def get_state(
        self, store: str, key: str, consistency: str | None, metadata: Mapping[str, str]
    ) -> Flow[StateValue | None]:
        """Return what a key holds, ``None``: it is absent."""

    @abstractmethod
    def get_states(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Flow[dict[str, StateValue]]:
        """Return what the keys hold, without those that are absent."""

    @abstractmethod
    def save_states(self, store: str, items: Sequence[StateItem]) -> Flow[None]:
        """Save items; which of several failed is not told."""

    @abstractmethod
    def delete_state(self, store: str, item: StateItem) -> Flow[None]:
        """Delete a key."""

    @abstractmethod
    def transact(self, store: str, items: Sequence[StateItem], metadata: Mapping[str, str]) -> Flow[None]:
        """Save and delete, all or nothing."""

    @abstractmethod
    def get_secret(self, store: str, key: str, metadata: Mapping[str, str]) -> Flow[Secret]:
        """Return a secret."""

    @abstractmethod
    def get_secrets(self, store: str, metadata: Mapping[str, str]) -> Flow[dict[str, Secret]]:
        """Return all secrets of a store."""

    @abstractmethod
    def try_lock(self, store: str, resource: str, owner: str, seconds: int) -> Flow[bool]:
        """Take a lock, if it is free."""

    @abstractmethod
    def unlock(self, store: str, resource: str, owner: str) -> Flow[int]:
        """Release a lock; returns Dapr's ``UnlockResponse.Status``."""

    @abstractmethod
    def publish(
        self, pubsub: str, topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> Flow[None]:
        """Publish one event."""

    # -- streams ------------------------------------------------------------

    def need_streams(self, what: str) -> None:
        """Refuse, before any I/O, what takes a stream.

        Raises:
            UnsupportedError: this transport has none.
        """

    @abstractmethod
    def open(
        self, kind: str, first: Any, receive: Callable[[Any], None], ended: Callable[[Exception | None], None]
    ) -> Stream:
        """Begin a stream of a kind that this sidecar has, ``"events"`` or another; ``receive`` gets each message and ``ended`` its end, in a thread of its own."""


def mark_applied(error: BaseException, wrote: bool, writes: bool) -> None:
    """Say on an error whether a part of the operation may be applied. One that only reads changes nothing, though some reads are POST."""
    if isinstance(error, CloudRuntimesError):
        error.maybe_applied = wrote or (writes and error.maybe_applied)
    elif wrote and not isinstance(error, Exception):
        mark_interrupted(error, True)


def resolve(future: Future[T], reply: T) -> None:
    """Answer a callback of the sidecar that waits for the future, from any thread. The first answer counts."""
    try:
        future.set_result(reply)
    except InvalidStateError:
        pass  # answered before, or given up by the sidecar
