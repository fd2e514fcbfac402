"""Base of services' handles that take time to end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from threading import Timer
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar

from .._core import fork
from .._core.arguments import CLIENT_TIMEOUT, check_timeout
from .._core.handlers import running
from .._core.handles import Handle
from .._core.logs import logger
from .._core.os_signals import ending_signals
from .._core.threads import Changes

if TYPE_CHECKING:
    import asyncio

    from ..errors import CloudRuntimesError
    from .base import Framed

_PATIENCE: Final = 1.0
"""Seconds after a signal until somebody may wonder."""
_SERVICES: Final = ("rpc", "pubsub", "schedule")
"""Services with handlers."""

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Handle)


def threaded(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Return the async twin of a method that blocks: it runs in a thread, so that what it waits for may run in the loop."""
    name = method.__name__

    @functools.wraps(method)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio

        result: R = await asyncio.to_thread(getattr(self, name), *args, **kwargs)
        return result

    return twin


class Opening(Coroutine[Any, Any, H], Generic[H]):
    """Result of a method that opens a handle: await it for the handle, or enter it at once by ``async with``."""

    def __init__(self, coroutine: Coroutine[Any, Any, H]) -> None:
        self._coroutine = coroutine
        self._handle: H | None = None

    def __await__(self) -> Generator[Any, Any, H]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    async def __aenter__(self) -> H:
        self._handle = await self._coroutine
        return await self._handle.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None
        await self._handle.__aexit__(kind, error, trace)


def opening(method: Callable[P, Coroutine[Any, Any, H]]) -> Callable[P, Opening[H]]:
    """Let what a method returns be entered without ``await``."""

    @functools.wraps(method)
    def opens(*args: P.args, **kwargs: P.kwargs) -> Opening[H]:
        return Opening(method(*args, **kwargs))

    return opens


class ServiceHandle(Handle):
    """A handle of a service, or of one of its handles, whose frame it shares."""

    def __init__(self, service: Framed) -> None:
        self._generation = fork.generation()
        self._frame = service._frame


class ClosingHandle(ServiceHandle):
    """A handle that the client ends at the latest, by ``_close_by_client``."""

    def __init__(self, service: Framed, timeout: float | None = CLIENT_TIMEOUT) -> None:
        super().__init__(service)
        self._timeout = timeout

    def close(self, *, timeout: float | None = CLIENT_TIMEOUT) -> None:
        """End it, as leaving ``with`` does; the class says what that means.

        Args:
            timeout: seconds for what is under way to end; the client's by default.

        Raises:
            InvalidArgumentError: ``timeout`` is no number above 0.
            ClosedError: a forked child inherited it.
            BulkError: of a publisher: events failed that no flush has told of.
            DeadlineExceededError: of a publisher: the broker has not answered, so that events are not settled.
        """
        self._check_process()
        limit = check_timeout(timeout, self._frame.context.timeout)
        self._close_by_client(None if limit is None else monotonic() + limit)

    close_async = threaded(close)

    def _close_by_client(self, end: float | None) -> None:
        """End it by a time of `time.monotonic`; again does nothing."""
        raise NotImplementedError

    def _exit(self, error: BaseException | None) -> None:
        self.close(timeout=self._timeout)

    async def _exit_async(self, error: BaseException | None) -> None:
        await self.close_async(timeout=self._timeout)


class RunningHandle(ClosingHandle):
    """A handle that runs in the background, or in the foreground until it ends or a signal comes.

    Attributes:
        signal: which signal ended it, 0: none.
        error: what ended it before its time; ``None``: nothing did.
        needed: whether the application asked for it; else what serves goes on where this may not run.
    """

    signal = 0
    error: CloudRuntimesError | None = None
    needed: bool = True
    _loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self, service: Framed, timeout: float | None) -> None:
        super().__init__(service, timeout)
        self._changes = Changes()

    def _over(self) -> bool:
        """Return whether it has ended, or a signal has come."""
        raise NotImplementedError

    def _follow(self, part: RunningHandle) -> None:
        """Have a handle that runs as a part of this one announce its end to whoever waits for this one."""
        part._changes = self._changes

    def _has_ended(self, part: ClosingHandle) -> bool:
        """Return whether a part has ended; what ended it has ended this one."""
        if not isinstance(part, RunningHandle) or not part._over():
            return False
        self.error = self.error or part.error
        return True

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Say why it has not ended, a moment after a signal."""
        self._notice = notice = Timer(_PATIENCE, self._say_what_runs)
        notice.daemon = True
        try:
            yield
        finally:
            notice.cancel()

    def _say_what_runs(self) -> None:
        context = self._frame.context
        functions = (each.function for service in _SERVICES for each in context.frame(service).handlers.values())
        names = running(functions)
        logger().warning(
            "waiting for running handlers to end%s; Ctrl-C again ends them", f": {', '.join(names)}" if names else ""
        )

    def _signalled(self, number: int) -> None:
        again, self.signal = self.signal, number
        self._changes.announce()
        if again:
            raise KeyboardInterrupt
        self._notice.start()


def run_until_closed(handle: RunningHandle, opened: Callable[[], None] = lambda: None) -> None:
    """Run a handle until it ends or a signal comes; call ``opened`` once it is open."""
    with ending_signals(handle._signalled), handle._patience(), handle:
        opened()
        handle._changes.wait_for(handle._over, None)
    if handle.error is not None:
        raise handle.error


async def run_until_closed_async(handle: RunningHandle) -> None:
    """Run a handle in the running loop until it ends or a signal comes."""
    with ending_signals(handle._signalled), handle._patience():
        async with handle:
            await handle._changes.wait_for_async(handle._over, None)
    if handle.error is not None:
        raise handle.error


def run_in(handle: RunningHandle, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Have the async handlers of a handle that is opened by ``with`` run in a given loop."""
    handle._loop = loop
