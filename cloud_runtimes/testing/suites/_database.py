"""What the parts of the suite of a `DatabaseDriver` share: a table, and how rows come into it."""

from __future__ import annotations

from typing import Final

import pytest

from ...database import ExecuteResult
from ._base import Call, Suite

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
    def items(self, call: Call, store: str) -> str:
        """A table with two rows."""
        call("execute", CREATE)
        for number, name in ((1, "bolt"), (2, "nut")):
            self.add(call, number, name, number * 10)
        return store

    @staticmethod
    def add(call: Call, number: int, name: str | None, qty: int) -> ExecuteResult:
        """Insert a row by SQL."""
        row = {"id": number, "name": name, "qty": qty}
        result: ExecuteResult = call("execute", "INSERT INTO item (id, name, qty) VALUES (:id, :name, :qty)", row)
        return result

    @staticmethod
    def count(call: Call) -> int:
        """Count the rows."""
        found: list[int] = call("query", "SELECT count(*) FROM item", type=int)
        return found[0]
