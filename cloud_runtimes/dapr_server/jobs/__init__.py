"""Jobs: ``/v1.0/jobs``; those that are due come to the application while the sidecar serves."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ..._core.logs import logger
from ...errors import CloudRuntimesError
from ..app.channel import AppChannel
from ..context import Block, Context
from ..http.app import HttpApi
from .api import HANDLER, JobsApi
from .http import JobRoutes
from .trigger import Trigger

__all__ = ["JobsBlock"]

_LANDING: Final = 5.0


class JobsBlock(Block):
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._api = JobsApi(context)
        self._beginning: asyncio.Task[None] | None = None
        self._runner: Any = None
        self._trigger: Trigger | None = None

    def routes(self, http: HttpApi) -> None:
        JobRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        from .grpc import JobMethods

        JobMethods(self._api).add_to(grpc)

    async def start(self) -> None:
        """Begin to run due jobs, once the application listens."""
        # a handler of a sidecar that is over, of the same client, gives way
        self._context.frame("schedule").handlers.pop(HANDLER, None)
        if self._context.app is None:
            # jobs can be scheduled by their handler's name, and wait for a sidecar that has an application
            self._context.client.schedule.job(HANDLER)(_nobody)
        else:
            self._trigger = Trigger(self._context.app)
            self._context.client.schedule.job(HANDLER)(self._trigger.run)
            self._beginning = asyncio.create_task(self._begin(self._context.app))

    async def _begin(self, app: AppChannel) -> None:
        await app.ready()
        runner = self._context.client.schedule.running(timeout=self._context.settings.grace)
        try:
            await runner.__aenter__()
        except CloudRuntimesError as error:
            logger().warning("due jobs are not run: %s", error)
            return
        self._runner = runner

    async def stop(self) -> None:
        """Let triggers under way end within the grace; what did not end runs again."""
        if self._beginning is not None:
            self._beginning.cancel()
            await asyncio.wait((self._beginning,))
        if self._runner is not None:
            grace = self._context.settings.grace
            # what is given up after the grace still lands, and is free for another process at once
            closing = asyncio.create_task(self._runner.close_async(timeout=grace + _LANDING))
            await asyncio.wait((closing,), timeout=grace)
            if self._trigger is not None:
                await self._trigger.end()
            await closing
        self._context.frame("schedule").handlers.pop(HANDLER, None)


async def _nobody(data: Any) -> None:
    raise CloudRuntimesError("there is no application beside this sidecar")
