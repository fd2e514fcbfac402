"""Ranges of keys in byte order."""

from __future__ import annotations


def prefix_end(prefix: str) -> str | None:
    """Return the least text above every text that begins with ``prefix``; ``None`` where there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None
