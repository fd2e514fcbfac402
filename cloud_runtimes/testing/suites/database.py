"""Conformance of a `DatabaseDriver`, through the service. The SQL is what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import pytest

from ...client import CloudRuntimesClient
from ...errors import ClosedError, NotFoundError
from ..faces import Face
from ..harness import Harness
from ._base import Call
from ._database_rows import StatementTests
from ._database_sessions import SessionTests
from ._database_tables import TableTests

__all__ = ["DatabaseSuite"]


class DatabaseSuite(StatementTests, SessionTests, TableTests):
    """Parameters, rows, transactions, streams, tables; what fails, what is interrupted, what is refused before any I/O."""

    def test_stores_are_apart(self, client: CloudRuntimesClient, face: Face, items: str, harness: Harness) -> None:
        other = harness.store("database")
        with pytest.raises(NotFoundError):
            self.count(Call(face, client, "database", other))

    def test_another_client_sees_it(
        self, client: CloudRuntimesClient, face: Face, items: str, harness: Harness
    ) -> None:
        second = harness.client()
        if harness.name.endswith(":memory:"):
            with pytest.raises(NotFoundError):  # one database per client
                self.count(Call(face, second, "database", items))
        else:
            assert self.count(Call(face, second, "database", items)) == 2

    def test_a_closed_client(self, face: Face, items: str, harness: Harness) -> None:
        second = harness.client()
        face.call(second.database, "query", items, "SELECT 1 AS one")
        face.call(second, "close")
        face.fails(ClosedError)(second.database, "query", items, "SELECT 1 AS one")
