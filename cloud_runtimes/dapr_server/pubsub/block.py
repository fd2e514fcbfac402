"""The building block of pub/sub."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..._core.logs import logger
from ...errors import CloudRuntimesError, PayloadError
from ..app.channel import AppChannel, NotReached
from ..context import Context
from ..http.app import HttpApi
from .api import PubSubApi
from .declared import ask
from .delivery import Delivery, HttpDelivery
from .http import PubSubRoutes
from .routing import Routes
from .subscriber import Subscriber
from .types import Subscription

if TYPE_CHECKING:
    from .streaming import Streams

__all__ = ["PubSubBlock"]


class PubSubBlock:
    """Publishing, and the subscriptions of the application.

    Raises:
        InvalidArgumentError: a rule of a declared subscription cannot be used.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._api = PubSubApi(context)
        self._streams: Streams | None = None
        self._open: list[Subscriber] = []
        self._opening: asyncio.Task[None] | None = None
        settings = context.settings
        grpc = settings.app_protocol == "grpc"
        declared = [
            (each, Routes(each, grpc=grpc))
            for each in settings.subscriptions
            if not each.scopes or settings.app_id in each.scopes
        ]
        self._declared = _chosen(declared, [])
        context.wanted = [each for each, _ in self._declared]

    def routes(self, http: HttpApi) -> None:
        """Add its routes."""
        PubSubRoutes(self._api).add_to(http)

    def methods(self, grpc: Any) -> None:
        """Add its methods."""
        from .grpc import PubSubMethods
        from .streaming import Streams

        self._streams = Streams(self._context)
        PubSubMethods(self._api, self._streams).add_to(grpc)

    async def start(self) -> None:
        """Begin to wait for the application, to ask what it subscribes to."""
        if self._context.app is not None:
            self._opening = asyncio.create_task(self._subscribe(self._context.app))

    async def stop(self) -> None:
        """Let callbacks under way end within the grace; what is unsettled goes back."""
        end = monotonic() + self._context.settings.grace
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait((self._opening,))
        ending = [subscriber.stop(end) for subscriber in self._open]
        if self._streams is not None:
            ending.append(self._streams.stop(end))
        for result in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(result, Exception):
                logger().error("ending a subscription failed: %r", result, exc_info=result)

    async def _subscribe(self, app: AppChannel) -> None:
        try:
            await app.ready()
            await self._open_all(app)
        except Exception as error:
            logger().error("opening the application's subscriptions failed: %r", error, exc_info=error)

    async def _open_all(self, app: AppChannel) -> None:
        told: list[tuple[Subscription, Routes]] = []
        try:
            asked = await ask(app, self._context.settings.app_id)
            told = [(each, Routes(each, grpc=app.protocol == "grpc")) for each in asked]
        except (NotReached, CloudRuntimesError, PayloadError) as error:
            logger().error("the application's subscriptions cannot be had: %s", error)
        wanted = _chosen(self._declared, told)
        self._context.wanted = [each for each, _ in wanted]
        delivery = self._delivery(app)
        for subscription, routes in wanted:
            subscriber = Subscriber(self._context, subscription, routes, delivery)
            self._open.append(subscriber)
            await subscriber.start()

    def _delivery(self, app: AppChannel) -> Delivery:
        if app.protocol == "grpc":
            from ..app.grpc import GrpcChannel
            from .delivery_grpc import GrpcDelivery

            assert isinstance(app, GrpcChannel)
            return GrpcDelivery(app)
        return HttpDelivery(app)


def _chosen(
    declared: list[tuple[Subscription, Routes]], told: list[tuple[Subscription, Routes]]
) -> list[tuple[Subscription, Routes]]:
    """Return one subscription for each topic, as daprd has them (dapr/dapr ``pkg/runtime/compstore``).

    The first that is declared counts. One that the application tells takes its place, of several the last.
    """
    made: dict[tuple[str, str], tuple[Subscription, Routes]] = {}
    for each in declared:
        made.setdefault((each[0].pubsub_name, each[0].topic), each)
    for each in told:
        made[each[0].pubsub_name, each[0].topic] = each
    return list(made.values())
