"""Changes that let drivers of several services write in one transaction, where they share an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["Change", "database_of"]


class Change(ABC):
    """Write of a driver, prepared without I/O. A transaction of another driver applies it.

    Only drivers whose `Driver.engine` is equal exchange changes. How their own transactions write one is theirs.
    """

    @abstractmethod
    def apply(self, connection: Any, /) -> None:
        """Write it in the open transaction of a DBAPI connection (PEP 249), such as `DatabaseSession.commit` has; an error undoes the transaction."""


@lru_cache(64)
def database_of(url: str) -> Hashable:
    """Return what is equal for two URLs of one PostgreSQL database, whoever the user is; ``None``: no URL."""
    try:
        scheme, netloc, path, query, _ = urlsplit(url)
    except ValueError:
        return None
    if not scheme.startswith("postgres"):
        return None
    asked = parse_qs(query)
    return (
        "postgresql",
        netloc.rpartition("@")[2],
        path,
        *(tuple(asked.get(each, ())) for each in ("host", "port", "dbname")),
    )
