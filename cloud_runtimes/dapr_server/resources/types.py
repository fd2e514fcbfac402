"""What the type of a component file stands for; those of an engine are in `engines`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

__all__ = ["HELD", "MANY", "ComponentType", "is_true", "login", "plain"]

HELD: Final = "the sidecar holds an event for as long as the application works on it"
MANY: Final = "the sidecar chooses how many are under way"


@dataclass(frozen=True, slots=True)
class ComponentType:
    """What a type stands for.

    Attributes:
        service, component: of ours.
        fields: Dapr's name of a field, as `plain` makes it → our setting and what makes its value of the text.
        memory: in the process.
        format: of a file whose name does not tell it, ``None``: it must be told.
        parts: Dapr's fields that say together where a server is → what they are to `url`.
        url: makes our setting of the same name of them; a `ValueError` tells no value.
        settings: that such a type has unless they are given.
        without_effect: Dapr's fields that are warned of → why they have none.
        refused: those that cannot be had → what to do instead. One that turns something off may be there.
        note: what is other than with Dapr, a warning.
    """

    service: str
    component: str
    fields: Mapping[str, tuple[str, Callable[[str], str]]] = field(default_factory=dict)
    memory: bool = False
    format: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    url: Callable[[Mapping[str, str]], str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


_TRUE: Final = frozenset(["1", "on", "t", "true", "y", "yes"])
_FALSE: Final = frozenset(["0", "f", "false", "n", "no", "off"])


def is_true(text: str) -> bool:
    """Read a switch.

    Raises:
        ValueError: it is none.
    """
    lower = text.lower()
    if lower in _TRUE or lower in _FALSE:
        return lower in _TRUE
    raise ValueError("expected true or false")


def plain(name: str) -> str:
    """Return a field's name as it is compared: Dapr does not mind case, and ours have underscores."""
    return name.lower().replace("_", "")


def login(parts: Mapping[str, str]) -> str:
    """Return what stands before the host of a URL."""
    user, password = (quote(parts.get(name, ""), safe="") for name in ("user", "password"))
    return f"{user}:{password}@" if password else f"{user}@" if user else ""
