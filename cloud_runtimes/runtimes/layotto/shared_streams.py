"""Streams that a sidecar of Layotto has but once: all of this process that ask for the same one share it.

A second stream for a topic is ended by the sidecar, and the end of a stream of configuration stops the others of its store. So there is one for each sidecar, pub/sub component and topic, or configuration store, on a channel of its own, open as long as somebody has a part in it. An event goes to whoever has the fewest unanswered ones; what a member leaves unanswered goes to another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..._core import fork
from ..._core.threads import Mutex
from .._sidecar.transport import Stream

if TYPE_CHECKING:
    from .transport import LayottoTransport

__all__ = ["share"]

_Key = tuple[str, ...]
_LEAVING: Final = 2.0
"""Seconds that a sidecar has for ending a stream of configuration."""


class _Registry:
    """The streams of this process."""

    def __init__(self) -> None:
        self.lock = Mutex()
        self.streams: dict[_Key, _Shared] = {}
        # of configuration, that are ended and whose sidecar may not have noticed
        self.ending: dict[_Key, Stream] = {}
        self.parents: list[Any] = []
        fork.register(self)

    def forked(self) -> None:
        """In a forked child: the streams are the parent's."""
        self.parents.append((self.streams, self.ending))  # letting go of one would end it
        self.lock = Mutex()
        self.streams = {}
        self.ending = {}


_registry: Final = _Registry()


class _Member:
    """A part in a stream; a `Stream`.

    Attributes:
        held: the events it has not answered for, by id.
    """

    def __init__(
        self, stream: _Shared, receive: Callable[[Any], None], ended: Callable[[Exception | None], None]
    ) -> None:
        self.stream = stream
        self.receive = receive
        self.ended = ended
        self.held: dict[str, Any] = {}
        self.last: Stream | None = None

    def send(self, message: Any) -> None:
        self.stream.send(self, message)

    def finish(self) -> None:
        self.stream.leave(self, at_once=False)

    def cancel(self) -> None:
        # what is cancelled ends here alone: only the sidecar's answer to a last message says that the next stream is safe
        self.stream.leave(self, at_once=self.stream.kind != "configuration")

    def join(self, timeout: float | None) -> bool:
        if self.last is None or self.last.join(timeout):
            return True
        if self.stream.kind == "configuration":
            self.last.cancel()
        return False


class _Shared:
    """One stream and its members.

    Attributes:
        kind: of stream.
    """

    def __init__(self, transport: LayottoTransport, kind: str, key: _Key) -> None:
        self._transport = transport
        self.kind = kind
        self._key = key
        self._members: list[_Member] = []
        self._stream: Stream | None = None
        self._greeting: Any = None

    def join(
        self, first: Any, receive: Callable[[Any], None], ended: Callable[[Exception | None], None]
    ) -> _Member | None:
        """Return a part in it, or ``None``: it has just ended."""
        with _registry.lock:
            if _registry.streams.get(self._key) is not self:
                return None
            member = _Member(self, receive, ended)
            self._members.append(member)
            if self._stream is None:
                try:
                    self._stream = _opened(self._transport, self.kind, first, self._received, self._ended)
                except BaseException:
                    del _registry.streams[self._key]
                    self._transport.close()
                    raise
                return member
            if self.kind == "configuration":
                self._stream.send(first)
            greeting = self._greeting
        if greeting is not None:
            receive(greeting)
        return member

    def send(self, member: _Member, message: Any) -> None:
        """Send what a member says of an event."""
        with _registry.lock:
            if member in self._members and self._stream is not None:
                member.held.pop(message.event_processed.id, None)
                self._stream.send(message)

    def leave(self, member: _Member, *, at_once: bool) -> None:
        """Take a member off; the last one ends the stream, after what it has sent or at once."""
        given: list[tuple[_Member, Any]] = []
        with _registry.lock:
            if member not in self._members:
                return
            self._members.remove(member)
            stream = self._stream
            if self._members:
                given = [(self._next(event), event) for event in member.held.values()]
            elif _registry.streams.get(self._key) is self:
                del _registry.streams[self._key]
                member.last = stream
                if stream is not None and self.kind == "configuration":
                    _registry.ending[self._key] = stream
        for other, event in given:
            other.receive(event)
        if member.last is not None:
            if at_once:
                member.last.cancel()
            else:
                member.last.finish()

    def _next(self, event: Any) -> _Member:
        member = min(self._members, key=lambda each: len(each.held))
        member.held[event.event_message.id] = event
        return member

    def _received(self, message: Any) -> None:
        with _registry.lock:
            if self.kind == "events" and message.HasField("event_message"):
                if not self._members:
                    return
                takers = [self._next(message)]
            else:
                if self.kind == "events":
                    self._greeting = message
                takers = list(self._members)
        for member in takers:
            member.receive(message)

    def _ended(self, failure: Exception | None) -> None:
        with _registry.lock:
            if _registry.streams.get(self._key) is self:
                del _registry.streams[self._key]
            if _registry.ending.get(self._key) is self._stream:
                _registry.ending.pop(self._key, None)
            members, self._members = self._members, []
        for member in members:
            member.ended(failure)
        self._transport.close()


def share(
    transport: LayottoTransport,
    kind: str,
    names: _Key,
    first: Any,
    receive: Callable[[Any], None],
    ended: Callable[[Exception | None], None],
) -> Stream:
    """Return a part in the stream of a kind that ``names`` tell; as `Transport.open`."""
    key = (transport.url, kind, *names)
    if (ending := _registry.ending.get(key)) is not None:
        ending.join(_LEAVING)  # its late end would silence the next; nobody's loop waits here
    while True:
        with _registry.lock:
            shared = _registry.streams.get(key)
            if shared is None:
                shared = _registry.streams[key] = _Shared(transport.copy(), kind, key)
        member = shared.join(first, receive, ended)
        if member is not None:
            return member


def _opened(
    transport: LayottoTransport,
    kind: str,
    first: Any,
    receive: Callable[[Any], None],
    ended: Callable[[Exception | None], None],
) -> Stream:
    if kind == "events" and transport.own.callback_port is not None:
        from .callback_server import listen

        return listen(transport.own.callback_host, transport.own.callback_port, first, receive, ended)
    return transport.open_alone(kind, first, receive, ended)
