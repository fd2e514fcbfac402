"""Notifications by watches, all of them over one stream."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn

from ...errors import CloudRuntimesError
from ...spi.operation import Method, Operation
from .._net.connections import ConnectionLost
from .._net.notify import Notifier
from .connection import Connection
from .failures import ServerError, map_error
from .http2 import Stream
from .messages import WATCH, read_watched, under, unwatch, watch

if TYPE_CHECKING:
    from .engine import EtcdEngine

_LISTEN: Final = Method("etcd", "listen", repeatable=True, writes=False)
_TIMEOUT: Final = 10.0
_QUIET: Final = 15.0
"""Seconds after which a silent server is asked whether it is there; after as many more it is not."""


class Watching:
    """A connection of its own with a stream of watches."""

    def __init__(self, engine: EtcdEngine) -> None:
        self.connection: Connection = engine.open(Operation(_LISTEN, "etcd", _TIMEOUT))
        self._engine = engine
        self._stream: Stream | None = None
        self._asked = 0.0

    def send(self, message: bytes) -> None:
        """Send a request of the stream."""
        session = self.connection.session
        if self._stream is None:
            self._stream = session.begin(self.connection.head(WATCH), message, more=True)
        else:
            session.send(self._stream, message)
        self._flush()

    def receive(self) -> list[bytes]:
        """Return the messages that have come. Does not wait.

        Raises:
            Lost, CloudRuntimesError: the stream has ended.
        """
        self.connection.receive()
        while self.connection.has_decrypted():
            self.connection.receive()
        self._flush()
        if self._stream is None:
            return []
        messages, self._stream.messages = self._stream.messages, []
        if not messages and self._stream.status is not None:
            self.connection.avoid()
            refused = ServerError(self._stream.status, self._stream.text)
            if refused.token_ended:
                self.cancelled(refused.text)
            raise map_error(self._engine.where, refused)
        return messages

    def cancelled(self, reason: str) -> NoReturn:
        """Raise that a watch has ended, perhaps since the server does not know the token; its keys can be read, so it was permitted."""
        self._engine.renew_token()
        raise ConnectionLost(f"a watch has ended: {reason}")

    def check(self) -> None:
        """Find out, now and then, whether a server that says nothing is there."""
        if monotonic() - max(self.connection.heard, self._asked) >= _QUIET:
            self.ask()

    def ask(self) -> None:
        """Find out whether the server is there: raise at once, or by the next call."""
        if self._asked > self.connection.heard:
            self.connection.avoid()
            raise ConnectionLost("the server does not answer")
        self._asked = monotonic()
        self.connection.session.ping()
        self._flush()

    def _flush(self) -> None:
        try:
            self.connection.flush(monotonic() + _TIMEOUT)
        except TimeoutError:
            raise ConnectionLost("the server does not read") from None

    def close(self) -> None:
        """Close it without waiting."""
        self.connection.close()


class EtcdNotifier(Notifier):
    """Channels are keys (none ends with a star), or with a star at the end all keys that begin so."""

    failures = (ConnectionLost, CloudRuntimesError)

    def __init__(self, engine: EtcdEngine) -> None:
        super().__init__("etcd")
        self._engine = engine

    def connect(self) -> _Listener:
        return _Listener(self._engine)


class _Listener:
    """A stream that has a watch for each channel."""

    def __init__(self, engine: EtcdEngine) -> None:
        self._watching = Watching(engine)
        self._numbers: dict[str, int] = {}
        self._channels: dict[int, str] = {}
        self._last = 0

    def fileno(self) -> int:
        return self._watching.connection.fileno()

    def close(self) -> None:
        self._watching.close()

    def follow(self, fresh: Collection[str], stale: Collection[str]) -> Collection[str]:
        for channel in stale:
            number = self._numbers.pop(channel)
            del self._channels[number]
            self._watching.send(unwatch(number))
        for channel in fresh:
            self._last += 1
            self._numbers[channel] = self._last
            self._channels[self._last] = channel
            key = channel.removesuffix("*").encode()
            self._watching.send(watch(self._last, key, b"" if key == channel.encode() else under(key)))
        return ()

    def receive(self) -> Iterable[str]:
        heard = []
        for message in self._watching.receive():
            response = read_watched(message)
            channel = self._channels.get(response.id)
            if channel is None:
                continue
            if response.cancelled:
                self._watching.cancelled(response.reason or "it was compacted")
            heard.append(channel)  # what was written before it had begun is not known
        return heard

    def ask(self) -> None:
        self._watching.ask()
