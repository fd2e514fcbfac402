"""How the fake says no."""

from __future__ import annotations

__all__ = ["NONE", "Refuse", "check_store"]

NONE = "none"
"""A name of a component that is not configured."""


class Refuse(Exception):
    """A status and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_store(name: str, code: str = "INVALID_ARGUMENT") -> str:
    """Return the name of a component that there is."""
    if not name or name == NONE:
        raise Refuse(code, f"store {name} is not found")
    return name
