"""How events come to the application, and what its answers mean (Dapr, "Publish and subscribe": expected HTTP response; dapr/dapr ``pkg/runtime/subscription/postman``)."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from ..._core.logs import repeated
from ...codec import json
from ...codec.payload import JSON
from ...errors import InvalidArgumentError, PayloadError
from ...protocols.dapr.events import BULK_TYPE, CLOUD_EVENT
from ..app.channel import AppAnswer, AppCall, AppChannel
from ..settings import Subscription
from .cel import Expression
from .envelope import Envelope

__all__ = ["BULK_TYPE", "Delivery", "HttpDelivery", "Item", "Route", "Routes", "Said"]


class Said(Enum):
    """Answer of the application about an event."""

    SUCCESS = "SUCCESS"
    RETRY = "RETRY"
    DROP = "DROP"


class Item(NamedTuple):
    """Event of a bulk delivery."""

    entry_id: str
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Route:
    """Where events come from, and to which path they go."""

    subscription: Subscription
    path: str
    raw: bool


class Routes:
    """The rules of a subscription, read: which path of the application takes an event.

    Raises:
        InvalidArgumentError: a rule cannot be used; names the subscription.
    """

    def __init__(self, subscription: Subscription, *, grpc: bool) -> None:
        self._rules: list[tuple[Expression | None, str]] = []
        where = f"the subscription to {subscription.topic!r} of {subscription.pubsub_name!r}"
        for match, path in subscription.rules:
            if not path and not grpc:
                raise InvalidArgumentError(f"{where}: a rule needs a path")
            try:
                self._rules.append((Expression(match) if match.strip() else None, path))
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{where}: {error.message}") from None
        if subscription.default_route:
            self._rules.append((None, subscription.default_route))
        elif not self._rules and grpc:  # one method takes them all
            self._rules.append((None, ""))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._rules)

    def path(self, envelope: Envelope) -> str | None:
        """Return the path of an event, ``None``: no rule takes it.

        Raises:
            ExpressionError: a rule has no answer for it.
        """
        if self._rules[0][0] is None:
            return self._rules[0][1]
        members = envelope.members()
        for expression, path in self._rules:
            if expression is None or expression.matches(members):
                return path
        return None


class Delivery(ABC):
    """Sends events to the application.

    Its methods raise `NotReached` where there was no answer, `one` also `PayloadError` for an event that the protocol cannot hold.
    """

    @abstractmethod
    async def one(self, route: Route, envelope: Envelope) -> Said:
        """Deliver one event."""

    @abstractmethod
    async def several(self, route: Route, items: Sequence[Item]) -> Mapping[str, Said]:
        """Deliver several at once; returns what is said of each, those left out are to be tried again."""


class HttpDelivery(Delivery):
    """``POST <path>``."""

    def __init__(self, app: AppChannel) -> None:
        self._app = app

    async def one(self, route: Route, envelope: Envelope) -> Said:
        headers = [*envelope.metadata.items(), *envelope.trace_headers]
        answer = await self._post(route, envelope.to_json(), CLOUD_EVENT, headers)
        if not 200 <= answer.status < 300:
            return _refused(route, answer)
        reply = _decoded(answer)
        status = reply.get("status", "") if isinstance(reply, dict) else ""
        return _said(status, Said.SUCCESS)

    async def several(self, route: Route, items: Sequence[Item]) -> Mapping[str, Said]:
        subscription = route.subscription
        entries = [
            b'{"entryId":%b,"event":%b,"metadata":%b,"contentType":%b}'
            % (
                json.encode(item.entry_id),
                _entry(item, route.raw),
                json.encode(dict(item.envelope.metadata)),
                json.encode(_entry_type(route.raw)),
            )
            for item in items
        ]
        head = {
            "id": str(uuid.uuid4()),
            "type": BULK_TYPE,
            "topic": subscription.topic,
            "pubsubname": subscription.pubsub_name,
            "metadata": {"pubsubName": subscription.pubsub_name},
        }
        body = b'%b,"entries":[%b]}' % (json.encode(head)[:-1], b",".join(entries))
        answer = await self._post(route, body, JSON, [])
        if not 200 <= answer.status < 300:
            said = _refused(route, answer)
            return {item.entry_id: said for item in items}
        reply = _decoded(answer)
        statuses = reply.get("statuses") if isinstance(reply, dict) else None
        if not isinstance(statuses, list):
            repeated(f"bulk {route.path}", "%s answered a bulk without statuses: it is sent again", route.path)
            return {}
        return {
            each["entryId"]: _said(each.get("status", ""), Said.RETRY)
            for each in statuses
            if isinstance(each, dict) and isinstance(each.get("entryId"), str)
        }

    async def _post(self, route: Route, body: bytes, content_type: str, headers: list[tuple[str, str]]) -> AppAnswer:
        headers = [("pubsubname", route.subscription.pubsub_name), *headers]
        return await self._app.invoke(AppCall("POST", route.path.removeprefix("/"), "", headers, content_type, body))


def _entry(item: Item, raw: bool) -> bytes:
    """Return an event of a bulk: without an envelope it is base64."""
    return json.encode(item.envelope.members()["data_base64"]) if raw else item.envelope.to_json()


def _entry_type(raw: bool) -> str:
    return "application/octet-stream" if raw else CLOUD_EVENT


def _decoded(answer: AppAnswer) -> Any:
    try:
        return json.decode(answer.body)
    except PayloadError:  # nothing that can be read is nothing against it
        return None


def _said(status: Any, empty: Said) -> Said:
    """Return what a status means; one that is not known asks for another try."""
    if status in ("", None):
        return empty
    try:
        return Said(status)
    except ValueError:
        return Said.RETRY


def _refused(route: Route, answer: AppAnswer) -> Said:
    repeated(
        f"refused {route.path}",
        "%s answered an event of %s with status %d",
        route.path,
        route.subscription.topic,
        answer.status,
    )
    return Said.DROP if answer.status == 404 else Said.RETRY
