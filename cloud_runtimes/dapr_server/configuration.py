"""Configuration: ``/v1.0/configuration``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .._core.logs import logger
from ..codec import json
from ..codec.payload import JSON
from ..configuration.subscription import ConfigurationSubscription
from ..errors import CloudRuntimesError
from ..protocols.dapr.failures import DaprError
from ..protocols.dapr.messages import messages
from ..spi.configuration import ConfigurationItem
from .app.channel import NotReached
from .context import Block, Context, Lack
from .http.app import HttpApi, Route
from .http.request import Reply, Request, empty, json_reply
from .limits import MAX_OPEN, Budget, no_more


class Changes:
    """Subscription to changes after its start. A key's last value always arrives; earlier ones may be skipped.

    Attributes:
        id: identifies the subscription when it is ended.
        store: of the configuration.
    """

    def __init__(self, store: str, subscription: ConfigurationSubscription) -> None:
        self.id = str(uuid.uuid4())
        self.store = store
        self._subscription = subscription
        self._task: asyncio.Task[None] | None = None

    async def __aiter__(self) -> AsyncIterator[dict[str, ConfigurationItem]]:
        try:
            async for items in self._subscription:
                yield items
        except CloudRuntimesError as error:
            raise _subscribing_failed((), self.store, error) from error

    def forward(self, context: Context) -> None:
        """Have the application told, until it is closed."""
        self._task = asyncio.get_running_loop().create_task(self._forward(context))

    async def close(self) -> None:
        """End it."""
        await self._subscription.close_async()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _forward(self, context: Context) -> None:
        try:
            async for items in self:
                for key, item in items.items():
                    await self._tell(context, key, item)
        except DaprError as error:
            logger().error("configuration store %r is not followed any more: %s", self.store, error.message)

    async def _tell(self, context: Context, key: str, item: ConfigurationItem) -> None:
        """Send one change; what the application does not take is logged, as Dapr does."""
        assert context.app is not None
        path = f"/configuration/{quote(self.store)}/{quote(key)}"
        body = json.encode({"id": self.id, "items": {key: item_document(item)}})
        try:
            answer = await context.app.post(path, body, JSON)
        except (NotReached, DaprError, OSError) as error:
            logger().error("a configuration item was not told to the application: POST %s: %s", path, error)
            return
        if answer.status != 200:
            logger().error("a configuration item was not taken: POST %s: status %d, wanted is 200", path, answer.status)


class ConfigurationApi:
    """The configuration stores of a client."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._configuration = context.client.configuration
        self._open: dict[str, Changes] = {}
        self._opening = 0

    async def get(
        self, store: str, keys: Sequence[str], metadata: Mapping[str, str]
    ) -> Mapping[str, ConfigurationItem]:
        """Return the items of some keys, without any: all."""
        self.need_store(store)
        try:
            return await self._configuration.get_configuration_items_async(store, keys, metadata=metadata or None)
        except CloudRuntimesError as error:
            text = f"failed to get {_listed(keys)} from Configuration store {store}: {error.message}"
            raise DaprError.basic(500, "INTERNAL", "ERR_CONFIGURATION_GET", text) from error

    def budget(self, store: str) -> Budget:
        """Return the budget for the answer of `get`."""
        return self._context.budget(f"the items of configuration store {store}", "ask for some keys only")

    async def subscribe(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> Changes:
        """Begin to follow some keys, without any: all. Whatever changes after the return will come."""
        self.need_store(store)
        if len(self._open) + self._opening >= MAX_OPEN:
            raise no_more("subscriptions to configuration", "unsubscribe those that are not needed any more")
        self._opening += 1
        try:
            subscription = await self._configuration.subscribe_configuration_async(
                store, keys, metadata=metadata or None
            )
            try:
                await subscription.receive_async()  # what there is; Dapr tells changes alone
            except BaseException:
                await subscription.close_async()
                raise
        except CloudRuntimesError as error:
            raise _subscribing_failed(keys, store, error) from error
        finally:
            self._opening -= 1
        changes = Changes(store, subscription)
        self._open[changes.id] = changes
        return changes

    async def subscribe_application(self, store: str, keys: Sequence[str], metadata: Mapping[str, str]) -> str:
        """Begin to tell the application; return the id."""
        self.need_store(store)
        if self._context.app is None:
            raise DaprError(
                500,
                "INTERNAL",
                "ERR_APP_CHANNEL_NIL",
                "app channel is not initialized. cannot subscribe to configuration updates",
            )
        changes = await self.subscribe(store, keys, metadata)
        changes.forward(self._context)
        return changes.id

    async def unsubscribe(self, id: str) -> str:
        """End a subscription; return why it cannot be, ``""``: it has ended."""
        changes = self._open.pop(id, None)
        if changes is None:
            return f"failed to unsubscribe to configuration request {id}: subscription does not exist"
        await changes.close()
        return ""

    async def close(self) -> None:
        """End all."""
        while self._open:
            await self._open.popitem()[1].close()

    def need_store(self, store: str) -> None:
        """Refuse a store that is not there."""
        lack = self._context.lack("configuration", store)
        if lack is Lack.NOT_CONFIGURED:
            raise DaprError.basic(
                500,
                "FAILED_PRECONDITION",
                "ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
                "configuration stores not configured",
            )
        if lack is Lack.NOT_FOUND:
            raise DaprError.basic(
                400,
                "INVALID_ARGUMENT",
                "ERR_CONFIGURATION_STORE_NOT_FOUND",
                f"configuration store {store} not found",
            )


def item_document(item: ConfigurationItem) -> dict[str, Any]:
    """Return an item as JSON has it; what is empty is left out, so nothing is left of a deleted one."""
    document = {"value": item.value, "version": item.version, "metadata": dict(item.metadata)}
    return {} if item.deleted else {name: value for name, value in document.items() if value}


def _listed(keys: Sequence[str]) -> str:
    return f"[{' '.join(keys)}]"


def _subscribing_failed(keys: Sequence[str], store: str, error: CloudRuntimesError) -> DaprError:
    text = f"failed to subscribe {_listed(keys)} from Configuration store {store}: {error.message}"
    return DaprError.basic(500, "INVALID_ARGUMENT", "ERR_CONFIGURATION_SUBSCRIBE", text)


class ConfigurationBlock(Block):
    """Configuration: ``/v1.0/configuration``, of which Dapr has each route and method twice."""

    def __init__(self, context: Context) -> None:
        self._api = ConfigurationApi(context)

    def routes(self, http: HttpApi) -> None:
        for version in ("v1.0", "v1.0-alpha1"):
            store = f"/{version}/configuration/{{store}}"
            http.add(
                Route("GET", store, self._http_get),
                Route("GET", f"{store}/subscribe", self._http_subscribe),
                Route("GET", f"{store}/{{id}}/unsubscribe", self._http_unsubscribe),
            )

    def methods(self, grpc: Any) -> None:
        for version in ("", "Alpha1"):
            grpc.unary(f"GetConfiguration{version}", "GetConfigurationRequest", self._grpc_get)
            grpc.server_stream(
                f"SubscribeConfiguration{version}", "SubscribeConfigurationRequest", self._grpc_subscribe
            )
            grpc.unary(f"UnsubscribeConfiguration{version}", "UnsubscribeConfigurationRequest", self._grpc_unsubscribe)

    async def stop(self) -> None:
        """End all subscriptions."""
        await self._api.close()

    # -- over HTTP --------------------------------------------------------

    async def _http_get(self, request: Request) -> Reply:
        items = await self._api.get(request.params["store"], _keys(request), request.metadata())
        if not items:
            return empty
        budget = self._api.budget(request.params["store"])
        members: list[bytes] = []
        for key, item in items.items():
            members.append(json.encode(key) + b":" + json.encode(item_document(item)))
            budget.add(len(members[-1]) + 1)
        return Reply(200, b"{" + b",".join(members) + b"}", JSON)

    async def _http_subscribe(self, request: Request) -> Reply:
        store = request.params["store"]
        return json_reply({"id": await self._api.subscribe_application(store, _keys(request), request.metadata())})

    async def _http_unsubscribe(self, request: Request) -> Reply:
        self._api.need_store(request.params["store"])
        failure = await self._api.unsubscribe(request.params["id"])
        # a false `ok` is left out (dapr/dapr ``pkg/api/http``: omitempty)
        return json_reply({"message": failure}, 500) if failure else json_reply({"ok": True})

    # -- over gRPC --------------------------------------------------------

    async def _grpc_get(self, request: Any, context: Any) -> Any:
        items = await self._api.get(request.store_name, list(request.keys), dict(request.metadata))
        reply = messages().GetConfigurationResponse()
        budget = self._api.budget(request.store_name)
        for key, item in items.items():
            _add(reply, {key: item})
            budget.add(reply.items[key].ByteSize())
        return reply

    async def _grpc_subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        changes = await self._api.subscribe(request.store_name, list(request.keys), dict(request.metadata))
        try:
            yield messages().SubscribeConfigurationResponse(id=changes.id)
            async for items in changes:
                reply = messages().SubscribeConfigurationResponse(id=changes.id)
                _add(reply, items)
                yield reply
        finally:
            await self._api.unsubscribe(changes.id)

    async def _grpc_unsubscribe(self, request: Any, context: Any) -> Any:
        failure = await self._api.unsubscribe(request.id)
        return messages().UnsubscribeConfigurationResponse(ok=not failure, message=failure)


def _keys(request: Request) -> list[str]:
    return [value for name, value in request.query if name == "key"]


def _add(reply: Any, items: Mapping[str, ConfigurationItem]) -> None:
    for key, item in items.items():
        entry = reply.items[key]
        if not item.deleted:
            entry.value, entry.version = item.value, item.version or ""
            entry.metadata.update(item.metadata)
