"""Standard streams and signals: bytes out, complaints to stderr, and an orderly end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from .._core.signals import handling

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
