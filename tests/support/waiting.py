"""Waiting for what a test brought about, and for its threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloud_runtimes.testing.suites._stopwatch import Stopwatch

__all__ = ["Stopwatch", "in_threads", "longer", "running", "until", "wait_in_vain"]


def until(condition: Callable[[], Any], what: str = "", seconds: float = 60.0) -> Any:
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.005)
    return result


def longer(begun: Callable[[], Any], seconds: float = 0.2) -> Iterator[float]:
    """Give longer and longer timeouts, until something has begun within one: for what is to run out of time in the middle."""
    yield seconds
    while not begun():
        seconds *= 4
        assert seconds < 60, f"it never began: {begun}"
        yield seconds


@contextmanager
def running(*works: Callable[[], object] | threading.Thread) -> Iterator[None]:
    """Run each in a thread of its own, and join them at the end of the block."""
    threads = [each if isinstance(each, threading.Thread) else threading.Thread(target=each) for each in works]
    for each in threads:
        each.start()
    yield
    for each in threads:
        each.join()


def in_threads(*works: Callable[[], object] | threading.Thread) -> None:
    """Run each in a thread of its own, and join them."""
    with running(*works):
        pass


def wait_in_vain(sub: Any) -> None:
    """Wait for what does not come, by both APIs, with time-outs and cancelled tasks."""

    async def poll() -> None:
        for _ in range(50):
            assert await sub.receive_async(0.001) is None
        for _ in range(50):
            task = asyncio.create_task(sub.receive_async())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(poll())
    for _ in range(50):
        assert sub.receive(0.001) is None
