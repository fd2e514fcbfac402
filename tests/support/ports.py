"""Free ports of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """Give a port that no other process is given until the block ends; a server of the test's own may listen on it."""
    with socket.socket() as held:
        # bound and not listening: whoever sets the same option may listen, and the kernel gives the port to nobody else
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def free_port() -> int:
    """Return a port that is free now, for a program that would not share one that is reserved."""
    with reserved_port() as port:
        return port
