"""Why data does not fit an annotation, and where: a path is a linked pair (outer path, step), and is only rendered for an error."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, TypeAlias

from .._native.plain import render_path
from ..errors import PayloadError

Path: TypeAlias = "tuple[Any, Any] | str"
Converter: TypeAlias = "Callable[[Any, Path], Any]"


def fail(path: Path, reason: str, cause: Exception | None = None) -> typing.NoReturn:
    if isinstance(cause, MemoryError):  # which says nothing about the value
        raise cause
    steps = []
    while isinstance(path, tuple):
        path, step = path
        steps.append(step)
    location = f"{path}{render_path(reversed(steps))[1:]}" if steps else render_path(()) if path == "$" else path
    raise PayloadError(f"{location}: {reason}") from cause


def name_of(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)


def expected(path: Path, annotation: Any, value: Any) -> typing.NoReturn:
    got = repr(value) if value is None or type(value) is bool else type(value).__name__
    fail(path, f"expected {name_of(annotation)}, got {got}")


def short(value: Any) -> str:
    text = repr(value) if type(value) in (str, int, float, bool, type(None)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
