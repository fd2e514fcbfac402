"""A subscription whose events the sidecar posts to this application's server (Dapr, "Pub/sub API reference", "Provide routes for Dapr to deliver topic events"): the way where there is only HTTP.

The sidecar asks once which there are, so they are made before the application serves. An event's answer is that of its request.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..._core.logs import repeated
from ..._core.threads import Changes
from ...codec import json
from ...codec.payload import JSON
from ...errors import CloudRuntimesError, PayloadError
from ...spi.pubsub import Answer, Delivery, EventSource, SubscribeRequest, Verdict
from ...spi.rpc import RpcReply
from .events import posted
from .waiting import Waiting

if TYPE_CHECKING:
    from .callbacks import DaprCallbacks

__all__ = ["PostedSubscription", "answer_events", "told"]

_FIRST_DELAY: Final = 1.0
"""Seconds after which an answer asks for another try, where nobody says when."""
_STATUS: Final = {
    Verdict.ACK: "SUCCESS",
    Verdict.RETRY: "RETRY",
    Verdict.DROP: "DROP",
    Verdict.RETURN: "RETRY",
}
_GATHERING: Final = 10
"""Milliseconds in which the sidecar may gather a batch; by default Dapr waits for a second, also where as many events as it takes at once are there."""
_BULK: Final = "com.dapr.event.sent.bulk"


def told(pubsub: str, route: str, request: SubscribeRequest) -> dict[str, Any]:
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


class PostedSubscription(EventSource):
    """See the module."""

    def __init__(self, callbacks: DaprCallbacks, pubsub: str, request: SubscribeRequest) -> None:
        self._callbacks = callbacks
        self._name = f"the subscription to {request.topic!r} of {pubsub!r}"
        self._raw = request.raw
        self._changes = Changes()
        self._woken = self._closed = False
        self._room = True
        self._events: deque[Delivery] = deque()
        # answers that are held back: (when, number, token)
        self._later: list[tuple[float, int, Waiting[Verdict]]] = []
        self._numbers = count()
        self._key = callbacks.subscribed(self, pubsub, request)

    @property
    def load(self) -> int:
        """How many events wait here."""
        return len(self._events)

    async def deliver(self, document: Any) -> Verdict:
        """Hand out an event, and return what is said of it."""
        try:
            record = posted(document, raw=self._raw)
        except CloudRuntimesError as error:
            repeated(f"poison {self._name}", "%s: an event is dropped: %s", self._name, error)
            return Verdict.DROP
        if self._closed:
            return Verdict.RETURN
        waiting = Waiting[Verdict]()
        self._events.append(Delivery(record, waiting, None))
        if self._room:
            self._changes.announce()
        if self._closed:
            self._give_back()  # nobody else does any more
        return await waiting.future

    # -- driven by the service ----------------------------------------------

    def exchange(self, answers: Sequence[Answer], want: int, /) -> list[Delivery]:
        for answer in answers:
            self._settle(answer)
        self._land(monotonic())
        events: list[Delivery] = []
        while len(events) < want and self._events:
            events.append(self._events.popleft())
        self._room = len(events) < want
        return events

    def _settle(self, answer: Answer) -> None:
        waiting: Waiting[Verdict] = answer.token
        if answer.verdict is Verdict.RETRY and answer.delay != 0 and not self._closed:
            delay = _FIRST_DELAY if answer.delay is None else answer.delay
            heapq.heappush(self._later, (monotonic() + delay, next(self._numbers), waiting))
        else:
            waiting.answer(answer.verdict)

    def _land(self, now: float) -> None:
        """Give the answers that were held back until now."""
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2].answer(Verdict.RETRY)

    def wait(self, timeout: float, /) -> None:
        ticket = self._changes.ticket()
        if self._later:
            timeout = min(timeout, max(0.0, self._later[0][0] - monotonic()))
        if self._woken or (self._room and self._events):
            timeout = 0.0
        self._changes.wait(ticket, timeout)
        self._woken = False
        self._land(monotonic())

    def wake(self) -> None:
        self._woken = True
        self._changes.announce()

    def close(self, answers: Sequence[Answer], /) -> None:
        self._closed = True
        self._callbacks.unsubscribed(self._key, self)
        for answer in answers:
            self._settle(answer)
        self._land(float("inf"))
        self._give_back()

    def _give_back(self) -> None:
        while self._events:
            try:
                delivery = self._events.popleft()
            except IndexError:
                return
            delivery.token.answer(Verdict.RETURN)


async def answer_events(source: PostedSubscription | None, data: bytes) -> RpcReply:
    """Answer a request with one event or, in an envelope of Dapr's, several; ``None``: nobody takes them now, so they come again."""
    try:
        document: Any = json.decode(data)
    except PayloadError:
        document = None
    if not isinstance(document, dict):
        return RpcReply(400, {}, None, b"")  # none of Dapr's: it comes again, or goes to the dead letters
    if document.get("type") != _BULK or not isinstance(document.get("entries"), list):
        verdict = Verdict.RETURN if source is None else await source.deliver(document)
        return RpcReply(200, {}, JSON, json.encode({"status": _STATUS[verdict]}))
    import asyncio

    async def one(entry: Any) -> dict[str, str]:
        known = isinstance(entry, dict)
        verdict = Verdict.RETURN if source is None or not known else await source.deliver(_event_of(entry))
        return {"entryId": str(entry.get("entryId") or "") if known else "", "status": _STATUS[verdict]}

    statuses = await asyncio.gather(*map(one, document["entries"]))
    return RpcReply(200, {}, JSON, json.encode({"statuses": statuses}))


def _event_of(entry: dict[str, Any]) -> Any:
    """Return the event of an entry of a bulk; without an envelope its data is all there is."""
    event = entry.get("event")
    if isinstance(event, dict) and "specversion" in event:
        return event
    kind = entry.get("contentType") or "application/octet-stream"
    name = "data_base64" if kind == "application/octet-stream" and isinstance(event, str) else "data"
    return {"id": entry.get("entryId"), "datacontenttype": kind, name: event}
