"""The building blocks of a sidecar, put together.

A block is three things: what it does, in words of neither protocol, its routes over HTTP and its methods over gRPC. A small block is one module. A large one is a folder: ``api.py``, ``http.py`` and ``grpc.py``, put together by its ``__init__.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .app import AppBlock
from .bindings import BindingsBlock
from .configuration import ConfigurationBlock
from .context import Block, Context
from .http.app import HttpApi
from .invoke import InvokeBlock
from .jobs import JobsBlock
from .lock import LockBlock
from .pubsub import PubSubBlock
from .secret import SecretBlock
from .state import StateBlock
from .system import SystemBlock


class Blocks:
    """All of one sidecar, which start in their order."""

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self._blocks = blocks
        self._started: list[Block] = []

    async def start(self) -> None:
        """Start all."""
        for block in self._blocks:
            self._started.append(block)
            await block.start()

    async def stop(self, also: Awaitable[None] | None = None) -> None:
        """Stop those that were started, and what ``also`` is: at once, since each may take the whole grace; the first one, by which they reach the application, last."""
        started, self._started = self._started, []
        ending: list[Awaitable[None]] = [block.stop() for block in started[1:]]
        if also is not None:
            ending.append(also)
        results = await asyncio.gather(*ending, return_exceptions=True)
        for block in started[:1]:
            await block.stop()
        for result in results:
            if isinstance(result, BaseException):
                raise result


def install(context: Context, http: HttpApi, grpc: Any, shutdown: Callable[[], None]) -> Blocks:
    """Make the blocks and give them their routes and methods; ``grpc`` is ``None`` where it is not served."""
    blocks: tuple[Block, ...] = (
        AppBlock(context),
        StateBlock(context),
        SecretBlock(context),
        ConfigurationBlock(context),
        LockBlock(context),
        PubSubBlock(context),
        InvokeBlock(context),
        JobsBlock(context),
        BindingsBlock(context),
        SystemBlock(context, shutdown),
    )
    for block in blocks:
        block.routes(http)
        if grpc is not None:
            block.methods(grpc)
    return Blocks(blocks)
