"""What the parts of the suite of a `DatabaseDriver` share: a table, and how rows come into it."""

from __future__ import annotations

from typing import Final

import pytest

from ...client import CloudRuntimesClient
from ...database import ExecuteResult
from ..faces import Face
from ._base import Suite

__all__ = ["CREATE", "SLOW", "DatabaseTable"]

# some seconds of work for a database, that nobody waits for here
SLOW: Final = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 100000000) SELECT count(*) AS n FROM t"
)
CREATE: Final = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, qty INTEGER NOT NULL CHECK (qty >= 0))"


class DatabaseTable(Suite):
    """Base of the parts."""

    service = "database"

    @pytest.fixture
    def items(self, client: CloudRuntimesClient, face: Face, store: str) -> str:
        """A table with two rows."""
        face.call(client.database, "execute", store, CREATE)
        for number, name in ((1, "bolt"), (2, "nut")):
            self.add(client, face, store, number, name, number * 10)
        return store

    @staticmethod
    def add(
        client: CloudRuntimesClient, face: Face, store: str, number: int, name: str | None, qty: int
    ) -> ExecuteResult:
        """Insert a row by SQL."""
        result: ExecuteResult = face.call(
            client.database,
            "execute",
            store,
            "INSERT INTO item (id, name, qty) VALUES (:id, :name, :qty)",
            {"id": number, "name": name, "qty": qty},
        )
        return result

    @staticmethod
    def count(client: CloudRuntimesClient, face: Face, store: str) -> int:
        """Count the rows."""
        found: list[int] = face.call(client.database, "query", store, "SELECT count(*) FROM item", type=int)
        return found[0]
