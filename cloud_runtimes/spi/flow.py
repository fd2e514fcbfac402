"""Flows of several steps that are written once and driven by both APIs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from ..errors import InternalError

__all__ = ["run_sync"]

T = TypeVar("T")


def run_sync(flow: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, and return its result.

    Flows of several steps are written once as ``async def`` over awaitables that, in the sync API, are done at once.

    Raises:
        InternalError: it did suspend; that is a fault of the flow.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    flow.close()
    raise InternalError(f"{getattr(flow, '__qualname__', flow)} waited for an event loop in the sync API")
