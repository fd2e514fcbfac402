"""Progress on stderr, when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

Advance = Callable[[int, int], None]
"""Called with how many things there were, and how much of ``size`` is done."""

_EVERY: Final = 0.1


@contextmanager
def progress(size: int | None, things: str = "events") -> Iterator[Advance]:
    """Show a bar where the size is known, else a spinner; both with count and rate.

    Args:
        size: bytes to read, or whatever `Advance` is told of; ``None``: not known.
        things: that are counted.
    """
    if not sys.stderr.isatty():
        yield lambda count, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    known = (BarColumn(), TaskProgressColumn()) if size is not None else (SpinnerColumn(),)
    text = TextColumn("{task.fields[count]:,} {task.fields[things]}, {task.fields[rate]:,.0f}/s")
    started = monotonic()
    due = started
    with Progress(*known, text, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=size, count=0, things=things, rate=0.0)

        def advance(count: int, done: int) -> None:
            nonlocal due
            now = monotonic()
            if now >= due:
                due = now + _EVERY
                shown.update(task, completed=done, count=count, rate=count / max(1e-9, now - started))

        yield advance
