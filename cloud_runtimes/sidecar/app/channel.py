"""The way to the application beside the sidecar, in words of neither protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["AppAnswer", "AppChannel", "NotReached"]


class NotReached(Exception):
    """The application gave no answer; ``sent`` tells whether it may have got what was sent."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(slots=True)
class AppAnswer:
    """What the application answered.

    Attributes:
        status: HTTP; over gRPC what its code stands for.
        headers: (lower-case name, value) pairs.
        content_type: of ``body``, ``None``: not told.
    """

    status: int
    headers: list[tuple[str, str]]
    content_type: str | None
    body: bytes


class AppChannel(Protocol):
    """The application, reached over HTTP or gRPC."""

    async def post(
        self,
        path: str,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AppAnswer:
        """Send a callback; ``path`` begins with ``/``. ``timeout`` in seconds, by default the sidecar's.

        Raises:
            NotReached: there was no answer.
        """
