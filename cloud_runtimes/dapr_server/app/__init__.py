"""The application beside the sidecar: the first block to start, and the last to stop."""

from __future__ import annotations

import asyncio

from ..context import Block, Context

__all__ = ["AppBlock"]


class AppBlock(Block):
    """Opens the way to the application, and waits until it listens; it has no routes of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._looking: asyncio.Task[None] | None = None
        settings = context.settings
        if settings.app_port is None:
            return
        if settings.app_protocol == "grpc":
            from .grpc import GrpcChannel

            context.app = GrpcChannel(settings)
        else:
            from .http import HttpChannel

            context.app = HttpChannel(settings)

    async def start(self) -> None:
        """Begin to look for the application."""
        if self._context.app is not None:
            self._looking = asyncio.create_task(self._context.app.look())

    async def stop(self) -> None:
        """Close the way."""
        if self._looking is not None:
            self._looking.cancel()
        if self._context.app is not None:
            await self._context.app.close()
