"""Types of PostgreSQL."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlencode

from ..types import ComponentType

_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


def postgres_url(text: str) -> str:
    """Return the URL of a connection string of PostgreSQL, which is one or ``name=value`` pairs (libpq, "Connection Strings").

    Raises:
        ValueError: neither; the text, which holds the password, is not told.
    """
    if "://" in text:
        scheme, _, rest = text.partition("://")
        return f"postgresql://{rest}" if scheme == "postgres" else text
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise ValueError("expected postgresql://user:password@host/name, or name=value pairs")
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        values[match[1]] = re.sub(r"\\(.)", r"\1", value)
        position = match.end()
    user, password = values.pop("user", ""), values.pop("password", "")
    host, port = values.pop("host", "localhost"), values.pop("port", "5432")
    name = values.pop("dbname", values.pop("database", user))
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = f"?{urlencode(values)}" if values else ""
    return f"postgresql://{who}{'@' if who else ''}{host}:{port}/{quote(name, safe='')}{query}"


TYPES: Final = dict.fromkeys(
    ("bindings.postgres", "bindings.postgresql"),
    ComponentType("database", "sqlalchemy", {"connectionstring": ("url", postgres_url), "url": ("url", postgres_url)}),
)
