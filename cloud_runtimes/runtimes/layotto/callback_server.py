"""Events by callbacks: the gRPC server of an application that a sidecar calls (``AppCallback``).

A sidecar asks for the topics once, when it starts, without waiting or a second try. So an application subscribes first and the sidecar starts then; what is subscribed to later than asked never gets an event, and is refused. One server for a port in a process, with all its topics.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ..._core.threads import Mutex
from ...errors import AlreadyExistsError, UnavailableError
from ...protocols.layotto.messages import APP, messages
from .._sidecar.grpc_stream import active
from .._sidecar.transport import Ended, Receive, Stream, resolve

if TYPE_CHECKING:
    import grpc

__all__ = ["listen"]

_WORKERS: Final = 64
"""Events that are under way at once."""
_RETRY: Final = 1
_GRACE: Final = 1.0


_lock: Final = Mutex()
_servers: dict[tuple[str, int], _Server] = {}


class _Server:
    """A server and what it serves."""

    def __init__(self, host: str, port: int) -> None:
        import grpc

        self.topics: dict[tuple[str, str], _Topic] = {}
        self.asked = False
        pb = messages()
        handlers = {
            "ListTopicSubscriptions": (self._list, pb.Empty, pb.ListTopicSubscriptionsResponse),
            "OnTopicEvent": (self._event, pb.TopicEventRequest, pb.TopicEventResponse),
        }
        made = {
            name: grpc.unary_unary_rpc_method_handler(
                call, request_deserializer=asked.FromString, response_serializer=told.SerializeToString
            )
            for name, (call, asked, told) in handlers.items()
        }
        self._grpc = grpc.server(
            ThreadPoolExecutor(_WORKERS, "cloud-runtimes-callback"),
            handlers=[grpc.method_handlers_generic_handler(APP.strip("/"), made)],
            options=[("grpc.so_reuseport", 0)],
        )
        try:
            self._grpc.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise UnavailableError(
                f"{host}:{port} is taken, where this application is to be called back: end what listens there, "
                "or give another callback_port in [layotto] and grpc_callback_port in the sidecar's configuration",
                retryable=False,
            ) from error
        active.begin(stream=True)
        self._grpc.start()

    def stop(self) -> threading.Event:
        """End it; the event is set once its port is free."""
        active.end(stream=True)
        return self._grpc.stop(_GRACE)

    def _list(self, request: Any, context: grpc.ServicerContext) -> Any:
        pb = messages()
        with _lock:
            self.asked = True
            found = [
                pb.TopicSubscription(pubsub_name=pubsub, topic=name, metadata=topic.metadata)
                for (pubsub, name), topic in self.topics.items()
            ]
        return pb.ListTopicSubscriptionsResponse(subscriptions=found)

    def _event(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _lock:
            topic = self.topics.get((request.pubsub_name, request.topic))
        status = _RETRY if topic is None else topic.handle(request, context)
        return messages().TopicEventResponse(status=status)


class _Topic:
    """A topic that somebody is subscribed to; a `Stream` whose answers end the sidecar's calls."""

    def __init__(
        self, place: tuple[str, int], key: tuple[str, str], metadata: dict[str, str], receive: Receive, ended: Ended
    ) -> None:
        self.metadata = metadata
        self._place = place
        self._key = key
        self._receive = receive
        self._ended = ended
        # answers that calls wait for, by the event's id: the same event may be called back several times
        self._waiting: dict[str, list[Future[int]]] = {}
        self._closed = False
        self._stopped: threading.Event | None = None

    def handle(self, event: Any, context: grpc.ServicerContext) -> int:
        """Hand an event on and wait for its answer, until the sidecar gives up."""
        answer: Future[int] = Future()
        if not context.add_callback(lambda: resolve(answer, _RETRY)):
            return _RETRY
        with _lock:
            if self._closed:
                return _RETRY
            self._waiting.setdefault(event.id, []).append(answer)
        self._receive(messages().SubscribeTopicEventsResponse(event_message=event))
        return answer.result()

    def send(self, message: Any) -> None:
        done = message.event_processed
        with _lock:
            answers = self._waiting.pop(done.id, [])
        for answer in answers:
            resolve(answer, done.status.status)

    def cancel(self) -> None:
        with _lock:
            if self._closed:
                return
            self._closed = True
            answers = [each for waiting in self._waiting.values() for each in waiting]
            self._waiting.clear()
            server = _servers[self._place]
            del server.topics[self._key]
            if not server.topics:
                del _servers[self._place]
                self._stopped = server.stop()
        for answer in answers:
            resolve(answer, _RETRY)
        self._ended(None)

    finish = cancel

    def join(self, timeout: float | None) -> bool:
        return self._stopped is None or self._stopped.wait(timeout)


def listen(host: str, port: int, first: Any, receive: Receive, ended: Ended) -> Stream:
    """Take the events of a topic by callbacks, as `Channel.open` by a stream."""
    asked = first.initial_request
    key = asked.pubsub_name, asked.topic
    place = host, port
    with _lock:
        server = _servers.get(place)
        if server is None:
            server = _servers[place] = _Server(host, port)
        elif server.asked:
            raise AlreadyExistsError(
                f"the sidecar has asked {host}:{port} for its topics before there was {asked.topic!r}, and asks but "
                "once: subscribe before it starts, or start it again"
            )
        topic = server.topics[key] = _Topic(place, key, dict(asked.metadata), receive, ended)
    receive(messages().SubscribeTopicEventsResponse(initial_response={}))
    return topic
