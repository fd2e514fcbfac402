"""Clients of librdkafka have threads of their own, which a forked child does not have."""

from __future__ import annotations

import ctypes

__all__ = ["keep"]


def keep(client: object) -> None:
    """Keep a client of the parent for ever: its end would wait for threads that are not in this child."""
    if client is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
