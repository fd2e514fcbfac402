"""``AppCallback.OnTopicEvent`` and ``OnBulkTopicEvent``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import json_format
from grpc import StatusCode, aio

from ..._core.logs import repeated
from ..._core.propagation import extract
from ...errors import PayloadError
from ...protocols.dapr.events import BULK_TYPE, CLOUD_EVENT
from ...protocols.dapr.messages import messages
from ..app.channel import NotReached
from ..app.grpc import ALPHA, CALLBACK, GrpcChannel, metadata_of
from .delivery import Delivery, Item, Route, Said
from .envelope import Envelope

_DEPTH: Final = 30
"""Of attributes: each level is three of a message, of which parsers take a hundred."""
_SAID: Final = {0: Said.SUCCESS, 1: Said.RETRY, 2: Said.DROP}


def said_of(status: int) -> Said:
    """Return what ``TopicEventResponse.status`` means; one that is not known asks for another try."""
    return _SAID.get(status, Said.RETRY)


def event_message(route: Route, envelope: Envelope) -> Any:
    """Return a ``TopicEventRequest``.

    Raises:
        PayloadError: its attributes are nested more deeply than a message can be.
    """
    return messages().TopicEventRequest(
        id=envelope.text("id"),
        source=envelope.text("source"),
        type=envelope.text("type"),
        spec_version=envelope.text("specversion"),
        data_content_type=envelope.text("datacontenttype"),
        data=envelope.data,
        topic=route.subscription.topic,
        pubsub_name=route.subscription.pubsub_name,
        path=route.path,
        extensions=_struct(envelope),
    )


def _struct(envelope: Envelope) -> Any:
    try:
        return json_format.ParseDict(envelope.extensions, messages().Struct(), max_recursion_depth=_DEPTH)
    except json_format.ParseError as error:
        raise PayloadError(f"its attributes cannot be told over gRPC: {error}") from error


class GrpcDelivery(Delivery):
    """See the module."""

    def __init__(self, app: GrpcChannel) -> None:
        self._app = app

    async def one(self, route: Route, envelope: Envelope) -> Said:
        headers = [*envelope.metadata.items(), *envelope.trace_headers]
        metadata = metadata_of([("pubsubname", route.subscription.pubsub_name), *headers])
        if (trace := _trace_bin(envelope.text("traceparent"))) is not None:
            metadata.append(("grpc-trace-bin", trace))
        try:
            reply, _ = await self._app.unary(
                f"{CALLBACK}OnTopicEvent", event_message(route, envelope), "TopicEventResponse", metadata
            )
        except aio.AioRpcError as error:
            return self._failed(route, error)
        return said_of(reply.status)

    async def several(self, route: Route, items: Sequence[Item]) -> Mapping[str, Said]:
        subscription = route.subscription
        said: dict[str, Said] = {}
        entries = []
        for item in items:
            try:
                entries.append(_entry(route, item))
            except PayloadError as error:
                repeated(f"poison {subscription.topic}", "an event of %s is dropped: %s", subscription.topic, error)
                said[item.entry_id] = Said.DROP
        if not entries:
            return said
        request = messages().TopicEventBulkRequest(
            id=str(uuid.uuid4()),
            entries=entries,
            metadata={"pubsubName": subscription.pubsub_name},
            topic=subscription.topic,
            pubsub_name=subscription.pubsub_name,
            type=BULK_TYPE,
            path=route.path,
        )
        metadata = metadata_of([("pubsubname", subscription.pubsub_name)])
        try:
            try:
                reply, _ = await self._app.unary(
                    f"{CALLBACK}OnBulkTopicEvent", request, "TopicEventBulkResponse", metadata
                )
            except aio.AioRpcError as error:
                if error.code() is not StatusCode.UNIMPLEMENTED:
                    raise
                reply, _ = await self._app.unary(
                    f"{ALPHA}OnBulkTopicEventAlpha1", request, "TopicEventBulkResponse", metadata
                )
        except aio.AioRpcError as error:
            failed = self._failed(route, error)
            return {item.entry_id: failed for item in items} | said
        return {each.entry_id: said_of(each.status) for each in reply.statuses} | said

    def _failed(self, route: Route, error: aio.AioRpcError) -> Said:
        if error.code() is StatusCode.UNAVAILABLE:
            raise NotReached(f"the application: {error.details()}", sent=True) from error
        topic = route.subscription.topic
        if error.code() is StatusCode.UNIMPLEMENTED:  # away, and not to the dead-letter topic: so Dapr does
            repeated(f"unimplemented {topic}", "the application does not take events: those of %s are dropped", topic)
            return Said.SUCCESS
        repeated(f"refused {topic}", "the application failed for an event of %s: %s", topic, error.details())
        return Said.RETRY


def _trace_bin(traceparent: str) -> bytes | None:
    """Return a ``traceparent`` as older clients of gRPC read it (OpenCensus, "BinaryEncoding"); ``None``: it is none.

    Version 0, then trace id, span id and flags, each behind its number.
    """
    if extract({"traceparent": traceparent}) is None:
        return None
    trace, span, flags = (bytes.fromhex(part) for part in traceparent.split("-")[1:4])
    return b"\0\0%b\1%b\2%b" % (trace, span, flags)


def _entry(route: Route, item: Item) -> Any:
    kinds = messages()
    envelope = item.envelope
    if route.raw:
        return kinds.TopicEventBulkRequestEntry(
            entry_id=item.entry_id,
            bytes=envelope.data,
            content_type="application/octet-stream",
            metadata=dict(envelope.metadata),
        )
    return kinds.TopicEventBulkRequestEntry(
        entry_id=item.entry_id,
        cloud_event=kinds.TopicEventCERequest(
            id=envelope.text("id"),
            source=envelope.text("source"),
            type=envelope.text("type"),
            spec_version=envelope.text("specversion"),
            data_content_type=envelope.text("datacontenttype"),
            data=envelope.data,
            extensions=_struct(envelope),
        ),
        content_type=CLOUD_EVENT,
        metadata=dict(envelope.metadata),
    )
