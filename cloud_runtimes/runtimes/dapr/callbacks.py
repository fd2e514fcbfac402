"""Callbacks from the sidecar to the server of this application: its subscriptions, events and due jobs.

See Dapr, "Pub/sub API reference" and "Jobs API reference". Events arrive this way where there is only HTTP. The
sidecar asks for the subscriptions once, so they are created before the application serves. The answer to an event is
the answer to its request.
"""

from __future__ import annotations

from asyncio import gather
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ...codec import json
from ...codec.payload import JSON, OCTETS
from ...errors import InvalidArgumentError, PayloadError, UnsupportedError
from ...protocols.dapr.events import BULK_TYPE
from ...spi.pubsub import Settlement, SubscribeRequest
from ...spi.rpc import Callback, Callbacks, RpcReply

if TYPE_CHECKING:
    from .pubsub import CallbackSubscription
    from .schedule import DaprRuns

_JOB: Final = "job/"
_EVENTS: Final = "cloud-runtimes/events/"
_BUSY: Final = RpcReply(503, {}, None, b"")
"""Nobody runs jobs here (now): the job's failure policy answers for that."""
_STATUS: Final = {
    Settlement.ACK: "SUCCESS",
    Settlement.RETRY: "RETRY",
    Settlement.DROP: "DROP",
    Settlement.RELEASE: "RETRY",
}
_GATHERING: Final = 10
"""Milliseconds in which the sidecar may gather a batch; by default Dapr waits for a second, also where as many events as it takes at once are there."""


class DaprCallbacks(Callbacks):
    """The callbacks of one client."""

    def __init__(self) -> None:
        self._runs: list[DaprRuns] = []
        # route → its subscription as the sidecar is told it, and who takes its events
        self._documents: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, list[CallbackSubscription]] = {}
        self._asked = False

    def subscriptions(self) -> RpcReply:
        self._asked = True
        return RpcReply(200, {}, JSON, json.encode(list(self._documents.values())))

    def find(self, http_method: str, name: str) -> Callback | None:
        if http_method == "POST" and name.startswith(_JOB):
            return partial(self._run, name.removeprefix(_JOB))
        if http_method == "POST" and name.startswith(_EVENTS):
            return partial(self._deliver, name)
        return None

    def subscribed(self, source: CallbackSubscription, pubsub: str, request: SubscribeRequest) -> str:
        """Have somebody take the events of a topic; returns its route, which depends on nothing else, since a sidecar outlives its application."""
        route = f"{_EVENTS}{pubsub}/{request.topic}"
        document = _subscription(pubsub, quote(route), request)
        known = self._documents.get(route)
        if known is None and self._asked:
            raise UnsupportedError(
                f"the sidecar has asked already what this application subscribes to: subscribe to {request.topic!r} before it serves, "
                "or give the sidecar's gRPC address, where subscriptions are streams "
                '(endpoint="grpc://localhost:50001", DAPR_GRPC_PORT, or grpc_endpoint in [dapr])'
            )
        if known not in (None, document):
            raise InvalidArgumentError(
                f"{request.topic!r} of {pubsub!r} is subscribed to with other options: over HTTP all its subscriptions of a client have the same"
            )
        self._documents[route] = document
        self._sources[route] = [*self._sources.get(route, ()), source]
        return route

    def unsubscribed(self, route: str, source: CallbackSubscription) -> None:
        """Have him take them no more. The sidecar goes on sending them; without anybody they come again."""
        self._sources[route] = [each for each in self._sources[route] if each is not source]
        if not self._asked and not self._sources[route]:
            self._documents.pop(route, None)

    async def _deliver(self, route: str, content_type: str | None, data: bytes) -> RpcReply:
        sources = self._sources.get(route)
        return await _answer_events(min(sources, key=lambda each: each.waiting) if sources else None, data)

    def lacks_runner(self, name: str) -> bool:
        return name.startswith(_JOB) and not self._runs

    def joined(self, runs: DaprRuns) -> None:
        self._runs = [*self._runs, runs]

    def remove(self, runs: DaprRuns) -> None:
        self._runs = [each for each in self._runs if each is not runs]

    async def _run(self, job: str, content_type: str | None, data: bytes) -> RpcReply:
        for each in self._runs:
            if (reply := await each.run(job, data)) is not None:
                return reply
        return _BUSY


def _subscription(pubsub: str, route: str, request: SubscribeRequest) -> dict[str, Any]:
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


async def _answer_events(source: CallbackSubscription | None, data: bytes) -> RpcReply:
    """Settle a request with one event or, in an envelope of Dapr's, several; ``None``: nobody takes them now, so they come again."""
    try:
        document: Any = json.decode(data)
    except PayloadError:
        document = None
    if not isinstance(document, dict):
        return RpcReply(400, {}, None, b"")  # none of Dapr's: it comes again, or goes to the dead letters
    if document.get("type") != BULK_TYPE or not isinstance(document.get("entries"), list):
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
    kind = entry.get("contentType") or OCTETS
    name = "data_base64" if kind == OCTETS and isinstance(event, str) else "data"
    return {"id": entry.get("entryId"), "datacontenttype": kind, name: event}
