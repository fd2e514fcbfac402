"""How much one decoded document may hold: the limits on decoding MessagePack and JSON, the same in both kernels.

They are one setting of the process and no argument of `decode`: most documents are decoded by services on their own, where no caller could hand an argument in, and what a process can bear is known by who runs it. A kernel keeps them in plain variables, so that a document too small to break any of them costs one comparison.
"""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn

from ..errors import InvalidArgumentError, PayloadError

__all__ = ["DEFAULT", "MAX_DEPTH", "Limits", "current", "limits", "refuse"]

MAX_DEPTH: Final = 512
"""The most that `depth` can be: what a stack of 128 KiB holds, which is what threads have on musl."""

_COUNT_MAX: Final = 0x7FFF_FFFF_FFFF


class Limits(NamedTuple):
    """What one document may hold.

    Attributes:
        depth: containers within each other.
        items: entries of all containers together: an element of an array counts one, a key with its value counts one.
        bytes: length of the encoded document.
    """

    depth: int
    items: int
    bytes: int


DEFAULT: Final = Limits(depth=128, items=1_000_000, bytes=64 * 1024 * 1024)
_now = DEFAULT


def limits(*, depth: int | None = None, items: int | None = None, bytes: int | None = None) -> Limits:
    """Set how much a decoded document may hold, in this process and those it forks from now on, and return what is in force.

    What is left out stays; ``limits()`` only tells. The defaults are 128 deep, 1,000,000 items and 64 MiB (the largest event is 16 MiB, unless a component is told otherwise). A document beyond a limit is refused before anything is made of it. `json.decode` and `msgpack.decode` keep to them, and with them all that services decode; the data of a CloudEvent, which is copied as it is, ends at 128 deep anyway. Set them when the process starts: a document that is being decoded in another thread may meet the old ones.

    Args:
        depth: containers within each other, 1 to 512.
        items: entries of all containers together, at least 1.
        bytes: length of a document, at least 1.

    Raises:
        InvalidArgumentError: a limit is no int or out of its range; then none is changed.
    """
    global _now
    given = {name: value for name, value in (("depth", depth), ("items", items), ("bytes", bytes)) if value is not None}
    for name, value in given.items():
        most = MAX_DEPTH if name == "depth" else _COUNT_MAX
        if type(value) is not int or not 1 <= value <= most:
            raise InvalidArgumentError(f"limits({name}={value!r}): give an int of 1 to {most:,}")
    if given:
        from .._native import msgpack, payload

        _now = _now._replace(**given)
        msgpack.set_limits(*_now)
        payload.set_limits(*_now)
    return _now


def current() -> Limits:
    """Return what is in force."""
    return _now


def refuse(kind: str, name: str, limit: int, at: int | None = None) -> NoReturn:
    """Refuse a document of `kind` that breaks the limit of that name; what both kernels say.

    Raises:
        PayloadError: always.
    """
    what = {
        "depth": f"nested deeper than {limit} containers",
        "items": f"of more than {limit} items",
        "bytes": f"of more than {limit} bytes",
    }[name]
    place = "" if at is None else f" (at byte {at})"
    raise PayloadError(f"{kind} {what}{place}: allow it with cloud_runtimes.codec.limits({name}=...), or send less")
