"""The way to the application beside the sidecar, in words of neither protocol."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..._core.backoff import NONE, Backoff
from ..settings import SidecarSettings

HOP_BY_HOP: Final = frozenset(
    [
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers of one connection (RFC 9110, section 7.6.1; RFC 7540, section 3.2.1), never passed on."""

_LOOK_TIME: Final = 5.0


class NotReached(Exception):
    """The application gave no answer; ``sent`` is whether it may have got what was sent."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.message = message
        self.sent = sent


class Body(Protocol):
    """A body that comes piece by piece."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Want no more of it."""


@dataclass(slots=True)
class AppCall:
    """A call of the application.

    Attributes:
        verb: of HTTP, in capitals.
        path: percent-encoded, without the ``/`` at its beginning.
        query: as it came, without ``?``.
        headers: (lower-case name, value) pairs without those of the connection, ``content-type`` and ``content-length``.
        content_type: of ``body``, ``None``: none is told.
        data_type: type URL of ``body`` where it came as an ``Any``.
    """

    verb: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    content_type: str | None = None
    body: bytes = b""
    data_type: str = ""


@dataclass(slots=True)
class AppAnswer:
    """Answer of the application.

    Attributes:
        status: HTTP status; over gRPC the status that its code stands for.
        headers: (lower-case name, value) pairs, as in `AppCall`.
        content_type: of ``body``; ``None``: not given.
        failure: of a failed gRPC call: (name of the code, message, serialized ``google.rpc.Status`` or ``b""``).
        data_type: type URL of ``body`` where it came as an ``Any``.
        is_grpc: it came over gRPC.
        rest: the body as a stream; ``None``: all of it is in ``body``.
    """

    status: int
    headers: list[tuple[str, str]]
    content_type: str | None
    body: bytes
    failure: tuple[str, str, bytes] | None = None
    data_type: str = ""
    is_grpc: bool = False
    rest: Body | None = None


class AppChannel(ABC):
    """The application, reached over HTTP or gRPC.

    Attributes:
        protocol: ``"http"`` or ``"grpc"``.
        is_ready: whether the application has been seen listening.
    """

    protocol: str

    def __init__(self, settings: SidecarSettings) -> None:
        assert settings.app_port is not None
        self._host = settings.app_host
        self._port = settings.app_port
        self._token = settings.app_token
        self._timeout = settings.timeout
        self._seen = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """See the class."""
        return self._seen.is_set()

    async def ready(self) -> None:
        """Return once the application listens; the sidecar serves meanwhile."""
        await self._seen.wait()

    async def look(self) -> None:
        """Look until the application listens, as daprd does before it asks it anything."""
        pauses = Backoff(0.05, 0.5, growth=1.5, jitter=NONE)
        while not await self._listens():
            await asyncio.sleep(pauses.next())
        self._seen.set()

    async def _listens(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_TIME):
                _, writer = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def post(
        self,
        path: str,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AppAnswer:
        """Send a callback; ``path`` begins with ``/`` and is percent-encoded. ``timeout`` in seconds, by default the sidecar's.

        Raises:
            NotReached: there was no answer.
        """
        pairs = [(name.lower(), value) for name, value in (headers or {}).items()]
        return await self.invoke(AppCall("POST", path.removeprefix("/"), "", pairs, content_type, body), timeout)

    @abstractmethod
    async def invoke(self, call: AppCall, timeout: float | None = None) -> AppAnswer:
        """Make a call and return its answer, of any status.

        Raises:
            NotReached: there was no answer.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close its connections."""


def passed_on(headers: list[tuple[str, str]], also: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Return the headers that are not of one connection, of the framing, or in ``also``."""
    named = {
        each.strip().lower() for name, value in headers if name == "connection" for each in value.split(",")
    } | also
    return [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and name not in named and name not in ("content-length", "content-type")
    ]
