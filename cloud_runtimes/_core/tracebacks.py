"""What of an error's traceback may be seen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..errors import CloudRuntimesError

__all__ = ["without_values"]

P = ParamSpec("P")
R = TypeVar("R")


def without_values(function: Callable[P, R]) -> Callable[P, R]:
    """Cut the frames below a function from its errors, and the errors that those came from.

    Their variables hold values of the configuration, which a traceback with variables would show.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CloudRuntimesError as error:
            failure = error
        del args, kwargs
        failure.__context__ = None
        try:
            raise failure.with_traceback(None)
        finally:
            del failure  # its traceback holds this frame

    return call
