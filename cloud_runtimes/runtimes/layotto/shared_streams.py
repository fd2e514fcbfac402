"""Streams that a sidecar of Layotto has but once, and its callbacks: all of this process that ask for the same share it.

A second stream for a topic is ended by the sidecar, and the end of a stream of configuration stops the others of its store. So there is one for each sidecar, pub/sub component and topic, or configuration store, on a channel of its own, open as long as it has members. An event goes to the member with the fewest unanswered ones; what a member leaves unanswered goes to another.

By callbacks a sidecar brings events to the gRPC server of the application (``AppCallback``). It asks for the topics once, when it starts, without waiting or a second try. So an application subscribes first and the sidecar starts then; what is subscribed to later than asked never gets an event, and is refused. There is one server for a port in a process, with all its topics.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..._core.threads import Mutex
from ...errors import AlreadyExistsError, UnavailableError
from ...protocols.layotto.messages import APP, messages
from .._sidecar.grpc_stream import active
from .._sidecar.transport import Ended, Receive, Stream, resolve

if TYPE_CHECKING:
    import grpc

    from .transport import LayottoTransport

_Key: TypeAlias = tuple[str, ...]
_LEAVING: Final = 2.0
"""Seconds that a sidecar has for ending a stream of configuration."""
_WORKERS: Final = 64
"""Events that are under way at once."""
_RETRY: Final = 1
_GRACE: Final = 1.0
_lock: Final = Mutex()
_streams: dict[_Key, _Shared] = {}
# of configuration, that are ended and whose sidecar may not have noticed
_ending: dict[_Key, Stream] = {}
_served: Final = Mutex()
_servers: dict[tuple[str, int], _Server] = {}


class _Member:
    """A part in a stream; a `Stream`."""

    def __init__(self, shared: _Shared, receive: Receive, ended: Ended) -> None:
        self.shared = shared
        self.receive = receive
        self.ended = ended
        # the events it has not answered for, by id
        self.held: dict[str, Any] = {}
        self._last: Stream | None = None

    def send(self, message: Any) -> None:
        self.shared.send(self, message)

    def finish(self) -> None:
        self._leave()
        if self._last is not None:
            self._last.finish()

    def cancel(self) -> None:
        self._leave()
        if self._last is not None:
            # of configuration only the sidecar's end after a last message says that the next stream is safe
            end = self._last.finish if self.shared.kind == "configuration" else self._last.cancel
            end()

    def _leave(self) -> None:
        self._last = self.shared.leave(self) or self._last

    def join(self, timeout: float | None) -> bool:
        if self._last is None or self._last.join(timeout):
            return True
        if self.shared.kind == "configuration":
            self._last.cancel()
        return False


class _Shared:
    """Shared stream and its members."""

    def __init__(self, transport: LayottoTransport, kind: str, key: _Key) -> None:
        self.kind = kind
        self._transport = transport
        self._key = key
        self._members: list[_Member] = []
        self._stream: Stream | None = None
        self._greeting: Any = None

    def join(self, member: _Member, first: Any) -> None:
        """Add a member; the first one opens the stream."""
        self._members.append(member)
        if self._stream is not None:
            if self.kind == "configuration":
                self._stream.send(first)
            if self._greeting is not None:
                member.receive(self._greeting)
            return
        try:
            self._stream = _opened(self._transport, self.kind, first, self._received, self._ended)
        except BaseException:
            del _streams[self._key]
            self._transport.close()
            raise

    def send(self, member: _Member, message: Any) -> None:
        """Send what a member says of an event."""
        with _lock:
            if member in self._members and self._stream is not None:
                member.held.pop(message.event_processed.id, None)
                self._stream.send(message)

    def leave(self, member: _Member) -> Stream | None:
        """Take a member off; returns the stream for the last one to end."""
        with _lock:
            if member not in self._members:
                return None
            self._members.remove(member)
            if not self._members:
                if _streams.get(self._key) is not self:
                    return None
                del _streams[self._key]
                if self.kind == "configuration" and self._stream is not None:
                    _ending[self._key] = self._stream
                return self._stream
            given = [(self._next(event), event) for event in member.held.values()]
        for other, event in given:
            other.receive(event)
        return None

    def _next(self, event: Any) -> _Member:
        member = min(self._members, key=lambda each: len(each.held))
        member.held[event.event_message.id] = event
        return member

    def _received(self, message: Any) -> None:
        with _lock:
            if self.kind == "events" and message.HasField("event_message"):
                takers = [self._next(message)] if self._members else []
            else:
                if self.kind == "events":
                    self._greeting = message
                takers = list(self._members)
        for member in takers:
            member.receive(message)

    def _ended(self, failure: Exception | None) -> None:
        with _lock:
            if _streams.get(self._key) is self:
                del _streams[self._key]
            if _ending.get(self._key) is self._stream:
                _ending.pop(self._key, None)
            members, self._members = self._members, []
        for member in members:
            member.ended(failure)
        self._transport.close()


def share(transport: LayottoTransport, kind: str, first: Any, receive: Receive, ended: Ended) -> Stream:
    """Return a part in the stream of this kind for what is asked; as `Transport.open`."""
    active.check()  # beside the parent's streams a forked child has none
    names = (
        (first.store_name,)
        if kind == "configuration"
        else (first.initial_request.pubsub_name, first.initial_request.topic)
    )
    key = (transport.url, kind, *names)
    if (ending := _ending.get(key)) is not None:
        ending.join(_LEAVING)  # its late end would silence the next; nobody's loop waits here
    with _lock:
        shared = _streams.get(key)
        if shared is None:
            shared = _streams[key] = _Shared(transport.copy(), kind, key)
        member = _Member(shared, receive, ended)
        shared.join(member, first)
    return member


def _opened(transport: LayottoTransport, kind: str, first: Any, receive: Receive, ended: Ended) -> Stream:
    if kind == "events" and transport.own.callback_port is not None:
        return _listen(transport.own.callback_host, transport.own.callback_port, first, receive, ended)
    return transport.open_alone(kind, first, receive, ended)


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
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                call, request_deserializer=asked.FromString, response_serializer=reply_type.SerializeToString
            )
            for name, (call, asked, reply_type) in handlers.items()
        }
        self._grpc = grpc.server(
            ThreadPoolExecutor(_WORKERS, "cloud-runtimes-callback"),
            handlers=[grpc.method_handlers_generic_handler(APP.strip("/"), methods)],
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
        with _served:
            self.asked = True
            entries = [
                pb.TopicSubscription(pubsub_name=pubsub, topic=name, metadata=topic.metadata)
                for (pubsub, name), topic in self.topics.items()
            ]
        return pb.ListTopicSubscriptionsResponse(subscriptions=entries)

    def _event(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _served:
            topic = self.topics.get((request.pubsub_name, request.topic))
        status = _RETRY if topic is None else topic.handle(request, context)
        return messages().TopicEventResponse(status=status)


class _Topic:
    """A topic that somebody is subscribed to; a `Stream` whose answers end the sidecar's calls."""

    def __init__(
        self, address: tuple[str, int], key: tuple[str, str], metadata: dict[str, str], receive: Receive, ended: Ended
    ) -> None:
        self.metadata = metadata
        self._address = address
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
        with _served:
            if self._closed:
                return _RETRY
            self._waiting.setdefault(event.id, []).append(answer)
        self._receive(messages().SubscribeTopicEventsResponse(event_message=event))
        return answer.result()

    def send(self, message: Any) -> None:
        done = message.event_processed
        with _served:
            answers = self._waiting.pop(done.id, [])
        for answer in answers:
            resolve(answer, done.status.status)

    def cancel(self) -> None:
        with _served:
            if self._closed:
                return
            self._closed = True
            answers = [each for waiting in self._waiting.values() for each in waiting]
            self._waiting.clear()
            server = _servers[self._address]
            del server.topics[self._key]
            if not server.topics:
                del _servers[self._address]
                self._stopped = server.stop()
        for answer in answers:
            resolve(answer, _RETRY)
        self._ended(None)

    finish = cancel

    def join(self, timeout: float | None) -> bool:
        return self._stopped is None or self._stopped.wait(timeout)


def _listen(host: str, port: int, first: Any, receive: Receive, ended: Ended) -> Stream:
    """Take the events of a topic by callbacks, as `Channel.open` by a stream."""
    asked = first.initial_request
    key = asked.pubsub_name, asked.topic
    address = host, port
    with _served:
        server = _servers.get(address)
        if server is None:
            server = _servers[address] = _Server(host, port)
        elif server.asked:
            raise AlreadyExistsError(
                f"the sidecar has asked {host}:{port} for its topics before there was {asked.topic!r}, and asks but "
                "once: subscribe before it starts, or start it again"
            )
        topic = server.topics[key] = _Topic(address, key, dict(asked.metadata), receive, ended)
    receive(messages().SubscribeTopicEventsResponse(initial_response={}))
    return topic
