"""URLs in messages."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.%]*\]|[^:\[\]@/]*)(:\d{1,5})?")


def without_secrets(url: str) -> str:
    """Return a URL, of one server or several, without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        servers = parts.netloc.rpartition("@")[2]
        if not all(map(_SERVER.fullmatch, servers.split(","))) or "@" in parts.path:
            raise ValueError  # a slash in the password
    except ValueError:
        return "(not a URL)"
    return parts._replace(netloc=servers, query="", fragment="").geturl()
