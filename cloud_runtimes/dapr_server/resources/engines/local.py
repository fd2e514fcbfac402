"""Types of what is in the process: files, variables, SQLite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..types import ComponentType


def _sqlite_path(text: str) -> str:
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


TYPES: Final[Mapping[str, ComponentType]] = {
    "bindings.localstorage": ComponentType("file", "local", {"rootpath": ("path", str)}),
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
    "state.sqlite": ComponentType("state", "sqlite", {"connectionstring": ("path", _sqlite_path)}),
}
