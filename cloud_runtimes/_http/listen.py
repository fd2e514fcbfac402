"""A listening socket, and its address as others write it."""

from __future__ import annotations

import socket

from ..errors import UnavailableError

__all__ = ["listen"]


def listen(host: str, port: int, remedy: str) -> tuple[socket.socket, str]:
    """Listen and return the socket and its URL, e.g. ``"http://127.0.0.1:41231"``.

    Raises:
        UnavailableError: nothing can listen there; ends with ``remedy``.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # the protocol by its name: with 0 asyncio leaves Nagle's algorithm on, at 40 ms a call
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(place)
            made.listen(1024)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise UnavailableError(
            f"{host}:{port} cannot be listened on: {error.strerror}: {remedy}", retryable=False
        ) from error
    # on all addresses is also on loopback, where others of this machine reach it
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host) or (f"[{host}]" if ":" in host else host)
    return made, f"http://{shown}:{made.getsockname()[1]}"
