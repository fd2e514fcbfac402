"""A handle: made without I/O, opened by ``with`` / ``async with`` or by its first I/O, closed by its end.

A handle that a forked child inherited belongs to the parent: using it there raises `ClosedError`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from ..errors import ClosedError
from . import fork


class Handle:
    """Base of every handle; subclasses say what opening and closing do."""

    _generation: int

    def __init__(self) -> None:
        self._generation = fork.generation()

    def _check_process(self) -> None:
        if self._generation != fork.generation():
            raise ClosedError(
                f"this {type(self).__name__} was opened before fork and belongs to the parent: open another"
            )

    def _leaving(self, error: BaseException | None) -> bool:
        """Return whether a block's end is this process's to carry out; a child that only leaves by an exception keeps it."""
        if error is None:
            self._check_process()
        return self._generation == fork.generation()

    def _open(self) -> None:
        """Open, in the sync API."""

    async def _open_async(self) -> None:
        """Open, in the async API."""

    def _exit(self, error: BaseException | None) -> None:
        """End a ``with`` block that ``error`` left, or nothing did."""

    async def _exit_async(self, error: BaseException | None) -> None:
        """End an ``async with`` block that ``error`` left, or nothing did."""

    def __enter__(self) -> Self:
        self._check_process()
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leaving(error):
            self._exit(error)

    async def __aenter__(self) -> Self:
        self._check_process()
        await self._open_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leaving(error):
            await self._exit_async(error)


class Closable(Protocol):
    """Whatever closing a client ends."""

    def _close_by_client(self, end: float | None) -> None:
        """End it by a time of `time.monotonic`; again does nothing."""


def close_by(handle: Closable, end: float | None) -> None:
    """End a handle that a client ends at the latest, by a time of `time.monotonic`; again does nothing."""
    handle._close_by_client(end)


class Handles:
    """The handles that closing a client ends."""

    def __init__(self) -> None:
        self._held: set[Any] = set()
        self._loose: weakref.WeakSet[Any] = weakref.WeakSet()

    def __iter__(self) -> Iterator[Any]:
        return iter((*self._held, *self._loose))

    def held(self) -> tuple[Any, ...]:
        """Return the handles that do not end by themselves. Thread-safe."""
        return tuple(self._held)

    def add(self, handle: Closable, *, loose: bool = False) -> None:
        """Add a handle. A ``loose`` one ends by itself once nobody has it."""
        (self._loose if loose else self._held).add(handle)

    def discard(self, handle: Any) -> None:
        """Forget a handle that has ended."""
        self._held.discard(handle)
        self._loose.discard(handle)

    def close(self, end: float | None) -> Exception | None:
        """End them all by a time of `time.monotonic`; return the first failure."""
        failure: Exception | None = None
        # telemetry comes last: closing the others may record
        for handle in sorted(self, key=lambda each: getattr(each, "closes_last", False)):
            try:
                handle._close_by_client(end)
            except Exception as error:
                failure = failure or error
        return failure

    def forked(self) -> None:
        """In a forked child: most are the parent's."""
        self._held = {handle for handle in self._held if getattr(handle, "outlives_fork", False)}
        self._loose = weakref.WeakSet()
