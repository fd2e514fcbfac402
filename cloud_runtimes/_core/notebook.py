"""Results as IPython and notebooks show them: in bounded lines, and as tables whose text is escaped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from reprlib import Repr
from typing import Any, Final, TypeVar

T = TypeVar("T")

_LINE: Final = 80
_ROWS: Final = 100
_SHORT: Final = Repr()
_SHORT.maxstring = _SHORT.maxother = _LINE


class Listing(list[T]):
    """List of results that a notebook shows as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return table(self)


def line(value: Any) -> str:
    """Return a value as text of at most a line, without reading more of it than that."""
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, (str, bytes)):
        value = value[: _LINE + 1]
        text = repr(value) if isinstance(value, bytes) or not value.isprintable() else value
    else:
        text = "" if value is None else _SHORT.repr(value)
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"


def table(items: Sequence[Any]) -> str:
    """Return dataclasses, or objects that name what is ``_shown`` of them, as a table of HTML: as many as anybody reads."""
    if not items:
        return "<i>nothing</i>"
    shown = getattr(type(items[0]), "_shown", None) or [each.name for each in dataclasses.fields(items[0])]
    head = _row("th", shown)
    body = "".join(_row("td", (_cell(each, name) for name in shown)) for each in islice(items, _ROWS))
    more = f"<i>and {len(items) - _ROWS:,} more</i>" if len(items) > _ROWS else ""
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{more}"


def _row(tag: str, cells: Iterable[str]) -> str:
    from html import escape

    return f"<tr>{''.join(f'<{tag}>{escape(each)}</{tag}>' for each in cells)}</tr>"


def _cell(item: Any, name: str) -> str:
    try:
        return line(getattr(item, name))
    except Exception as error:  # data that cannot be decoded, or an object of the application that has no repr
        return line(f"{type(error).__name__}: {error}")
