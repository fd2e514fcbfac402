"""A subscription whose events the sidecar posts to this application's server (Dapr, "Pub/sub API reference", "Provide routes for Dapr to deliver topic events"): the way where there is only HTTP.

The sidecar asks once which there are, so they are made before the application serves. An event's answer is that of its request.
"""

from __future__ import annotations

from asyncio import gather, wrap_future
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from ..._core.logs import repeated
from ...codec import json
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, PayloadError
from ...spi.pubsub import Delivery, Settled, Settlement, SubscribeRequest
from ...spi.push import PushSource
from ...spi.rpc import RpcReply
from .._sidecar.transport import resolve
from .events import posted

if TYPE_CHECKING:
    from .callbacks import DaprCallbacks

__all__ = ["CallbackSubscription", "answer_events", "subscription_document"]

_STATUS: Final = {
    Settlement.ACK: "SUCCESS",
    Settlement.RETRY: "RETRY",
    Settlement.DROP: "DROP",
    Settlement.RELEASE: "RETRY",
}
_GATHERING: Final = 10
"""Milliseconds in which the sidecar may gather a batch; by default Dapr waits for a second, also where as many events as it takes at once are there."""
_BULK: Final = "com.dapr.event.sent.bulk"


def subscription_document(pubsub: str, route: str, request: SubscribeRequest) -> dict[str, Any]:
    """Return a subscription as ``/dapr/subscribe`` tells it; with a batch Dapr may send several events at once, which are answered together."""
    document: dict[str, Any] = {"pubsubname": pubsub, "topic": request.topic, "route": f"/{route}"}
    metadata = dict(request.metadata or {})
    if request.raw:
        metadata["rawPayload"] = "true"
    if metadata:
        document["metadata"] = metadata
    if request.dead_letter_topic is not None:
        document["deadLetterTopic"] = request.dead_letter_topic
    if request.batch is not None and request.batch > 1:
        document["bulkSubscribe"] = {
            "enabled": True,
            "maxMessagesCount": request.batch,
            "maxAwaitDurationMs": _GATHERING,
        }
    return document


class CallbackSubscription(PushSource):
    """See the module."""

    def __init__(self, callbacks: DaprCallbacks, pubsub: str, request: SubscribeRequest) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._name = f"the subscription to {request.topic!r} of {pubsub!r}"
        self._raw = request.raw
        self._closed = False
        self._key = callbacks.subscribed(self, pubsub, request)

    async def deliver(self, document: Any) -> Settlement:
        """Hand out an event, and return what is said of it."""
        try:
            record = posted(document, raw=self._raw)
        except CloudRuntimesError as error:
            repeated(f"poison {self._name}", "%s: an event is dropped: %s", self._name, error)
            return Settlement.DROP
        if self._closed:
            return Settlement.RELEASE
        settlement: Future[Settlement] = Future()
        self.push(Delivery(record, settlement, None))
        if self._closed:
            self._give_back()  # nobody else does any more
        return await wrap_future(settlement)

    # -- driven by the service ----------------------------------------------

    def _settle(self, token: Future[Settlement], settled: Settled) -> None:
        resolve(token, settled.settlement)

    def close(self, settled: Sequence[Settled], /) -> None:
        self._closed = True
        self._callbacks.unsubscribed(self._key, self)
        for each in settled:
            self._settle(each.token, each)
        self._retry(float("inf"))
        self._give_back()

    def _give_back(self) -> None:
        while self._events:
            try:
                delivery = self._events.popleft()
            except IndexError:
                return
            resolve(delivery.token, Settlement.RELEASE)


async def answer_events(source: CallbackSubscription | None, data: bytes) -> RpcReply:
    """Settled a request with one event or, in an envelope of Dapr's, several; ``None``: nobody takes them now, so they come again."""
    try:
        document: Any = json.decode(data)
    except PayloadError:
        document = None
    if not isinstance(document, dict):
        return RpcReply(400, {}, None, b"")  # none of Dapr's: it comes again, or goes to the dead letters
    if document.get("type") != _BULK or not isinstance(document.get("entries"), list):
        settlement = Settlement.RELEASE if source is None else await source.deliver(document)
        return RpcReply(200, {}, JSON, json.encode({"status": _STATUS[settlement]}))

    async def one(entry: Any) -> dict[str, str]:
        known = isinstance(entry, dict)
        settlement = Settlement.RELEASE if source is None or not known else await source.deliver(_event_of(entry))
        return {"entryId": str(entry.get("entryId") or "") if known else "", "status": _STATUS[settlement]}

    statuses = await gather(*map(one, document["entries"]))
    return RpcReply(200, {}, JSON, json.encode({"statuses": statuses}))


def _event_of(entry: dict[str, Any]) -> Any:
    """Return the event of an entry of a bulk; without an envelope its data is all there is."""
    event = entry.get("event")
    if isinstance(event, dict) and "specversion" in event:
        return event
    kind = entry.get("contentType") or "application/octet-stream"
    name = "data_base64" if kind == "application/octet-stream" and isinstance(event, str) else "data"
    return {"id": entry.get("entryId"), "datacontenttype": kind, name: event}
