"""How much one decoded document may hold: what the kernels begin with, and what they say of a document beyond.

`codec.limits` hands other numbers to each kernel. A kernel keeps them in plain variables, so that a document too small to break any of them costs one comparison.
"""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn

from ..errors import PayloadError

__all__ = ["DEFAULT", "MAX_DEPTH", "Limits", "refuse"]

MAX_DEPTH: Final = 512
"""The most that `depth` can be: what a stack of 128 KiB holds, which is what threads have on musl."""


class Limits(NamedTuple):
    """Limits of a document.

    Attributes:
        depth: containers within each other.
        items: entries of all containers together: an element of an array counts one, a key with its value counts
            one.
        bytes: length of the encoded document.
    """

    depth: int
    items: int
    bytes: int


DEFAULT: Final = Limits(depth=128, items=1_000_000, bytes=64 * 1024 * 1024)


def refuse(kind: str, name: str, limit: int, at: int | None = None) -> NoReturn:
    """Refuse a document of `kind` that breaks the limit of that name; what both kernels say. Raises `PayloadError`: always."""
    what = {
        "depth": f"nested deeper than {limit} containers",
        "items": f"of more than {limit} items",
        "bytes": f"of more than {limit} bytes",
    }[name]
    location = "" if at is None else f" (at byte {at})"
    raise PayloadError(f"{kind} {what}{location}: allow it with cloud_runtimes.codec.limits({name}=...), or send less")
