"""Streams that a sidecar of Layotto has but once: all of this process that ask for the same one share it.

A second stream for a topic is ended by the sidecar, and the end of a stream of configuration stops the others of its store. So there is one for each sidecar, pub/sub component and topic, or configuration store, on a channel of its own, open as long as it has members. An event goes to the member with the fewest unanswered ones; what a member leaves unanswered goes to another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..._core.threads import Mutex
from .._sidecar.grpc_stream import active
from .._sidecar.transport import Ended, Receive, Stream

if TYPE_CHECKING:
    from .transport import LayottoTransport

__all__ = ["share"]

_Key: TypeAlias = tuple[str, ...]
_LEAVING: Final = 2.0
"""Seconds that a sidecar has for ending a stream of configuration."""
_lock: Final = Mutex()
_streams: dict[_Key, _Shared] = {}
# of configuration, that are ended and whose sidecar may not have noticed
_ending: dict[_Key, Stream] = {}


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
    """One stream and its members."""

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
        from .callback_server import listen

        return listen(transport.own.callback_host, transport.own.callback_port, first, receive, ended)
    return transport.open_alone(kind, first, receive, ended)
