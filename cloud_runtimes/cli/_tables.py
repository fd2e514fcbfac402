"""Tables of text, whose columns widen as lines come."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Final

from ._streams import BOLD, styled, write

_WIDE: Final = 60
_NARROW: Final = 20


class Table:
    """A table whose lines may come in parts: the head is written once, and columns only widen.

    Long cells are cut, the last one at the end of a terminal's line unless it is ``whole``.
    """

    def __init__(self, columns: Sequence[str], *, whole: bool = False) -> None:
        self._columns = columns
        self._whole = whole
        self._widths: list[int] = []

    def add(self, lines: Sequence[Sequence[str]]) -> None:
        """Write lines."""
        write("".join(f"{line}\n" for line in self.render(lines)).encode("utf-8", "replace"))

    def render(self, lines: Sequence[Sequence[str]]) -> list[str]:
        """Return lines as they are written, the first time after the head."""
        is_first = not self._widths
        widths = self._widths or [len(name) for name in self._columns]
        columns: list[list[str]] = []
        for at, texts in enumerate(zip(*lines, strict=True)):
            limit = self._limit(at, sum(widths[:at]))
            columns.append([_cell(text, limit) for text in texts])
            widths[at] = max(widths[at], *map(len, columns[at]))
        self._widths = widths
        rendered = [self._joined(line) for line in zip(*columns, strict=True)]
        if is_first:
            rendered[:0] = styled(self._joined(self._columns), BOLD), self._joined(
                ["-" * min(width, _WIDE) for width in self._widths]
            )
        return rendered

    def _limit(self, at: int, taken: int) -> int:
        """Return how wide a column may be, to the right of so many characters."""
        if at < len(self._columns) - 1 or not (self._whole or sys.stdout.isatty()):
            return _WIDE
        return sys.maxsize if self._whole else max(_NARROW, shutil.get_terminal_size().columns - taken - 2 * at)

    def _joined(self, cells: Sequence[str]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(cells, self._widths, strict=True)).rstrip()


def _cell(text: str, limit: int) -> str:
    # one line each, and no escape sequence of a terminal
    plain = "".join(each if each.isprintable() else "\ufffd" for each in text)
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
