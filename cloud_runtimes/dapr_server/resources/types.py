"""Types of component files; those of an engine are in `engines`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

HELD: Final = "the sidecar holds an event for as long as the application works on it"
MANY: Final = "the sidecar chooses how many are under way"


@dataclass(frozen=True, slots=True)
class ComponentType:
    """Mapping of a Dapr component type to one of our components.

    Attributes:
        service, component: of ours.
        fields: Dapr's field name, as `plain` makes it → our setting and the function that converts the text.
        memory: the component keeps its data in the process.
        format: of a file whose name does not show its format; ``None``: the format must be given.
        parts: Dapr's fields that together give the server's address → their parameters of `url`.
        url: builds our setting of the same name from them; its `ValueError` shows no value.
        settings: defaults of this type.
        without_effect: Dapr's fields that cause a warning → why they have no effect.
        refused: unsupported fields → the alternative. A value that turns something off is accepted.
        note: difference from Dapr, as a warning.
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
