"""Subscriptions as the application tells them: ``GET /dapr/subscribe`` and ``ListTopicSubscriptions``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from ..._core.logs import logger
from ...codec import json
from ...errors import PayloadError
from ..app.channel import AppCall, AppChannel, NotReached
from ..settings import BULK_MESSAGES, BULK_WAIT, BulkSubscribe, Subscription

_TRIES: Final = 4
_PAUSE: Final = 0.5


async def ask(app: AppChannel, app_id: str) -> list[Subscription]:
    """Ask the application, which is told its id, what it subscribes to.

    Raises:
        NotReached: it did not answer.
        PayloadError: what it answered is no list of subscriptions.
    """
    for remaining in range(_TRIES - 1, -1, -1):
        try:
            return await (_over_grpc(app) if app.protocol == "grpc" else _over_http(app, app_id))
        except NotReached:
            if not remaining:
                raise
            await asyncio.sleep(_PAUSE)
    raise AssertionError


async def _over_http(app: AppChannel, app_id: str) -> list[Subscription]:
    request_headers = [("dapr-app-id", app_id)]
    await app.invoke(
        AppCall("GET", "dapr/config", headers=request_headers)
    )  # nothing of it concerns what is served here
    answer = await app.invoke(AppCall("GET", "dapr/subscribe", headers=request_headers))
    if answer.status == 404:
        return []
    if answer.status != 200:
        logger().error(
            "the application answered /dapr/subscribe with status %d: it has no subscriptions", answer.status
        )
        return []
    items = json.decode(answer.body) if answer.body.strip() else []
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise PayloadError("/dapr/subscribe must answer with an array of objects")
    subscriptions = [_read(each) for each in items]
    for each in subscriptions:
        if not each.rules and not each.default_route:
            logger().warning("the subscription to %r has no route: it is left out", each.topic)
    return [each for each in subscriptions if each.rules or each.default_route]


def _read(given: Mapping[str, Any]) -> Subscription:
    routes = _object(given, "routes")
    rules = routes.get("rules") or []
    if not isinstance(rules, list) or not all(isinstance(each, dict) for each in rules):
        raise PayloadError("/dapr/subscribe: rules is an array of objects")
    bulk = _object(given, "bulkSubscribe")
    metadata = _object(given, "metadata")
    return Subscription(
        _text(given, "pubsubname"),
        _text(given, "topic"),
        _text(routes, "default") or _text(given, "route"),
        tuple((_text(each, "match"), _text(each, "path")) for each in rules),
        _text(given, "deadLetterTopic") or None,
        {name: _text(metadata, name) for name in metadata},
        _bulk(bulk.get("enabled"), bulk.get("maxMessagesCount"), bulk.get("maxAwaitDurationMs")),
        kind="PROGRAMMATIC",
    )


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, dict):
        raise PayloadError(f"/dapr/subscribe: {name} is an object")
    return value


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PayloadError(f"/dapr/subscribe: {name} is text")
    return value


def _bulk(enabled: Any, messages: Any, wait_ms: Any) -> BulkSubscribe | None:
    if not enabled:
        return None
    count = messages if isinstance(messages, int) and messages > 0 else BULK_MESSAGES
    wait = wait_ms / 1000 if isinstance(wait_ms, int) and wait_ms > 0 else BULK_WAIT
    return BulkSubscribe(min(count, 10_000), wait)


async def _over_grpc(app: Any) -> list[Subscription]:
    from grpc import StatusCode, aio

    from ...protocols.dapr.messages import messages
    from ..app.grpc import CALLBACK

    try:
        reply, _ = await app.unary(
            f"{CALLBACK}ListTopicSubscriptions", messages().Empty(), "ListTopicSubscriptionsResponse"
        )
    except aio.AioRpcError as error:
        if error.code() is StatusCode.UNIMPLEMENTED:
            return []
        raise NotReached(f"the application: {error.details()}", sent=True) from error
    return [
        Subscription(
            each.pubsub_name,
            each.topic,
            each.routes.default,
            tuple((rule.match, rule.path) for rule in each.routes.rules),
            each.dead_letter_topic or None,
            dict(each.metadata),
            _bulk(
                each.bulk_subscribe.enabled,
                each.bulk_subscribe.max_messages_count,
                each.bulk_subscribe.max_await_duration_ms,
            ),
            kind="PROGRAMMATIC",
        )
        for each in reply.subscriptions
    ]
