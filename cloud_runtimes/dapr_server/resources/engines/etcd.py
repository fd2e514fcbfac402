"""Types of etcd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..types import ComponentType, is_true


def etcd_url(parts: Mapping[str, str]) -> str:
    """Return the URL of servers.

    Raises:
        ValueError: it cannot be made; no value is told.
    """
    endpoints = [each.strip().rpartition("://")[2].rstrip("/") for each in parts.get("endpoints", "").split(",")]
    if not all(endpoints):
        raise ValueError("give metadata endpoints, host:2379, several with commas")
    return f"{'etcds' if is_true(parts.get('tls') or 'false') else 'etcd'}://{','.join(endpoints)}"


def prefix(text: str) -> str:
    """Return what keys begin with: a slash stands behind it anyway."""
    return text.rstrip("/")


_FILE: Final = "give {}, the name of a file"
TYPES: Final[Mapping[str, ComponentType]] = {
    "state.etcd": ComponentType(
        "state",
        "etcd",
        {"keyprefixpath": ("prefix", prefix), "maxtxnops": ("max_operations", str)},
        parts={"endpoints": "endpoints", "tlsenable": "tls"},
        url=etcd_url,
        refused={
            "ca": _FILE.format("tls_ca"),
            "cert": _FILE.format("tls_certificate"),
            "key": _FILE.format("tls_key"),
        },
        note="it has keys of its own, which daprd neither reads nor writes",
    )
}
