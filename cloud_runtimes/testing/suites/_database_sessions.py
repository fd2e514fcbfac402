"""Conformance of a `DatabaseDriver`: transactions and streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

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
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call, Suite

# some seconds of work for a database, that nobody waits for here
SLOW: Final = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 100000000) SELECT count(*) AS n FROM t"
)
CREATE: Final = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, qty INTEGER NOT NULL CHECK (qty >= 0))"


class SessionTests(Suite):
    """Transactions, streams, and what is not declared."""

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
        rows: list[int] = call("query", "SELECT count(*) FROM item", type=int)
        return rows[0]

    def test_not_declared_is_refused(self, call: Call) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "transaction": lambda: call.plain("transaction"),
            "stream": lambda: call.plain("stream", "SELECT 1"),
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
                call.plain("transaction", "serializable")

    # -- transactions ---------------------------------------------------------

    @requires("database.transaction")
    def test_a_transaction(self, call: Call, api: Api, items: str) -> None:
        with call.opened("transaction") as tx:
            api.call(tx, "execute", "UPDATE item SET qty = qty - :n WHERE id = 1", {"n": 3})
            api.call(tx, "execute", "UPDATE item SET qty = qty + :n WHERE id = 2", {"n": 3})
            assert api.call(tx, "query", "SELECT qty FROM item ORDER BY id", type=int) == [7, 23]
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [7, 23]
        api.fails(ClosedError, match="has ended")(tx, "query", "SELECT 1")

    @requires("database.transaction")
    def test_an_exception_rolls_back(self, call: Call, api: Api, items: str) -> None:
        with pytest.raises(ZeroDivisionError):
            with call.opened("transaction") as tx:
                api.call(tx, "execute", "DELETE FROM item")
                raise ZeroDivisionError
        assert self.count(call) == 2

    @requires("database.transaction")
    def test_a_failed_statement_ends_it(self, call: Call, api: Api, items: str) -> None:
        with pytest.raises(ClosedError, match="rolled back") as caught:
            with call.opened("transaction") as tx:
                api.call(tx, "execute", "DELETE FROM item WHERE id = 2")
                api.fails(ConflictError)(tx, "execute", "UPDATE item SET qty = -1")
                api.fails(ClosedError, match="rolled back")(tx, "query", "SELECT 1")
        assert caught.value.maybe_applied is False
        assert self.count(call) == 2

    @requires("database.transaction")
    def test_what_is_refused_before_any_io_does_not_end_it(self, call: Call, api: Api, items: str) -> None:
        with call.opened("transaction") as tx:
            for wrong in ("SELECT :a", "COMMIT", "SELECT 1; SELECT 2"):
                error = api.fails(InvalidArgumentError)(tx, "execute", wrong)
                assert error.component == items
            api.call(tx, "execute", "DELETE FROM item WHERE id = 1")
        assert self.count(call) == 1

    @requires("database.transaction")
    def test_a_timeout_rolls_back(self, call: Call, api: Api, items: str) -> None:
        with pytest.raises(DeadlineExceededError):
            with call.opened("transaction") as tx:
                api.call(tx, "execute", "DELETE FROM item")
                api.call(tx, "query", SLOW, timeout=0.2)
        assert self.count(call) == 2
        assert self.add(call, 3, "c", 1).rows_affected == 1

    @requires("database.transaction")
    def test_early_ends(self, call: Call, api: Api, items: str) -> None:
        with call.opened("transaction") as tx:
            api.call(tx, "execute", "DELETE FROM item WHERE id = 1")
            api.call(tx, "rollback")
            api.call(tx, "rollback")
        assert self.count(call) == 2
        with call.opened("transaction") as tx:
            api.call(tx, "execute", "DELETE FROM item WHERE id = 1")
            api.call(tx, "commit")
        assert self.count(call) == 1
        loose = call.plain("transaction")  # begins with its first call
        api.call(loose, "execute", "DELETE FROM item")
        api.call(loose, "rollback")
        assert self.count(call) == 1

    @requires("database.transaction")
    def test_nothing_commits_that_was_not_asked(self, call: Call, api: Api, items: str) -> None:
        forgotten = call.plain("transaction")
        api.call(forgotten, "execute", "DELETE FROM item")
        del forgotten
        assert self.count(call) == 2

    @requires("database.transaction")
    def test_closing_the_client_rolls_back(self, call: Call, api: Api, items: str, harness: Harness) -> None:
        if harness.name.endswith(":memory:"):
            return  # the data ends with the client
        second = harness.client()
        tx = call.on(second).plain("transaction")
        api.call(tx, "execute", "DELETE FROM item")
        api.call(second, "close")
        api.fails(ClosedError)(tx, "query", "SELECT 1")
        assert self.count(call) == 2

    @requires("database.transaction", "database.isolation")
    def test_isolation(self, call: Call, api: Api, items: str, subtests: pytest.Subtests) -> None:
        for level in ("read-uncommitted", "read-committed", "repeatable-read", "serializable"):
            with subtests.test(level):
                with call.opened("transaction", level) as tx:
                    assert api.call(tx, "query", "SELECT count(*) FROM item", type=int) == [2]
                with pytest.raises(InvalidArgumentError, match=f"isolation '{level.upper()}'"):
                    call.plain("transaction", level.upper())

    @requires("database.transaction")
    def test_transactions_at_once(self, call: Call, items: str) -> None:
        done = call.together(*[("execute", "UPDATE item SET qty = qty + 1 WHERE id = 1")] * 40)
        assert all(isinstance(each, ExecuteResult) for each in done)
        assert call("query", "SELECT qty FROM item WHERE id = 1", type=int) == [50]

    @requires("database.transaction", "database.schema")
    def test_everything_in_a_transaction(self, call: Call, api: Api) -> None:
        with call.opened("transaction") as tx:
            api.call(tx, "create_table", "a", {"id": Column(kind="integer", primary_key=True), "n": int})
            assert api.call(tx, "insert", "a", {"n": 5}) == ExecuteResult(1, 1)
            assert api.call(tx, "update", "a", {"n": 6}, {"id": 1}).rows_affected == 1
            assert api.call(tx, "execute_many", "INSERT INTO a (n) VALUES (:n)", [{"n": 1}]).rows_affected == 1
            assert api.call(tx, "execute_many", "INSERT INTO a (n) VALUES (:n)", []) == ExecuteResult(0)
            assert api.call(tx, "tables") == ["a"]
            assert [each.name for each in api.call(tx, "table_schema", "a").columns] == ["id", "n"]
            api.call(tx, "create_table", "b", {"id": int})
            api.call(tx, "drop_table", "b")
        assert call("tables") == ["a"]
        with pytest.raises(KeyError):
            with call.opened("transaction") as tx:
                api.call(tx, "drop_table", "a")
                raise KeyError
        assert call("query", "SELECT n FROM a ORDER BY id", type=int) == [6, 1]

    # -- streams --------------------------------------------------------------

    NUMBERS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < :n) SELECT x, 'r' AS r FROM t"

    @requires("database.stream")
    def test_a_stream(self, call: Call, api: Api, subtests: pytest.Subtests) -> None:
        sql = f"SELECT x FROM ({self.NUMBERS}) AS s WHERE x > 1 OR :n > 0"
        for count in (0, 1, 999, 1000, 1001, 5000):
            with subtests.test(count=count):
                with call.opened("stream", sql, {"n": count}, type=int) as stream:
                    expected = list(range(1, max(count, 1) + 1)) if count else []
                    assert api.take(stream) == expected
                    assert api.take(stream) == []
                with pytest.raises(ClosedError, match="closed"):
                    api.take(stream)

    @requires("database.stream")
    def test_streams_without_a_block_and_left_early(self, call: Call, api: Api) -> None:
        for _ in range(30):  # more than there are connections
            stream = call.plain("stream", self.NUMBERS, {"n": 5000})
            assert api.take(stream, 2) == [{"x": 1, "r": "r"}, {"x": 2, "r": "r"}]
            del stream
            with call.opened("stream", self.NUMBERS, {"n": 5000}, type=tuple[int, str]) as stream:
                assert api.take(stream, 1) == [(1, "r")]
        assert call("query", "SELECT 1 AS one") == [{"one": 1}]

    @requires("database.stream")
    def test_a_stream_that_fails(self, call: Call, api: Api, items: str) -> None:
        for sql, error in (("SELECT nope FROM item", InvalidArgumentError), ("SELECT * FROM nope", NotFoundError)):
            stream = call.plain("stream", sql)
            with pytest.raises(error) as caught:
                api.take(stream)
            assert caught.value.operation == "stream"
        stream = call.plain("stream", "SELECT name FROM item", type=int)
        with pytest.raises(PayloadError, match="row 0"):
            api.take(stream)
        with pytest.raises(ClosedError):
            api.take(stream)
        stream = call.plain("stream", SLOW, timeout=0.2)
        with pytest.raises(DeadlineExceededError):
            api.take(stream)
        assert self.count(call) == 2

    @requires("database.stream")
    def test_a_stream_that_writes(self, call: Call, api: Api, items: str) -> None:
        sql = "UPDATE item SET qty = qty + 1 RETURNING qty"
        stream = call.plain("stream", sql, type=int)
        assert sorted(api.take(stream)) == [11, 21]
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [11, 21]
        with call.opened("stream", sql, type=int) as stream:
            assert len(api.take(stream, 1)) == 1
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [11, 21]

    @requires("database.stream", "database.transaction")
    def test_a_stream_in_a_transaction(self, call: Call, api: Api, items: str) -> None:
        with call.opened("transaction") as tx:
            api.call(tx, "execute", "INSERT INTO item (id, qty) VALUES (3, 30)")
            with api.opened(tx.stream("SELECT qty FROM item ORDER BY id", type=int)) as stream:
                assert api.take(stream) == [10, 20, 30]
            numbers = tx.stream(self.NUMBERS, {"n": 5000}, type=tuple[int, str])
            assert api.take(numbers, 1) == [(1, "r")]
        with pytest.raises(CloudRuntimesError):
            api.take(numbers, 2000)
        assert self.count(call) == 3
