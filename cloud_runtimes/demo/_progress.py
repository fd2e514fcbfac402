"""Two bars on stderr: by rich where it is installed and stderr is a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

__all__ = ["Show", "progress"]

Show = Callable[[int, int], None]
"""Called with how many events were published and how many consumed."""

_LINE_EVERY: Final = 2.0


@contextmanager
def progress(total: int) -> Iterator[Show]:
    """Give the function that shows how far it is."""
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _lines(total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        published = bars.add_task("published", total=total)
        consumed = bars.add_task("consumed", total=total)

        def show(sent: int, done: int) -> None:
            bars.update(published, completed=sent)
            bars.update(consumed, completed=done)

        yield show


def _lines(total: int) -> Show:
    due = monotonic() + _LINE_EVERY

    def show(sent: int, done: int) -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + _LINE_EVERY
            sys.stderr.write(f"published {sent:,} of {total:,}, consumed {done:,}\n")
            sys.stderr.flush()

    return show
