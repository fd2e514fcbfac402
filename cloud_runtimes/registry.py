"""A name → a runtime or a component, looked up when asked for.

A built-in is a folder of this package, so nothing is scanned and its name cannot be taken by another package; an outsider is an entry point of the group `RUNTIMES` or `COMPONENTS`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from typing import Any, Final

from ._core import extras
from .config import unknown, without_values
from .errors import CloudRuntimesError, ComponentNotFoundError, InvalidArgumentError, UnavailableError

__all__ = ["COMPONENTS", "RUNTIMES", "built_in", "find", "loaded", "names"]

RUNTIMES: Final = "cloud_runtimes.runtimes"
COMPONENTS: Final = "cloud_runtimes.components"

_SIDECARS: Final = ("dapr", "layotto")
_KINDS: Final = {RUNTIMES: "runtime", COMPONENTS: "component"}
_RENAMED: Final = {"file": "config_file"}
loaded: Final[dict[tuple[str, str], type[Any]]] = {}
"""Group and name → the class that was found."""


@functools.cache
def built_in(group: str) -> list[str]:
    """List the built-in names of a group: the folders of its package."""
    package = importlib.import_module(group)
    return sorted(each.name for each in pkgutil.iter_modules(package.__path__) if not each.name.startswith("_"))


def names(group: str) -> list[str]:
    """List the names of a group: built-in ones, then entry points. Reads the installed packages' metadata."""
    from importlib.metadata import entry_points

    inside = built_in(group)
    return inside + sorted({point.name for point in entry_points(group=group)} - set(inside))


@without_values
def find(group: str, name: str, *, where: str = "", service: str = "") -> type[Any]:
    """Return the class that ``name`` stands for. A message about an unknown one says ``where`` it stands, and lists the components that have the ``service``."""
    cached = loaded.get((group, name))
    if cached is None:
        cached = loaded[group, name] = _built_in(group, name) or _entry_point(group, name, where, service)
    return cached


def _names_of(group: str, service: str) -> list[str]:
    """List the names of a group; of the components those that have a service and can be loaded."""
    available = []
    for name in names(group):
        try:
            if not service or service in find(group, name).services:
                available.append(name)
        except CloudRuntimesError:
            continue
    return available


def _built_in(group: str, name: str) -> type[Any] | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return None
    path = f"{group}.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name == path:
            return None
        raise extras.missing(f"{_KINDS[group]} {name!r}", name) from error
    loaded: type[Any] = getattr(module, _KINDS[group])
    return loaded


def _entry_point(group: str, name: str, where: str, service: str) -> type[Any]:
    from importlib.metadata import entry_points

    from .spi import component

    for point in entry_points(group=group, name=name):
        try:
            loaded: Any = point.load()
        except Exception as error:
            raise InvalidArgumentError(f"{_KINDS[group]} {name!r} ({point.value}) cannot be loaded: {error}") from error
        base = getattr(component, _KINDS[group].capitalize())
        if not isinstance(loaded, type) or not issubclass(loaded, base):
            raise InvalidArgumentError(f"{_KINDS[group]} {name!r} ({point.value}) is no {base.__name__}")
        return loaded
    if group == RUNTIMES and name in _SIDECARS:
        raise UnavailableError(
            f"the runtime {name!r} is asked for (by runtime=, endpoint=, the configuration or the environment), and nothing that speaks "
            f"to its sidecar is installed: this version has {', '.join(names(group))}; without an endpoint the embedded runtime is used",
            retryable=False,
        )
    what = f"{_KINDS[group]} of {service}" if service else _KINDS[group]
    known = _names_of(group, service)
    if (now := _RENAMED.get(name)) in known:
        message = f"{_KINDS[group]} {name!r} is called {now!r} now"
    else:
        message = unknown(what, name, known)
    message = f"{where}{': ' if where else ''}{message}"
    raise InvalidArgumentError(message) if group == RUNTIMES else ComponentNotFoundError(message)
