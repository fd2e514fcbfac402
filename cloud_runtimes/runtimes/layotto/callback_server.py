"""Events by callbacks: the gRPC server of an application that a sidecar calls (``AppCallback``).

A sidecar asks for the topics once, when it starts, without waiting or a second try. So an application subscribes first and the sidecar starts then; what is subscribed to later than asked never gets an event, and is refused. One server for a port in a process, with all its topics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ..._core import fork
from ..._core.threads import Mutex
from ...errors import AlreadyExistsError, UnavailableError
from ...protocols.layotto.messages import APP, messages
from .._sidecar.transport import Stream

if TYPE_CHECKING:
    import grpc

__all__ = ["listen"]

_WORKERS: Final = 64
"""Events that are under way at once."""
_RETRY: Final = 1
_GRACE: Final = 1.0


class _Registry:
    """The servers of this process, by host and port."""

    def __init__(self) -> None:
        self.lock = Mutex()
        self.servers: dict[tuple[str, int], _Server] = {}
        self.parents: list[Any] = []
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the servers are the parent's."""
        self.parents.append(self.servers)
        self.lock = Mutex()
        self.servers = {}


_registry: Final = _Registry()


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
        self._grpc.start()

    def stop(self) -> threading.Event:
        """End it; the event is set once its port is free."""
        return self._grpc.stop(_GRACE)

    def _list(self, request: Any, context: grpc.ServicerContext) -> Any:
        pb = messages()
        with _registry.lock:
            self.asked = True
            found = [
                pb.TopicSubscription(pubsub_name=pubsub, topic=name, metadata=topic.metadata)
                for (pubsub, name), topic in self.topics.items()
            ]
        return pb.ListTopicSubscriptionsResponse(subscriptions=found)

    def _event(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _registry.lock:
            topic = self.topics.get((request.pubsub_name, request.topic))
        status = _RETRY if topic is None else topic.handle(request, context)
        return messages().TopicEventResponse(status=status)


class _Topic:
    """A topic that somebody is subscribed to; a `Stream` whose answers end the sidecar's calls."""

    def __init__(
        self,
        place: tuple[str, int],
        key: tuple[str, str],
        metadata: dict[str, str],
        receive: Callable[[Any], None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self.metadata = metadata
        self._place = place
        self._key = key
        self._receive = receive
        self._ended = ended
        self._waiting: dict[str, list[_Answer]] = {}
        self._closed = False
        self._stopped: threading.Event | None = None

    def handle(self, event: Any, context: grpc.ServicerContext) -> int:
        """Hand an event on and wait for its answer; the sidecar's giving up ends the waiting."""
        answer = _Answer()
        if not context.add_callback(answer.give_up):
            return _RETRY
        with _registry.lock:
            if self._closed:
                return _RETRY
            self._waiting.setdefault(event.id, []).append(answer)
        self._receive(messages().SubscribeTopicEventsResponse(event_message=event))
        return answer.wait()

    def send(self, message: Any) -> None:
        done = message.event_processed
        with _registry.lock:
            waiting = self._waiting.pop(done.id, [])
        for answer in waiting:  # the same event, called back several times
            answer.give(done.status.status)

    def finish(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        with _registry.lock:
            if self._closed:
                return
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            server = _registry.servers.get(self._place)
            if server is not None and server.topics.get(self._key) is self:
                del server.topics[self._key]
                if not server.topics:
                    del _registry.servers[self._place]
                else:
                    server = None
        for answers in waiting.values():
            for answer in answers:
                answer.give(_RETRY)
        if server is not None:
            self._stopped = server.stop()
        self._ended(None)

    def join(self, timeout: float | None) -> bool:
        return self._stopped is None or self._stopped.wait(timeout)


class _Answer:
    """What is said of one call; ends by itself when the sidecar gives up."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._status = _RETRY

    def give(self, status: int) -> None:
        self._status = status
        self._event.set()

    def give_up(self) -> None:
        self._event.set()

    def wait(self) -> int:
        self._event.wait()
        return self._status


def listen(
    host: str, port: int, first: Any, receive: Callable[[Any], None], ended: Callable[[Exception | None], None]
) -> Stream:
    """Take the events of a topic by callbacks, as `Transport.open` with a stream.

    Raises:
        UnavailableError: the port is taken.
        AlreadyExistsError: the sidecar has asked for the topics before.
    """
    asked = first.initial_request
    key = asked.pubsub_name, asked.topic
    place = host, port
    with _registry.lock:
        server = _registry.servers.get(place)
        if server is None:
            server = _registry.servers[place] = _Server(host, port)
        elif server.asked:
            raise AlreadyExistsError(
                f"the sidecar has asked {host}:{port} for its topics before there was {asked.topic!r}, and asks but "
                "once: subscribe before it starts, or start it again"
            )
        topic = server.topics[key] = _Topic(place, key, dict(asked.metadata), receive, ended)
    receive(messages().SubscribeTopicEventsResponse(initial_response={}))
    return topic
