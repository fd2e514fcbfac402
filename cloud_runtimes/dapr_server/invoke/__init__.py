"""Service invocation: ``/v1.0/invoke``, the header ``dapr-app-id``, ``InvokeService``, and calls of gRPC that are passed on."""

from __future__ import annotations

from typing import Any

from ..context import Block, Context
from ..http.app import HttpApi
from .announced import Announced
from .api import InvokeApi
from .http import InvokeRoutes

__all__ = ["InvokeBlock"]


class InvokeBlock(Block):
    """See the module; while it runs, others find the application under its id."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._api = InvokeApi(context)
        self._announced = Announced(context)
        self._proxy: Any = None

    def routes(self, http: HttpApi) -> None:
        InvokeRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        from .grpc import InvokeMethods
        from .proxy import Proxy

        InvokeMethods(self._api).add_to(grpc)
        self._proxy = Proxy(self._context, self._api)
        grpc.otherwise = self._proxy.handler

    async def start(self) -> None:
        """Let others find the application."""
        await self._announced.start()

    async def stop(self) -> None:
        """Be found no longer."""
        await self._announced.stop()
        if self._proxy is not None:
            await self._proxy.close()
