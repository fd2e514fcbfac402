"""Arguments of calls, for tests of what is refused."""

from __future__ import annotations

from typing import Any

__all__ = ["one_each"]


def one_each(**options: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return one argument at a time: ``one_each(a=(1, 2), b=(3,))`` is ``[{"a": 1}, {"a": 2}, {"b": 3}]``."""
    return [{name: value} for name, values in options.items() for value in values]
