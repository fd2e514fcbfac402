"""Conformance of a `DatabaseDriver`: one statement, its parameters, its rows, its errors."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict

import pytest

from ...client import CloudRuntimesClient
from ...database import Column, ExecuteResult, Row
from ...errors import (
    AlreadyExistsError,
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    PayloadError,
)
from ..faces import Face
from ..harness import Harness, requires
from ._base import Call
from ._database import CREATE, SLOW, DatabaseTable

__all__ = ["StatementTests"]


@dataclass
class Item:
    """A typed row."""

    id: int
    name: str
    qty: int


class ItemDict(TypedDict):
    """Another."""

    id: int
    name: str
    qty: int


class ItemTuple(NamedTuple):
    """Another."""

    id: int
    name: str
    qty: int


@dataclass
class Everything:
    """One of each kind of column."""

    id: int
    yes: bool
    number: int
    real: float
    exact: Decimal
    text: str
    data: bytes
    day: datetime.date
    clock: datetime.time
    moment: datetime.datetime
    unique_id: uuid.UUID
    document: dict[str, Any]
    nothing: str | None


class StatementTests(DatabaseTable):
    """Parameters, rows, what fails, what is refused before any I/O."""

    # -- rows -------------------------------------------------------------

    def test_rows(self, call: Call, items: str) -> None:
        rows = call("query", "SELECT id, name, qty FROM item ORDER BY id")
        assert rows == [{"id": 1, "name": "bolt", "qty": 10}, {"id": 2, "name": "nut", "qty": 20}]
        assert all(isinstance(row, Row) for row in rows)
        assert (rows[0].name, rows[0]["qty"], list(rows[0]), len(rows[0])) == ("bolt", 10, ["id", "name", "qty"], 3)
        with pytest.raises(AttributeError, match="no column 'colour'; it has id, name, qty"):
            rows[0].colour  # noqa: B018
        assert call("query", "SELECT id FROM item WHERE id = :id", {"id": 9}) == []

    def test_typed_rows(self, call: Call, items: str) -> None:
        def get(type: Any, columns: str = "id, name, qty") -> Any:
            return call("query", f"SELECT {columns} FROM item WHERE id = :id", {"id": 1}, type=type)

        assert get(Item) == [Item(1, "bolt", 10)]
        assert get(ItemDict) == [{"id": 1, "name": "bolt", "qty": 10}]
        assert type(get(ItemDict)[0]) is dict
        assert get(ItemTuple) == [ItemTuple(1, "bolt", 10)]
        assert get(dict[str, Any]) == [{"id": 1, "name": "bolt", "qty": 10}]
        assert get(tuple[int, str, int]) == [(1, "bolt", 10)]
        assert get(int, "qty") == [10]
        assert get(str | None, "name") == ["bolt"]
        with pytest.raises(PayloadError, match=r"row 0: \$\.qty: expected int, got str"):
            get(Item, "id, name, 'many' AS qty")
        with pytest.raises(PayloadError, match="row 0"):
            get(Item, "id, name")
        with pytest.raises(InvalidArgumentError, match="made of one column, and the rows have 3"):
            get(int)

    def test_pydantic(self, call: Call, items: str) -> None:
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Model", id=(int, ...), name=(str, ...), qty=(int, ...))
        found = call("query", "SELECT * FROM item WHERE id = 2", type=model)
        assert found == [model(id=2, name="nut", qty=20)]

    def test_two_columns_of_one_name(self, call: Call, items: str) -> None:
        call.fails(InvalidArgumentError, match="several columns are named id")(
            "query", "SELECT a.id, b.id FROM item a, item b"
        )

    @requires("database.schema")
    def test_every_kind_of_column(self, call: Call) -> None:
        columns = {
            "id": Column(kind="integer", primary_key=True),
            "yes": bool,
            "number": int,
            "real": float,
            "exact": Decimal,
            "text": str,
            "data": bytes,
            "day": datetime.date,
            "clock": datetime.time,
            "moment": datetime.datetime,
            "unique_id": uuid.UUID,
            "document": dict,
            "nothing": "text",
        }
        call("create_table", "everything", columns)
        row = Everything(
            1,
            True,
            2**62 + 1,
            0.1,
            Decimal("123456789012345678.000000001"),
            "it's :not %s \\ a 'parameter' ünïcødé 🎉",
            b"\x00\xff'\";--",
            datetime.date(2024, 2, 29),
            datetime.time(23, 59, 58, 7),
            datetime.datetime(2024, 2, 29, 12, 30, 1, 5, datetime.UTC),
            uuid.UUID(int=7),
            {"a": [1, None, "x"], "b": {"c": 0.5}},
            None,
        )
        call("insert", "everything", vars(row))
        got = call("query", "SELECT * FROM everything", type=Everything)
        assert got == [row]
        assert call("update", "everything", {"text": "x"}, {"yes": True}).rows_affected == 1
        assert call("query", "SELECT text FROM everything", type=str) == ["x"]

    # -- texts and parameters ---------------------------------------------

    @pytest.mark.parametrize(
        ("sql", "expected"),
        [
            ("SELECT ':no' AS v", ":no"),
            ("SELECT '10:30:00' AS v", "10:30:00"),
            ("SELECT 'it''s :x' AS v -- :comment", "it's :x"),
            ("SELECT /* :comment; */ 'a;b' AS v;", "a;b"),
            ("SELECT 'percent %s %(x)s %' AS v", "percent %s %(x)s %"),
            ("SELECT '\\:v' AS v", "\\:v"),
            ("SELECT 'a' AS v ; -- the end", "a"),
        ],
    )
    def test_colons_that_are_no_parameters(self, call: Call, sql: str, expected: str) -> None:
        assert call("query", sql) == [{"v": expected}]

    def test_a_parameter_twice(self, call: Call, items: str) -> None:
        found = call("query", "SELECT id FROM item WHERE id = :n OR qty = :n * 20 ORDER BY id", {"n": 1})
        assert found == [{"id": 1}, {"id": 2}]

    @pytest.mark.parametrize(
        ("sql", "params", "message"),
        [
            ("SELECT :a", None, "no value for :a"),
            ("SELECT :a, :b", {"a": 1}, "no value for :b"),
            ("SELECT 1", {"a": 1}, "has no :a"),
            ("SELECT :a", {"a": 1, "b": 2}, "has no :b; it has :a"),
            ("SELECT :a", [1], "params must be a mapping"),
            ("SELECT :a", {"a": object()}, "'a': a value of type object"),
            ("SELECT :a", {"a": float("nan")}, "NaN"),
            ("SELECT :a", {"a": "\ud800"}, "lone surrogate"),
            ("SELECT 1; SELECT 2", None, "more than one statement"),
            ("SELECT 1; DROP TABLE item", None, "more than one statement"),
            ("SELECT 'open", None, "has no end"),
            ("SELECT /* open", None, "has no end"),
            ("", None, "empty"),
            (" -- nothing", None, "empty"),
            ("BEGIN", None, "transaction()"),
            ("COMMIT", None, "transaction()"),
            ("rollback", None, "transaction()"),
            ("/* x */ SAVEPOINT a", None, "transaction()"),
            (5, None, "sql must be str"),
            ("SELECT '\0'", None, "NUL"),
        ],
    )
    def test_refused_before_any_io(
        self, client: CloudRuntimesClient, face: Face, store: str, sql: Any, params: Any, message: str
    ) -> None:
        for name in ("query", "execute"):
            error = face.fails(InvalidArgumentError)(client.database, name, store, sql, params)
            assert message in str(error)
            assert (error.service, error.operation, error.component) == ("database", name, store)

    # -- writing ----------------------------------------------------------

    def test_execute(self, call: Call, items: str) -> None:
        assert self.add(call, 3, "screw", 5).rows_affected == 1
        done = call("execute", "UPDATE item SET qty = qty + :n", {"n": 1})
        assert done.rows_affected == 3
        done = call("execute", "DELETE FROM item WHERE qty > :n", {"n": 20})
        assert done == ExecuteResult(1)
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [11, 6]

    def test_a_query_that_writes_is_committed(self, call: Call, items: str, harness: Harness) -> None:
        sql = "INSERT INTO item (id, name, qty) VALUES (7, 'pin', 1) RETURNING id"
        assert call("query", sql, type=int) == [7]
        assert call("execute", sql.replace("7", "8").replace("pin", "pan")).rows_affected == 1
        assert self.count(call) == 4

    @requires("database.execute_many")
    def test_execute_many(self, call: Call, items: str) -> None:
        sql = "INSERT INTO item (id, name, qty) VALUES (:id, :name, :qty)"
        rows = [{"id": number, "name": f"n{number}", "qty": number} for number in range(10, 510)]
        assert call("execute_many", sql, iter(rows)).rows_affected == 500
        assert self.count(call) == 502
        assert call("execute_many", sql, []) == ExecuteResult(0)
        # all or none
        bad = [{"id": 900, "name": "x", "qty": 1}, {"id": 901, "name": "bolt", "qty": 1}]
        call.fails(AlreadyExistsError)("execute_many", sql, bad)
        for wrong, message in (
            ([{"id": 1}], "of row 0: no value for :name, :qty"),
            ([*rows[:1], {**rows[0], "more": 1}], "of row 1: the statement has no :more"),
            ({"id": 1}, "iterable of mappings"),
            (5, "iterable of mappings"),
        ):
            call.fails(InvalidArgumentError, match=message)("execute_many", sql, wrong)
        assert self.count(call) == 502

    # -- errors -----------------------------------------------------------

    def test_errors(self, call: Call, client: CloudRuntimesClient, face: Face, items: str, harness: Harness) -> None:
        secret = "canary-1234"
        insert = "INSERT INTO item (id, name, qty) VALUES (:id, :name, :qty)"
        cases: list[tuple[type[CloudRuntimesError], str, Any]] = [
            (AlreadyExistsError, insert, {"id": 1, "name": secret, "qty": 1}),
            (AlreadyExistsError, insert, {"id": 99, "name": "bolt", "qty": 1}),
            (ConflictError, insert, {"id": 99, "name": secret, "qty": -1}),
            (ConflictError, insert, {"id": 99, "name": secret, "qty": None}),
            (NotFoundError, "SELECT * FROM no_such_table WHERE name = :name", {"name": secret}),
            (InvalidArgumentError, "SELECT no_such_column FROM item WHERE name = :name", {"name": secret}),
            (InvalidArgumentError, "SELEC 1 FROM item WHERE name = :name", {"name": secret}),
            (AlreadyExistsError, CREATE, None),
        ]
        for expected, sql, params in cases:
            rowless = sql.startswith(("INSERT", "CREATE", "SELEC "))
            for name in ("execute",) if rowless and harness.refuses_rowless else ("execute", "query"):
                error = face.fails(expected)(client.database, name, items, sql, params)
                assert type(error) is expected
                assert secret not in str(error)
                assert error.maybe_applied is False
                assert error.component == items
                assert error.__cause__ is not None
                assert secret not in str(error.__cause__).partition("DETAIL")[0]
        call.fails(InvalidArgumentError, match=r"use execute\(\)")("query", "UPDATE item SET qty = 5")
        assert self.count(call) == 2
        assert call("query", "SELECT qty FROM item WHERE id = 1", type=int) == [10]

    def test_a_foreign_key(self, call: Call, items: str) -> None:
        call("execute", "CREATE TABLE part (item INTEGER REFERENCES item (id))")
        call.fails(ConflictError)("execute", "INSERT INTO part (item) VALUES (77)")
        call("execute", "INSERT INTO part (item) VALUES (1)")
        call.fails(ConflictError)("execute", "DELETE FROM item")

    @requires("database.cancel")
    def test_a_timeout_ends_the_work(self, call: Call, items: str) -> None:
        caught = call.fails(DeadlineExceededError)("query", SLOW, timeout=0.2)
        assert caught.maybe_applied is False
        caught = call.fails(DeadlineExceededError)(
            "execute", f"INSERT INTO item (id, qty) {SLOW.replace('AS n', ', 9')}", timeout=0.2
        )
        assert caught.maybe_applied is False
        # nothing of it is left, and the writer's turn is free
        assert self.add(call, 3, "c", 1).rows_affected == 1
        assert self.count(call) == 3

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"])
    def test_wrong_timeouts(self, call: Call, client: CloudRuntimesClient, store: str, timeout: Any) -> None:
        call.fails(InvalidArgumentError, match="timeout")("query", "SELECT 1", timeout=timeout)
        if call.lacks("database.stream"):
            return
        with pytest.raises(InvalidArgumentError, match="timeout"):
            client.database.stream(store, "SELECT 1", timeout=timeout)
