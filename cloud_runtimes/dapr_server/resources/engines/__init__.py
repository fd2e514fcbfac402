"""The types of component files: Dapr's names, and ours as ``<kind>.<component>``.

A broker is a module, and so are all stores: its ``TYPES`` are Dapr's names and what they stand for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Final

from .... import registry
from ....errors import CloudRuntimesError
from ..types import ComponentType

__all__ = ["CRON", "component_type", "known_types"]

CRON: Final = "bindings.cron"
"""The type that stands for no component of ours."""

_SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "bindings": ("file", "database"),
    "configuration": ("configuration",),
    "lock": ("lock",),
    "pubsub": ("pubsub",),
    "secretstores": ("secret",),
    "state": ("state",),
}
"""The first part of a type → the services of ours that such a component can be of."""
_MEMORY: Final = "in-memory"
_dapr: dict[str, ComponentType] = {}
for _module in pkgutil.iter_modules(__path__):
    _dapr |= importlib.import_module(f"{__name__}.{_module.name}").TYPES


def component_type(name: str) -> ComponentType | None:
    """Return what a type stands for; ``None``: there is no such one."""
    if name in _dapr:
        return _dapr[name]
    kind, _, component = name.partition(".")
    memory = component == _MEMORY
    component = "sqlite" if memory else component
    try:
        there = registry.find(registry.COMPONENTS, component).services
    except CloudRuntimesError:
        return None
    service = next((each for each in _SERVICES.get(kind, ()) if each in there), None)
    return None if service is None else ComponentType(service, component, memory=memory)


def known_types() -> list[str]:
    """List the types there are; components whose packages are missing are left out."""
    ours = (f"{kind}.{name}" for kind in _SERVICES for name in (*registry.names(registry.COMPONENTS), _MEMORY))
    return sorted({CRON, *_dapr, *(each for each in ours if component_type(each) is not None)})
