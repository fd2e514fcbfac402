"""A handle: made without I/O, opened by ``with`` / ``async with`` or by its first I/O, closed by its end.

A handle that a forked child inherited belongs to the parent: using it there raises `ClosedError`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..errors import ClosedError
from . import fork

__all__ = ["Handle"]


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
        """Tell whether a block's end is this process's to carry out; a child that only leaves by an exception keeps it."""
        if error is None:
            self._check_process()
        return self._generation == fork.generation()

    def _open(self) -> None:
        """Open, in the sync face."""

    async def _open_async(self) -> None:
        """Open, in the async face."""

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
