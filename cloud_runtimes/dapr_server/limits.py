"""How much one answer may hold while it is built in memory.

A small request can ask for a large answer: all values of a store, a query without a condition, a folder of a million files. Whoever builds such an answer charges a `Budget` for each part as it is added, so that what is too large is refused before the rest of it exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Final

from ..protocols.dapr.failures import DaprError

_CODE: Final = "ERR_RESPONSE_TOO_LARGE"
"""Ours: Dapr has no limit of this kind."""

MAX_OPEN: Final = 256
"""Subscriptions of one kind that callers may hold open: each has a thread and files of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an answer.

    Attributes:
        bytes: of its encoded parts: four of the largest values (16 MiB each), and as much as the codec decodes.
        items: keys, rows, names.
        seconds: to build it.
    """

    bytes: int = 64 << 20
    items: int = 100_000
    seconds: float = 60.0


class Budget:
    """Remaining budget of an answer under its limits.

    Args:
        limits: of the answer.
        what: the answer, for messages: ``"the values of state store 'orders'"``.
        remedy: what the caller can do: ``"ask for fewer keys at a time"``.
    """

    __slots__ = ("_bytes", "_end", "_items", "_limits", "_remedy", "_what")

    def __init__(self, limits: Limits, what: str, remedy: str) -> None:
        self._limits = limits
        self._what = what
        self._remedy = remedy
        self._bytes = limits.bytes
        self._items = limits.items
        self._end = monotonic() + limits.seconds

    def add(self, bytes: int, items: int = 1) -> None:
        """Charge for a part of the answer.

        Raises:
            DaprError: it has no room for this part (413, RESOURCE_EXHAUSTED), or the time is up (504, DEADLINE_EXCEEDED).
        """
        self._bytes -= bytes
        self._items -= items
        if self._bytes < 0:
            raise self.refusal(f"more than {self._limits.bytes:,} bytes, the limit of one answer")
        if self._items < 0:
            raise self.refusal(f"more than {self._limits.items:,} items, the limit of one answer")
        self.remaining()

    def remaining(self) -> float:
        """Return the seconds that are left.

        Raises:
            DaprError: there are none (504, DEADLINE_EXCEEDED).
        """
        seconds = self._end - monotonic()
        if seconds <= 0:
            text = f"{self._what}: not complete within {self._limits.seconds:g} s: {self._remedy}"
            raise DaprError.basic(504, "DEADLINE_EXCEEDED", _CODE, text)
        return seconds

    @property
    def allowance(self) -> tuple[int, int]:
        """The bytes and the items that are left, for whoever reads them."""
        return self._bytes, self._items

    def refusal(self, limit: str) -> DaprError:
        """Return the refusal of an answer beyond a limit: ``"more than 100 rows"``."""
        text = f"{self._what}: {limit}: {self._remedy}"
        return DaprError.basic(413, "RESOURCE_EXHAUSTED", _CODE, text)


def no_more(what: str, remedy: str) -> DaprError:
    """Return the refusal of one subscription more than `MAX_OPEN`."""
    text = f"{MAX_OPEN} {what} are open, which is the limit of a sidecar: {remedy}"
    return DaprError.basic(429, "RESOURCE_EXHAUSTED", "ERR_TOO_MANY_SUBSCRIPTIONS", text)
