"""The limits on decoding MessagePack and JSON, handed to the kernels.

They are one setting of the process. Most documents are decoded by services, where no caller could give an argument, and who runs the process knows what it can bear.
"""

from __future__ import annotations

from typing import Final

from .._native import json_limits, msgpack, payload
from .._native.limits import DEFAULT, MAX_DEPTH, Limits
from ..errors import InvalidArgumentError

_COUNT_MAX: Final = 0x7FFF_FFFF_FFFF
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
        limit = MAX_DEPTH if name == "depth" else _COUNT_MAX
        if type(value) is not int or not 1 <= value <= limit:
            raise InvalidArgumentError(f"limits({name}={value!r}): give an int of 1 to {limit:,}")
    if given:
        _now = _now._replace(**given)
        for kernel in (msgpack, payload, json_limits):
            kernel.set_limits(*_now)
    return _now
