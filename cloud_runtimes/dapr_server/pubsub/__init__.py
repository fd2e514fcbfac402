"""Publishing and subscribing: ``/v1.0/publish``, and events to the application."""

from __future__ import annotations

import asyncio
import binascii
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..._core.logs import logger
from ...codec import json
from ...errors import CloudRuntimesError, PayloadError
from ...protocols.dapr.messages import messages
from ..app.channel import AppChannel, NotReached
from ..context import Block, Context
from ..http.app import HttpApi, Route
from ..http.request import Reply, Request, empty, json_reply, members
from ..settings import Subscription
from .api import Entry, PubSubApi, bytes_of
from .declared import ask
from .delivery import Delivery, HttpDelivery, Routes
from .outgoing import Trace
from .subscriber import Subscriber

if TYPE_CHECKING:
    from .streaming import Streams

__all__ = ["PubSubBlock"]


class PubSubBlock(Block):
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
        verbs = "POST PUT"
        http.add(
            Route(verbs, "/v1.0/publish/bulk/{pubsub}/{topic*}", self._http_publish_bulk),
            Route(verbs, "/v1.0-alpha1/publish/bulk/{pubsub}/{topic*}", self._http_publish_bulk),
            Route(verbs, "/v1.0/publish/{pubsub}/{topic*}", self._http_publish),
            # without a topic it is refused in words of its own
            Route(verbs, "/v1.0/publish/{pubsub}", self._http_publish),
        )

    def methods(self, grpc: Any) -> None:
        from .streaming import Streams

        streams = self._streams = Streams(self._context)
        grpc.unary("PublishEvent", "PublishEventRequest", self._grpc_publish)
        for name in ("BulkPublishEvent", "BulkPublishEventAlpha1"):
            grpc.unary(name, "BulkPublishRequest", self._grpc_publish_bulk)
        grpc.stream(
            "SubscribeTopicEventsAlpha1",
            "SubscribeTopicEventsRequestAlpha1",
            lambda requests, context: streams.serve(requests),
        )

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
        programmatic: list[tuple[Subscription, Routes]] = []
        try:
            asked = await ask(app, self._context.settings.app_id)
            programmatic = [(each, Routes(each, grpc=app.protocol == "grpc")) for each in asked]
        except (NotReached, CloudRuntimesError, PayloadError) as error:
            logger().error("the application's subscriptions cannot be had: %s", error)
        wanted = _chosen(self._declared, programmatic)
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

    # -- over HTTP --------------------------------------------------------

    async def _http_publish(self, request: Request) -> Reply:
        await self._api.publish(
            request.params["pubsub"],
            request.params.get("topic", ""),
            request.body,
            request.header("content-type") or "",
            request.metadata(),
            _http_trace(request),
        )
        return empty

    async def _http_publish_bulk(self, request: Request) -> Reply:
        pubsub_name, topic = request.params["pubsub"], request.params["topic"]
        entries = [self._http_entry(pubsub_name, topic, each) for each in self._http_array(request, pubsub_name, topic)]
        failed = await self._api.publish_bulk(pubsub_name, topic, entries, request.metadata(), _http_trace(request))
        if not failed:
            return empty
        failures = [{"entryId": entry_id, "error": why} for entry_id, why in failed.items()]
        return json_reply({"failedEntries": failures, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"}, 500)

    def _http_array(self, request: Request, pubsub_name: str, topic: str) -> list[dict[str, Any]]:
        self._api.check(pubsub_name, topic, request.metadata())
        try:
            entries = json.decode(request.body)
        except PayloadError as error:
            raise self._api.unreadable(pubsub_name, topic, error.message) from error
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise self._api.unreadable(pubsub_name, topic, "give an array of objects")
        return entries

    def _http_entry(self, pubsub_name: str, topic: str, given: dict[str, Any]) -> Entry:
        fields = members(given)
        content_type, metadata = fields.get("contenttype") or "", fields.get("metadata")
        entry_id = fields.get("entryid") or ""
        if (
            not isinstance(entry_id, str)
            or not isinstance(content_type, str)
            or not isinstance(metadata, dict | None)
            or not all(isinstance(value, str) for value in (metadata or {}).values())
        ):
            raise self._api.unreadable(
                pubsub_name, topic, "entryId and contentType are text, metadata is an object of text"
            )
        try:
            data = bytes_of(fields.get("event"), content_type)
        except (ValueError, binascii.Error) as error:
            raise self._api.mismatched(pubsub_name, topic, str(error)) from error
        return Entry(entry_id, data, content_type, metadata)

    # -- over gRPC --------------------------------------------------------

    async def _grpc_publish(self, request: Any, context: Any) -> Any:
        await self._api.publish(
            request.pubsub_name,
            request.topic,
            request.data,
            request.data_content_type,
            dict(request.metadata),
            _grpc_trace(context),
        )
        return messages().Empty()

    async def _grpc_publish_bulk(self, request: Any, context: Any) -> Any:
        entries = [
            Entry(each.entry_id, each.event, each.content_type, dict(each.metadata) or None) for each in request.entries
        ]
        failed = await self._api.publish_bulk(
            request.pubsub_name, request.topic, entries, dict(request.metadata), _grpc_trace(context)
        )
        if failed:  # Dapr tells not which
            raise self._api.failed_bulk(request.pubsub_name, request.topic, failed)
        return messages().BulkPublishResponse()


def _chosen(
    declared: list[tuple[Subscription, Routes]], programmatic: list[tuple[Subscription, Routes]]
) -> list[tuple[Subscription, Routes]]:
    """Return one subscription for each topic, as daprd has them (dapr/dapr ``pkg/runtime/compstore``).

    The first that is declared counts. One that the application tells takes its place, of several the last.
    """
    subscriptions: dict[tuple[str, str], tuple[Subscription, Routes]] = {}
    for each in declared:
        subscriptions.setdefault((each[0].pubsub_name, each[0].topic), each)
    for each in programmatic:
        subscriptions[each[0].pubsub_name, each[0].topic] = each
    return list(subscriptions.values())


def _http_trace(request: Request) -> Trace:
    return Trace(request.header("traceparent") or "", request.header("tracestate") or "")


def _grpc_trace(context: Any) -> Trace:
    headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    return Trace(headers.get("traceparent", ""), headers.get("tracestate", ""))
