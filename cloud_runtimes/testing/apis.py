"""Both APIs behind one vocabulary, so that a test body is written once.

``api.call(service, "save", …)`` calls ``save`` or runs ``save_async``; handles are opened and received from in the same way.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


class Api(ABC):
    """The sync or the async API."""

    name: str

    @abstractmethod
    def call(self, target: Any, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method that both have."""

    def fails(self, error: Any, match: str | None = None) -> Callable[..., Any]:
        """Return a `call` that must raise an error, and returns the error."""

        def call(target: Any, method: str, /, *args: Any, **kwargs: Any) -> Any:
            import pytest  # which a program with both APIs need not have

            with pytest.raises(error, match=match) as caught:
                self.call(target, method, *args, **kwargs)
            return caught.value

        return call

    @abstractmethod
    def opened(self, handle: Any) -> Any:
        """Return a context manager for a handle's ``with`` or ``async with`` block."""

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """Let time pass, and handlers run."""

    @abstractmethod
    def handler(self, body: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a handler, a plain or an async function."""

    @abstractmethod
    def take(self, iterable: Any, count: int | None = None) -> list[Any]:
        """Iterate, so many times or to the end."""

    @abstractmethod
    def together(self, calls: list[tuple[Any, str, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """Make calls at once; results, or the exceptions raised."""

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Let time pass until a condition holds; returns whether it did in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.pause(0.005)
        return True

    def close(self) -> None:
        """Let go."""


class SyncApi(Api):
    """Plain calls."""

    name = "sync"

    def call(self, target: Any, method: str, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(target, method)(*args, **kwargs)

    def opened(self, handle: Any) -> Any:
        return handle

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def handler(self, body: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return body

    def take(self, iterable: Any, count: int | None = None) -> list[Any]:
        return list(islice(iterable, count))

    def together(self, calls: list[tuple[Any, str, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(getattr(target, name), *args, **kwargs) for target, name, args, kwargs in calls]
            return [future.exception() or future.result() for future in futures]


class AsyncApi(Api):
    """The ``_async`` methods, in one event loop."""

    name = "async"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, flow: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in this loop."""
        return self._loop.run_until_complete(flow)

    def call(self, target: Any, method: str, /, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:  # inside, since a method may need the running loop before its first await
            return await getattr(target, f"{method}_async")(*args, **kwargs)

        return self.run(call())

    @contextmanager
    def opened(self, handle: Any) -> Iterator[Any]:
        value = self.run(handle.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self.run(handle.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.run(handle.__aexit__(None, None, None))

    def pause(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def handler(self, body: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def handler(event: Any) -> Any:
            await asyncio.sleep(0)
            return body(event)

        return handler

    def take(self, iterable: Any, count: int | None = None) -> list[Any]:
        async def take() -> list[Any]:
            items: list[Any] = []
            async for each in iterable:
                items.append(each)
                if len(items) == count:
                    break
            return items

        return self.run(take())

    def together(self, calls: list[tuple[Any, str, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        async def together() -> list[Any]:
            coroutines = [getattr(target, f"{name}_async")(*args, **kwargs) for target, name, args, kwargs in calls]
            return list(await asyncio.gather(*coroutines, return_exceptions=True))

        return self.run(together())

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.close()
