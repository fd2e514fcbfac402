"""What the sidecar asks the server of this application for: its subscriptions, events and due jobs (Dapr, "Pub/sub API reference", "Jobs API reference")."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ...codec import json
from ...codec.payload import JSON
from ...errors import InvalidArgumentError, UnsupportedError
from ...spi.rpc import Callback, Callbacks, RpcReply
from .http_callbacks import CallbackSubscription, answer_events, subscription_document

if TYPE_CHECKING:
    from ...spi.pubsub import SubscribeRequest
    from .runs import DaprRuns

__all__ = ["DaprCallbacks"]

_JOB: Final = "job/"
_EVENTS: Final = "cloud-runtimes/events/"
_BUSY: Final = RpcReply(503, {}, None, b"")
"""Nobody runs jobs here (now): the job's failure policy answers for that."""


class DaprCallbacks(Callbacks):
    """See the module; one for each client."""

    def __init__(self) -> None:
        self._runs: list[DaprRuns] = []
        # route → how it is told, and who takes its events
        self._told: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, list[CallbackSubscription]] = {}
        self._asked = False

    def subscriptions(self) -> RpcReply:
        self._asked = True
        return RpcReply(200, {}, JSON, json.encode(list(self._told.values())))

    def find(self, http_method: str, name: str) -> Callback | None:
        if http_method == "POST" and name.startswith(_JOB):
            return partial(self._run, name.removeprefix(_JOB))
        if http_method == "POST" and name.startswith(_EVENTS):
            return partial(self._deliver, name)
        return None

    # -- events -------------------------------------------------------------

    def subscribed(self, source: CallbackSubscription, pubsub: str, request: SubscribeRequest) -> str:
        """Have somebody take the events of a topic; returns its route, which depends on nothing else, since a sidecar outlives its application.

        Raises:
            UnsupportedError: the sidecar has asked already, and was not told of it.
            InvalidArgumentError: it is subscribed to with other options.
        """
        route = f"{_EVENTS}{pubsub}/{request.topic}"
        document = subscription_document(pubsub, quote(route), request)
        known = self._told.get(route)
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
        self._told[route] = document
        self._sources[route] = [*self._sources.get(route, ()), source]
        return route

    def unsubscribed(self, route: str, source: CallbackSubscription) -> None:
        """Have him take them no more. The sidecar goes on sending them; without anybody they come again."""
        self._sources[route] = [each for each in self._sources[route] if each is not source]
        if not self._asked and not self._sources[route]:
            self._told.pop(route, None)

    async def _deliver(self, route: str, content_type: str | None, data: bytes) -> RpcReply:
        sources = self._sources.get(route)
        return await answer_events(min(sources, key=lambda each: each.waiting) if sources else None, data)

    # -- jobs ---------------------------------------------------------------

    def lacks_runner(self, name: str) -> bool:
        return name.startswith(_JOB) and not self._runs

    def joined(self, runs: DaprRuns) -> None:
        """Have somebody run jobs."""
        self._runs = [*self._runs, runs]

    def left(self, runs: DaprRuns) -> None:
        """Have him run them no more."""
        self._runs = [each for each in self._runs if each is not runs]

    async def _run(self, job: str, content_type: str | None, data: bytes) -> RpcReply:
        for each in self._runs:
            if (reply := await each.run(job, data)) is not None:
                return reply
        return _BUSY
