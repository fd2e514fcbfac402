"""Standard streams and signals: bytes out, complaints and progress to stderr, and an orderly end."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any, Final

from .._core.os_signals import handling
from ._errors import UsageError

BOLD: Final = "1"
RED: Final = "31"
GREEN: Final = "32"


def styled(text: str, style: str, stream: Any = None) -> str:
    """Return a text for stdout, or another stream, in a style if that is a terminal, unless ``NO_COLOR`` is set (no-color.org)."""
    if os.environ.get("NO_COLOR") or not (stream or sys.stdout).isatty():
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def write(data: bytes) -> None:
    """Write to stdout and flush: what is acknowledged afterwards must have left this process."""
    out = sys.stdout.buffer
    out.write(data)
    out.flush()


def note(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """Write an error's line to stderr."""
    note(f"{styled('error:', RED, sys.stderr)} {text}")


def agree(question: str, yes: bool) -> None:
    """Ask on a terminal whether to go on; elsewhere ``--yes`` says so."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("it asks on a terminal: give --yes elsewhere")
    import typer

    typer.confirm(question, abort=True, err=True)


def abandon_stdout() -> None:
    """Send what is still buffered nowhere: its reader is gone, and the exit of the interpreter would flush it."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return  # a stdout without a descriptor, in tests


class Stop:
    """Whether SIGINT or SIGTERM came.

    Attributes:
        signal: its number, 0: none.
    """

    signal = 0

    @property
    def code(self) -> int:
        """The conventional exit code."""
        return 128 + self.signal


@contextmanager
def stopping(*, interrupt: bool) -> Iterator[Stop]:
    """Note SIGINT and SIGTERM instead of ending at once; a second one interrupts in any case.

    Args:
        interrupt: also raise ``KeyboardInterrupt``, for work that blocks where nobody can look at the note.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        again, stop.signal = stop.signal, number
        if interrupt or again:
            raise KeyboardInterrupt

    with handling((signal.SIGINT, signal.SIGTERM), handle):
        yield stop


def _is_file(stream: Any) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False  # a stdout without a descriptor, in tests


Advance = Callable[[int, int], None]
"""Called with how many things there were, and how much of ``size`` is done."""

_EVERY: Final = 0.1


@contextmanager
def progress(size: int | None, things: str = "events", *, to: Any = None) -> Iterator[Advance]:
    """Show a bar where the size is known, else a spinner; both with count and rate.

    Args:
        size: bytes to read, or whatever `Advance` is told of; ``None``: not known.
        things: that are counted.
        to: stream that gets them; nothing is shown unless it is a file, since lines on the same terminal would mix with the bar.
    """
    if not sys.stderr.isatty() or (to is not None and not _is_file(to)):
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
