"""What a handler of the application is: sync or async, and which arguments it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from ..errors import InvalidArgumentError

__all__ = ["ALONE", "count_arguments", "is_async_callable"]


def is_async_callable(handler: Any) -> bool:
    """Tell whether calling ``handler`` gives a coroutine."""
    if inspect.isfunction(handler) or inspect.ismethod(handler):
        return inspect.iscoroutinefunction(handler)
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


ALONE: Final = 3
"""Of `count_arguments`: what tells of the call, without the data."""


def count_arguments(handler: Callable[..., Any], label: str, second: type) -> int:
    """Count how many arguments a handler takes: none, the data, or the data and a ``second``; `ALONE` where its one parameter is annotated with ``second``."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # some built-ins tell nothing
        return 1
    taken = required = 0
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL:
            taken = 2
        elif each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            taken += 1
            required += each.default is each.empty
        elif each.kind is each.KEYWORD_ONLY and each.default is each.empty:
            required = 3
    if required > 2:
        raise InvalidArgumentError(
            f"{label}: a handler takes nothing, the data, or the data and the {second.__name__}; {handler!r:.80} needs more"
        )
    return ALONE if taken == 1 and _is_annotated(handler, second) else min(taken, 2)


def _is_annotated(handler: Callable[..., Any], kind: type) -> bool:
    """Tell whether the first parameter is annotated with a class."""
    try:
        parameters = inspect.signature(handler, eval_str=True).parameters
    except Exception:  # a name that is imported for type checkers alone
        parameters = inspect.signature(handler).parameters
    annotation = next(iter(parameters.values())).annotation
    return annotation is kind or (isinstance(annotation, str) and annotation.rpartition(".")[2] == kind.__name__)
