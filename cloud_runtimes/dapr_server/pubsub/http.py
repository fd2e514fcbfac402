"""Publishing over HTTP."""

from __future__ import annotations

import binascii
from typing import Any

from ...codec import json
from ...errors import PayloadError
from ..http.app import HttpApi
from ..http.request import Reply, Request, empty, json_reply, members
from ..http.router import Route
from .api import Entry, PubSubApi, bytes_of
from .outgoing import Trace

__all__ = ["PubSubRoutes"]


class PubSubRoutes:
    """The routes of publishing."""

    def __init__(self, api: PubSubApi) -> None:
        self._api = api

    def add_to(self, http: HttpApi) -> None:
        """Add them."""
        verbs = "POST PUT"
        http.add(
            Route(verbs, "/v1.0/publish/bulk/{pubsub}/{topic*}", self._publish_bulk),
            Route(verbs, "/v1.0-alpha1/publish/bulk/{pubsub}/{topic*}", self._publish_bulk),
            Route(verbs, "/v1.0/publish/{pubsub}/{topic*}", self._publish),
            # without a topic it is refused in words of its own
            Route(verbs, "/v1.0/publish/{pubsub}", self._publish),
        )

    async def _publish(self, request: Request) -> Reply:
        await self._api.publish(
            request.params["pubsub"],
            request.params.get("topic", ""),
            request.body,
            request.header("content-type") or "",
            request.metadata(),
            _trace(request),
        )
        return empty

    async def _publish_bulk(self, request: Request) -> Reply:
        pubsub_name, topic = request.params["pubsub"], request.params["topic"]
        entries = [self._entry(pubsub_name, topic, each) for each in self._array(request, pubsub_name, topic)]
        failed = await self._api.publish_bulk(pubsub_name, topic, entries, request.metadata(), _trace(request))
        if not failed:
            return empty
        told = [{"entryId": entry_id, "error": why} for entry_id, why in failed.items()]
        return json_reply({"failedEntries": told, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE"}, 500)

    def _array(self, request: Request, pubsub_name: str, topic: str) -> list[dict[str, Any]]:
        self._api.check(pubsub_name, topic, request.metadata())
        try:
            found = json.decode(request.body)
        except PayloadError as error:
            raise self._api.unreadable(pubsub_name, topic, error.message) from error
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self._api.unreadable(pubsub_name, topic, "give an array of objects")
        return found

    def _entry(self, pubsub_name: str, topic: str, given: dict[str, Any]) -> Entry:
        found = members(given)
        content_type, metadata = found.get("contenttype") or "", found.get("metadata")
        entry_id = found.get("entryid") or ""
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
            data = bytes_of(found.get("event"), content_type)
        except (ValueError, binascii.Error) as error:
            raise self._api.mismatched(pubsub_name, topic, str(error)) from error
        return Entry(entry_id, data, content_type, metadata)


def _trace(request: Request) -> Trace:
    return Trace(request.header("traceparent") or "", request.header("tracestate") or "")
