"""The types of component files: Dapr's names, and ours as ``<kind>.<component>``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode

from ... import registry
from ...errors import CloudRuntimesError

__all__ = ["ComponentType", "component_type", "known_types"]

SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "bindings": ("file", "database"),
    "configuration": ("configuration",),
    "lock": ("lock",),
    "pubsub": ("pubsub",),
    "secretstores": ("secret",),
    "state": ("state",),
}
"""The first part of a type → the services of ours that such a component can be of."""
MEMORY: Final = "in-memory"


@dataclass(frozen=True, slots=True)
class ComponentType:
    """What a type stands for.

    Attributes:
        service, component: of ours.
        fields: Dapr's name of a field, as `plain` makes it → our setting and what makes its value of the text.
        memory: in the process.
        format: of a file whose name does not tell it, ``None``: it must be told.
    """

    service: str
    component: str
    fields: Mapping[str, tuple[str, Callable[[str], str]]] = field(default_factory=dict)
    memory: bool = False
    format: str | None = None


def plain(name: str) -> str:
    """Return a field's name as it is compared: Dapr does not mind case, and ours have underscores."""
    return name.lower().replace("_", "")


def sqlite_path(text: str) -> str:
    """Return the file of a connection string of SQLite.

    Raises:
        ValueError: it has parameters.
    """
    path = text.removeprefix("file:")
    if path == ":memory:":
        raise ValueError("give a file, or the type with in-memory in its name")
    if "?" in path:
        raise ValueError("give the file without parameters")
    return path


_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


def postgres_url(text: str) -> str:
    """Return the URL of a connection string of PostgreSQL, which is one or ``name=value`` pairs (libpq, "Connection Strings").

    Raises:
        ValueError: neither; the text, which holds the password, is not told.
    """
    if "://" in text:
        scheme, _, rest = text.partition("://")
        return f"postgresql://{rest}" if scheme == "postgres" else text
    values: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = _PAIR.match(text, place)
        if match is None:
            raise ValueError("expected postgresql://user:password@host/name, or name=value pairs")
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        values[match[1]] = re.sub(r"\\(.)", r"\1", value)
        place = match.end()
    user, password = values.pop("user", ""), values.pop("password", "")
    host, port = values.pop("host", "localhost"), values.pop("port", "5432")
    name = values.pop("dbname", values.pop("database", user))
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(values)}" if values else ""
    return f"postgresql://{who}{'@' if who else ''}{host}:{port}/{quote(name, safe='')}{query}"


_POSTGRES: Final = ComponentType(
    "database", "sqlalchemy", {"connectionstring": ("url", postgres_url), "url": ("url", postgres_url)}
)
_DAPR: Final[Mapping[str, ComponentType]] = {
    "bindings.localstorage": ComponentType("file", "local", {"rootpath": ("path", str)}),
    "bindings.postgres": _POSTGRES,
    "bindings.postgresql": _POSTGRES,
    "secretstores.local.env": ComponentType("secret", "env"),
    "secretstores.local.file": ComponentType(
        "secret",
        "config_file",
        {
            "secretsfile": ("path", str),
            "nestedseparator": ("separator", str),
            "multivalued": ("multi_valued", str),
        },
        format="json",
    ),
    "state.sqlite": ComponentType("state", "sqlite", {"connectionstring": ("path", sqlite_path)}),
}


def component_type(name: str) -> ComponentType | None:
    """Return what a type stands for; ``None``: there is no such one."""
    known = _DAPR.get(name)
    if known is not None:
        return known
    kind, _, component = name.partition(".")
    services = SERVICES.get(kind, ())
    if component == MEMORY:
        made = _of("sqlite", services)
        return made and ComponentType(made.service, made.component, memory=True)
    return _of(component, services)


def _of(component: str, services: tuple[str, ...]) -> ComponentType | None:
    if not services:
        return None
    try:
        there = registry.find(registry.COMPONENTS, component).services
    except CloudRuntimesError:
        return None
    service = next((each for each in services if each in there), None)
    return None if service is None else ComponentType(service, component)


def known_types() -> list[str]:
    """List the types there are; components whose packages are missing are left out."""
    found = set(_DAPR)
    for kind, services in SERVICES.items():
        for component in (*registry.names(registry.COMPONENTS), MEMORY):
            if component_type(f"{kind}.{component}") is not None and services:
                found.add(f"{kind}.{component}")
    return sorted(found)
