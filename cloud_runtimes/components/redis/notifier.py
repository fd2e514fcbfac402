"""Notifications by ``PUBLISH`` and ``SUBSCRIBE``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from ...errors import CloudRuntimesError
from ...spi.operation import Method, Operation
from .._net.connections import ConnectionLost
from .._net.notify import Notifier
from .connection import Connection
from .resp import NOTHING, ReplyError, Value, pack

_LISTEN: Final = Method("redis", "listen", repeatable=True, writes=False)
_TIMEOUT: Final = 10.0


class RedisNotifier(Notifier):
    """The channels of one server.

    Args:
        opened: makes a connection.
        prefix: of the channels.
    """

    failures = (ConnectionLost, ReplyError, CloudRuntimesError)

    def __init__(self, opened: Callable[[Operation], Connection], prefix: str) -> None:
        super().__init__("redis")
        self._opened = opened
        self._prefix = prefix.encode() + b":"

    def name(self, channel: str) -> bytes:
        """Return what a channel is called on the server, for ``PUBLISH``."""
        return self._prefix + channel.encode()

    def connect(self) -> _Listener:
        return _Listener(self._opened(Operation(_LISTEN, "redis", _TIMEOUT)), self._prefix)


class _Listener:
    """A connection that listens."""

    def __init__(self, connection: Connection, prefix: bytes) -> None:
        self._connection = connection
        self._prefix = prefix
        self._asked = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def follow(self, fresh: Collection[str], stale: Collection[str]) -> Collection[str]:
        for command, channels in (("SUBSCRIBE", fresh), ("UNSUBSCRIBE", stale)):
            if channels:
                self._send(command, *[self._prefix + channel.encode() for channel in channels])
        return ()

    def receive(self) -> Iterator[str]:
        while (reply := self._connection.next()) is not NOTHING:
            self._asked = False
            if isinstance(reply, ReplyError):
                raise reply
            if reply[0] in (b"message", b"subscribe"):  # what was notified before it listened is not known
                yield reply[1][len(self._prefix) :].decode()

    def ask(self) -> None:
        if self._asked:
            raise ConnectionLost("the server does not answer")
        self._asked = True
        self._send("PING")

    def _send(self, *words: Value) -> None:
        self._connection.send(pack(words), Operation(_LISTEN, "redis", _TIMEOUT))
