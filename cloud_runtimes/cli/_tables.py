"""Rows: a table on a terminal, a JSON object a line elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..codec import json
from ._streams import write

__all__ = ["rows", "table"]

_WIDE: Final = 60
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def rows(items: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write objects: all of each as JSON, or on a terminal a table with some of their fields."""
    if not sys.stdout.isatty():
        write(b"".join(json.encode(dict(item)) + b"\n" for item in items))
        return
    if lines := [[_text(item.get(name)) for name in columns] for item in items]:
        write(table(columns, lines))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.encode(value).decode()


def table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> bytes:
    """Return a table; its head is bold on a terminal, unless ``NO_COLOR`` is set (no-color.org)."""
    shown = [[_cell(text) for text in line] for line in (names, *lines)]
    widths = [max(len(line[at]) for line in shown) for at in range(len(names))]
    shown.insert(1, ["-" * width for width in widths])
    made = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in shown]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        made[0] = f"{_BOLD}{made[0]}{_PLAIN}"
    return ("\n".join(made) + "\n").encode("utf-8", "replace")


def _cell(text: str) -> str:
    # one line each, and no escape sequence of a terminal
    plain = "".join(each if each.isprintable() else "\ufffd" for each in text)
    return plain if len(plain) <= _WIDE else plain[: _WIDE - 1] + "…"
