"""Progress of a publish on stderr, when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

__all__ = ["Advance", "progress"]

Advance = Callable[[int, int], None]
"""Called for each event with how many there were, and how many bytes have been read."""

_EVERY: Final = 0.1


@contextmanager
def progress(size: int | None) -> Iterator[Advance]:
    """Show a bar where the number of bytes is known, else a spinner; both with count and rate.

    Args:
        size: bytes to read; ``None``: not known.
    """
    if not sys.stderr.isatty():
        yield lambda events, read: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    known = (BarColumn(), TaskProgressColumn()) if size is not None else (SpinnerColumn(),)
    text = TextColumn("{task.fields[events]:,} events, {task.fields[rate]:,.0f}/s")
    started = monotonic()
    due = started
    with Progress(*known, text, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=size, events=0, rate=0.0)

        def advance(events: int, read: int) -> None:
            nonlocal due
            now = monotonic()
            if now >= due:
                due = now + _EVERY
                shown.update(task, completed=read, events=events, rate=events / max(1e-9, now - started))

        yield advance
