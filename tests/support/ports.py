"""Free ports of this machine."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@contextmanager
def reserved_port() -> Iterator[int]:
    """Give a port that no other process is given until the block ends; a server of the test's own may listen on it."""
    with socket.socket() as held:
        # bound and not listening: whoever sets the same option may listen, and the kernel gives the port to nobody else
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def free_port() -> int:
    """Return a port that is free now, for a program that would not share one that is reserved; by default it is none that the kernel gives to whoever asks for any."""
    end = max(32_768, int(_RANGE.read_text().split()[0])) if _RANGE.exists() else 32_768
    while True:
        port = 16_384 + secrets.randbelow(end - 16_384)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
