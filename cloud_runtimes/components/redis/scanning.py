"""Keys by how they begin, for whoever looks at all there is, and names that they tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from ...errors import UnsupportedError
from . import RedisComponent
from .failures import checked
from .resp import Batch, Flow, Value

T = TypeVar("T")


def scan(head: bytes, tail: bytes = b"*", count: int = 10_000) -> Flow[set[bytes]]:
    """Return what follows ``head`` in the keys that match the glob ``tail`` behind it. In a cluster it asks the server that has keys with this hash tag."""
    pattern = re.sub(rb"([\\*?\[\]^])", rb"\\\1", head) + tail
    keys: set[bytes] = set()
    cursor: Value = 0
    while cursor != b"0":
        ((cursor, some),) = checked((yield Batch(("SCAN", cursor, "MATCH", pattern, "COUNT", count), key=head)))
        keys.update(key[len(head) :] for key in some)
    return keys


def names_of(component: RedisComponent, service: str, tail: bytes, name: re.Pattern[bytes]) -> Flow[list[str]]:
    """Return the names of a service by their keys: ``name`` matches what follows the service in these, and its group is the name."""
    if component.is_cluster or component.engine.servers.target.kind == "cluster":
        raise UnsupportedError(
            f"a Redis cluster does not list its names of {service}: each has a server of its own",
            component=component.name,
        )
    found = yield from scan(f"{{{component.settings.prefix}:{service}:".encode(), tail, 1000)
    return sorted({match[1].decode() for key in found if (match := name.fullmatch(key))})


def pages(items: Sequence[T], size: int = 200) -> list[Sequence[T]]:
    """Return items in parts that are asked for at once."""
    return [items[first : first + size] for first in range(0, len(items), size)]
