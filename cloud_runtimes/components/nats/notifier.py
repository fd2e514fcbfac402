"""Notifications by plain messages, which no stream keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from ...errors import CloudRuntimesError
from ...spi.operation import Method, Operation
from .._net.connections import ConnectionLost
from .._net.notify import Notifier
from .connection import Connection
from .entries import encode
from .failures import ServerError
from .protocol import subscribe, unsubscribe

if TYPE_CHECKING:
    from .engine import NatsEngine

_LISTEN: Final = Method("nats", "listen", repeatable=True, writes=False)
_TIMEOUT: Final = 10.0


class NatsNotifier(Notifier):
    """The channels of one cluster."""

    failures = (ConnectionLost, ServerError, CloudRuntimesError)

    def __init__(self, engine: NatsEngine) -> None:
        super().__init__("nats")
        self._engine = engine

    def subject(self, channel: str) -> str:
        """Return what to publish to."""
        return f"{self._engine.settings.prefix}.notify.{encode(channel)}"

    def connect(self) -> _Listener:
        return _Listener(self._engine.open(Operation(_LISTEN, "nats", _TIMEOUT)), self)


class _Listener:
    """A connection that listens."""

    def __init__(self, connection: Connection, notifier: NatsNotifier) -> None:
        self._connection = connection
        self._notifier = notifier
        self._numbers: dict[str, int] = {}
        self._last = 0
        self._heard: list[str] = []
        self._unsure: list[tuple[int, Collection[str]]] = []
        self._pings = connection.session.pongs
        self._asked = 0.0

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def follow(self, fresh: Collection[str], stale: Collection[str]) -> Collection[str]:
        data = b""
        callbacks = self._connection.session.callbacks
        for channel in stale:
            number = self._numbers.pop(channel)
            del callbacks[number]
            data += unsubscribe(number)
        for channel in fresh:
            self._last += 1
            self._numbers[channel] = self._last
            callbacks[self._last] = lambda message, channel=channel: self._heard.append(channel)  # type: ignore[misc]
            data += subscribe(self._notifier.subject(channel), self._last)
        self._ping(data)
        self._unsure.append((self._pings, fresh))
        return ()

    def receive(self) -> Iterable[str]:
        connection = self._connection
        connection.receive()
        while connection.has_decrypted():
            connection.receive()
        session = connection.session
        if session.error is not None:
            raise ServerError(0, session.error)
        if answer := connection.answer():
            self._send(answer)
        while self._unsure and self._unsure[0][0] <= session.pongs:  # what was notified before is not known
            self._heard += self._unsure.pop(0)[1]
        heard, self._heard = self._heard, []
        return heard

    def ask(self) -> None:
        if self._asked > self._connection.heard:
            raise ConnectionLost("the server does not answer")
        self._ping()

    def _ping(self, data: bytes = b"") -> None:
        self._asked = monotonic()
        self._pings += 1
        self._send(data + b"PING\r\n")

    def _send(self, data: bytes) -> None:
        try:
            self._connection.send(data, monotonic() + _TIMEOUT)
        except TimeoutError:
            raise ConnectionLost("the server does not read") from None
