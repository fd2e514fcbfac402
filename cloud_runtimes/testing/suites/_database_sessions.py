"""Conformance of a `DatabaseDriver`: transactions and streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ...client import CloudRuntimesClient
from ...database import Column, ExecuteResult
from ...errors import (
    ClosedError,
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
    UnsupportedError,
)
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call
from ._database import SLOW, DatabaseTable

__all__ = ["SessionTests"]


class _Steps:
    """Reading in the async face, for `Face.call`."""

    async def take_async(self, stream: Any, count: int | None) -> list[Any]:
        if count is None:
            return [row async for row in stream]
        return [await anext(stream) for _ in range(count)]


class SessionTests(DatabaseTable):
    """Transactions, streams, and what is not declared."""

    # -- transactions -----------------------------------------------------

    def test_not_declared_is_refused(self, call: Call, client: CloudRuntimesClient, store: str) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "transaction": lambda: client.database.transaction(store),
            "stream": lambda: client.database.stream(store, "SELECT 1"),
            "execute_many": lambda: call("execute_many", "SELECT 1", [{}]),
            "schema": lambda: call("tables"),
        }
        for feature, use in calls.items():
            if call.lacks(f"database.{feature}"):
                with pytest.raises(UnsupportedError):
                    use()
            else:
                use()
        if call.lacks("database.isolation") and not call.lacks("database.transaction"):
            with pytest.raises(UnsupportedError):
                client.database.transaction(store, "serializable")

    @requires("database.transaction")
    def test_a_transaction(self, call: Call, face: Face, items: str) -> None:
        with call.opened("transaction") as tx:
            face.call(tx, "execute", "UPDATE item SET qty = qty - :n WHERE id = 1", {"n": 3})
            face.call(tx, "execute", "UPDATE item SET qty = qty + :n WHERE id = 2", {"n": 3})
            assert face.call(tx, "query", "SELECT qty FROM item ORDER BY id", type=int) == [7, 23]
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [7, 23]
        face.fails(ClosedError, match="has ended")(tx, "query", "SELECT 1")

    @requires("database.transaction")
    def test_an_exception_rolls_back(self, call: Call, face: Face, items: str) -> None:
        with pytest.raises(ZeroDivisionError):
            with call.opened("transaction") as tx:
                face.call(tx, "execute", "DELETE FROM item")
                raise ZeroDivisionError
        assert self.count(call) == 2

    @requires("database.transaction")
    def test_a_failed_statement_ends_it(self, call: Call, face: Face, items: str) -> None:
        with pytest.raises(ClosedError, match="rolled back") as caught:
            with call.opened("transaction") as tx:
                face.call(tx, "execute", "DELETE FROM item WHERE id = 2")
                face.fails(ConflictError)(tx, "execute", "UPDATE item SET qty = -1")
                face.fails(ClosedError, match="rolled back")(tx, "query", "SELECT 1")
        assert caught.value.maybe_applied is False
        assert self.count(call) == 2

    @requires("database.transaction")
    def test_what_is_refused_before_any_io_does_not_end_it(self, call: Call, face: Face, items: str) -> None:
        with call.opened("transaction") as tx:
            for wrong in ("SELECT :a", "COMMIT", "SELECT 1; SELECT 2"):
                error = face.fails(InvalidArgumentError)(tx, "execute", wrong)
                assert error.component == items
            face.call(tx, "execute", "DELETE FROM item WHERE id = 1")
        assert self.count(call) == 1

    @requires("database.transaction")
    def test_a_timeout_rolls_back(self, call: Call, face: Face, items: str) -> None:
        with pytest.raises(DeadlineExceededError):
            with call.opened("transaction") as tx:
                face.call(tx, "execute", "DELETE FROM item")
                face.call(tx, "query", SLOW, timeout=0.2)
        assert self.count(call) == 2
        assert self.add(call, 3, "c", 1).rows_affected == 1

    @requires("database.transaction")
    def test_early_ends(self, call: Call, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with call.opened("transaction") as tx:
            face.call(tx, "execute", "DELETE FROM item WHERE id = 1")
            face.call(tx, "rollback")
            face.call(tx, "rollback")
        assert self.count(call) == 2
        with call.opened("transaction") as tx:
            face.call(tx, "execute", "DELETE FROM item WHERE id = 1")
            face.call(tx, "commit")
        assert self.count(call) == 1
        loose = client.database.transaction(items)  # begins with its first call
        face.call(loose, "execute", "DELETE FROM item")
        face.call(loose, "rollback")
        assert self.count(call) == 1

    @requires("database.transaction")
    def test_nothing_commits_that_was_not_asked(
        self, call: Call, client: CloudRuntimesClient, face: Face, items: str
    ) -> None:
        forgotten = client.database.transaction(items)
        face.call(forgotten, "execute", "DELETE FROM item")
        del forgotten
        assert self.count(call) == 2

    @requires("database.transaction")
    def test_closing_the_client_rolls_back(self, call: Call, face: Face, items: str, harness: Harness) -> None:
        if harness.name.endswith(":memory:"):
            return  # the data ends with the client
        second = harness.client()
        tx = second.database.transaction(items)
        face.call(tx, "execute", "DELETE FROM item")
        face.call(second, "close")
        face.fails(ClosedError)(tx, "query", "SELECT 1")
        assert self.count(call) == 2

    @requires("database.transaction", "database.isolation")
    @pytest.mark.parametrize("level", ["read-uncommitted", "read-committed", "repeatable-read", "serializable"])
    def test_isolation(self, call: Call, client: CloudRuntimesClient, face: Face, items: str, level: Any) -> None:
        with call.opened("transaction", level) as tx:
            assert face.call(tx, "query", "SELECT count(*) FROM item", type=int) == [2]
        with pytest.raises(InvalidArgumentError, match=f"isolation '{level.upper()}'"):
            client.database.transaction(items, level.upper())

    @requires("database.transaction")
    def test_transactions_at_once(self, call: Call, client: CloudRuntimesClient, face: Face, items: str) -> None:
        sql = "UPDATE item SET qty = qty + 1 WHERE id = 1"
        calls: list[Any] = [(client.database, "execute", (items, sql), {}) for _ in range(40)]
        assert all(isinstance(done, ExecuteResult) for done in face.together(calls))
        assert call("query", "SELECT qty FROM item WHERE id = 1", type=int) == [50]

    @requires("database.transaction", "database.schema")
    def test_everything_in_a_transaction(self, call: Call, face: Face) -> None:
        with call.opened("transaction") as tx:
            face.call(tx, "create_table", "a", {"id": Column(kind="integer", primary_key=True), "n": int})
            assert face.call(tx, "insert", "a", {"n": 5}) == ExecuteResult(1, 1)
            assert face.call(tx, "update", "a", {"n": 6}, {"id": 1}).rows_affected == 1
            assert face.call(tx, "execute_many", "INSERT INTO a (n) VALUES (:n)", [{"n": 1}]).rows_affected == 1
            assert face.call(tx, "execute_many", "INSERT INTO a (n) VALUES (:n)", []) == ExecuteResult(0)
            assert face.call(tx, "tables") == ["a"]
            assert [each.name for each in face.call(tx, "table_schema", "a").columns] == ["id", "n"]
            face.call(tx, "create_table", "b", {"id": int})
            face.call(tx, "drop_table", "b")
        assert call("tables") == ["a"]
        with pytest.raises(KeyError):
            with call.opened("transaction") as tx:
                face.call(tx, "drop_table", "a")
                raise KeyError
        assert call("query", "SELECT n FROM a ORDER BY id", type=int) == [6, 1]

    # -- streams ----------------------------------------------------------

    NUMBERS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < :n) SELECT x, 'r' AS r FROM t"

    @staticmethod
    def take(face: Face, stream: Any, count: int | None = None) -> list[Any]:
        """Read rows, all or so many."""
        if face.name == "sync":
            if count is None:
                return list(stream)
            return [next(stream) for _ in range(count)]

        result: list[Any] = face.call(_Steps(), "take", stream, count)
        return result

    @requires("database.stream")
    @pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 5000])
    def test_a_stream(self, call: Call, face: Face, count: int) -> None:
        sql = f"SELECT x FROM ({self.NUMBERS}) AS s WHERE x > 1 OR :n > 0"
        with call.opened("stream", sql, {"n": count}, type=int) as stream:
            expected = list(range(1, max(count, 1) + 1)) if count else []
            assert self.take(face, stream) == expected
            assert self.take(face, stream) == []
        with pytest.raises(ClosedError, match="closed"):
            self.take(face, stream)

    @requires("database.stream")
    def test_streams_without_a_block_and_left_early(
        self, call: Call, client: CloudRuntimesClient, face: Face, store: str
    ) -> None:
        for _ in range(30):  # more than there are connections
            stream = client.database.stream(store, self.NUMBERS, {"n": 5000})
            assert self.take(face, stream, 2) == [{"x": 1, "r": "r"}, {"x": 2, "r": "r"}]
            del stream
            with call.opened("stream", self.NUMBERS, {"n": 5000}, type=tuple[int, str]) as stream:
                assert self.take(face, stream, 1) == [(1, "r")]
        assert call("query", "SELECT 1 AS one") == [{"one": 1}]

    @requires("database.stream")
    def test_a_stream_that_fails(self, call: Call, client: CloudRuntimesClient, face: Face, items: str) -> None:
        for sql, error in (("SELECT nope FROM item", InvalidArgumentError), ("SELECT * FROM nope", NotFoundError)):
            stream = client.database.stream(items, sql)
            with pytest.raises(error) as caught:
                self.take(face, stream)
            assert caught.value.operation == "stream"
        stream = client.database.stream(items, "SELECT name FROM item", type=int)
        with pytest.raises(PayloadError, match="row 0"):
            self.take(face, stream)
        with pytest.raises(ClosedError):
            self.take(face, stream)
        stream = client.database.stream(items, SLOW, timeout=0.2)
        with pytest.raises(DeadlineExceededError):
            self.take(face, stream)
        assert self.count(call) == 2

    @requires("database.stream", "database.transaction")
    def test_a_stream_in_a_transaction(self, call: Call, face: Face, items: str) -> None:
        with call.opened("transaction") as tx:
            face.call(tx, "execute", "INSERT INTO item (id, qty) VALUES (3, 30)")
            with face.opened(tx.stream("SELECT qty FROM item ORDER BY id", type=int)) as stream:
                assert self.take(face, stream) == [10, 20, 30]
            left = tx.stream(self.NUMBERS, {"n": 5000}, type=tuple[int, str])
            assert self.take(face, left, 1) == [(1, "r")]
        with pytest.raises(CloudRuntimesError):
            self.take(face, left, 2000)
        assert self.count(call) == 3

    @requires("database.stream")
    def test_a_stream_that_writes(self, call: Call, client: CloudRuntimesClient, face: Face, items: str) -> None:
        sql = "UPDATE item SET qty = qty + 1 RETURNING qty"
        stream = client.database.stream(items, sql, type=int)
        assert sorted(self.take(face, stream)) == [11, 21]
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [11, 21]
        with call.opened("stream", sql, type=int) as stream:
            assert len(self.take(face, stream, 1)) == 1
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [11, 21]
