"""Conformance of a `DatabaseDriver`, through the service. The SQL is what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import datetime
import random
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, get_type_hints

import pytest

from ...database import Column, ExecuteResult, Row
from ...errors import (
    AlreadyExistsError,
    ClosedError,
    CloudRuntimesError,
    ConflictError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
)
from ..apis import Api
from ..harness import Harness, requires
from ._base import Call
from ._database_sessions import CREATE, SLOW, SessionTests


@dataclass
class Everything:
    """A column of each kind."""

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


def injections() -> list[str]:
    """500 hostile strings, the same in every run."""
    # fmt: off
    seeds = [
        "item; DROP TABLE item", "item; DROP TABLE item; --", 'item"; DROP TABLE item; --',
        "item'; DROP TABLE item; --", "item`; DROP TABLE item; --", "item]; DROP TABLE item; --", "x' OR '1'='1",
        'x" OR "1"="1', "1 OR 1=1", "item WHERE 1=1 --", "item UNION SELECT name FROM sqlite_master",
        "(SELECT pg_sleep(10))", "item/**/WHERE/**/1=1", "\\'; DROP TABLE item; --", "''; DROP TABLE item; --", '""',
        "item\0", "item\n; DROP TABLE item", "name) VALUES ('x'); DROP TABLE item; --", "name = name --", ":name",
        "%(name)s", "%s", "?", "$1", "{}", "{0.__class__}", "$$; DROP TABLE item; $$", "E'\\''; DROP TABLE item",
        "item\u2019; DROP TABLE item", "\uff07; DROP TABLE item", "item\u037e DROP TABLE item", "a.b.c", "..",
        "pg_catalog.pg_class.x", " ", "", "1st", "a-b", "x" * 64,
    ]
    # fmt: on
    chance = random.Random(20)
    # fmt: off
    pieces = [
        "'", '"', "`", ";", "--", "/*", "*/", "DROP TABLE item", " ", "\\", "(", ")", "1=1", "OR", "::", ":", "%",
        "\t",
    ]
    # fmt: on
    while len(seeds) < 500:
        name = "".join(chance.choice(pieces) for _ in range(chance.randint(2, 8)))
        if not name.isidentifier():
            seeds.append(name)
    return seeds


class DatabaseSuite(SessionTests):
    """Parameters, rows, transactions, streams, tables; what fails, what is interrupted."""

    # -- rows -----------------------------------------------------------------

    def test_rows(self, call: Call, items: str) -> None:
        rows = call("query", "SELECT id, name, qty FROM item ORDER BY id")
        assert rows == [{"id": 1, "name": "bolt", "qty": 10}, {"id": 2, "name": "nut", "qty": 20}]
        assert all(isinstance(row, Row) for row in rows)
        assert (rows[0].name, rows[0]["qty"], list(rows[0]), len(rows[0])) == ("bolt", 10, ["id", "name", "qty"], 3)
        with pytest.raises(AttributeError, match="no column 'colour'; it has id, name, qty"):
            rows[0].colour  # noqa: B018
        assert call("query", "SELECT id FROM item WHERE id = :id", {"id": 9}) == []

    def test_two_columns_of_one_name(self, call: Call, items: str) -> None:
        call.fails(InvalidArgumentError, match="several columns are named id")(
            "query", "SELECT a.id, b.id FROM item a, item b"
        )

    @requires("database.schema")
    def test_every_kind_of_column(self, call: Call) -> None:
        key = Column(kind="integer", primary_key=True)
        columns = get_type_hints(Everything) | {"id": key, "document": dict, "nothing": "text"}
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

    def test_colons_that_are_no_parameters(self, call: Call, subtests: pytest.Subtests) -> None:
        for sql, expected in (
            ("SELECT ':no' AS v", ":no"),
            ("SELECT '10:30:00' AS v", "10:30:00"),
            ("SELECT 'it''s :x' AS v -- :comment", "it's :x"),
            ("SELECT /* :comment; */ 'a;b' AS v;", "a;b"),
            ("SELECT 'percent %s %(x)s %' AS v", "percent %s %(x)s %"),
            ("SELECT '\\:v' AS v", "\\:v"),
            ("SELECT 'a' AS v ; -- the end", "a"),
        ):
            with subtests.test(sql):
                assert call("query", sql) == [{"v": expected}]

    def test_a_parameter_twice(self, call: Call, items: str) -> None:
        rows = call("query", "SELECT id FROM item WHERE id = :n OR qty = :n * 20 ORDER BY id", {"n": 1})
        assert rows == [{"id": 1}, {"id": 2}]

    # -- writing --------------------------------------------------------------

    def test_execute(self, call: Call, items: str) -> None:
        assert self.add(call, 3, "screw", 5).rows_affected == 1
        done = call("execute", "UPDATE item SET qty = qty + :n", {"n": 1})
        assert done.rows_affected == 3
        done = call("execute", "DELETE FROM item WHERE qty > :n", {"n": 20})
        assert done == ExecuteResult(1)
        assert call("query", "SELECT qty FROM item ORDER BY id", type=int) == [11, 6]

    def test_a_query_that_writes_is_committed(self, call: Call, items: str) -> None:
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

    # -- errors ---------------------------------------------------------------

    def test_errors(self, call: Call, items: str, harness: Harness) -> None:
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
                error = call.fails(expected)(name, sql, params)
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

    def test_stores_and_clients(self, call: Call, api: Api, items: str, harness: Harness) -> None:
        with pytest.raises(NotFoundError):
            self.count(call.on(store=harness.store("database")))
        second = harness.client()
        if harness.name.endswith(":memory:"):
            with pytest.raises(NotFoundError):  # one database per client
                self.count(call.on(second))
        else:
            assert self.count(call.on(second)) == 2
        api.call(second, "close")
        call.on(second).fails(ClosedError)("query", "SELECT 1 AS one")

    # -- tables ---------------------------------------------------------------

    @requires("database.schema")
    def test_tables(self, call: Call) -> None:
        assert call("tables") == []
        columns = {
            "id": Column(kind="integer", primary_key=True),
            "name": Column(kind="text", nullable=False, unique=True),
            "select": "float",
            "MixedCase": int,
        }
        call("create_table", "order", columns)
        assert call("tables") == ["order"]
        schema = call("table_schema", "order")
        assert schema.name == "order"
        assert [each.name for each in schema.columns] == list(columns)
        assert [each.nullable for each in schema.columns] == [False, False, True, True]
        assert [each.primary_key for each in schema.columns] == [True, False, False, False]
        call.fails(AlreadyExistsError)("create_table", "order", columns)
        values = {"name": "a", "select": 0.5, "MixedCase": 1}
        assert call("insert", "order", values) == ExecuteResult(1, 1)
        assert call("insert", "order", {"name": "b", "select": None}) == ExecuteResult(1, 2)
        call.fails(AlreadyExistsError)("insert", "order", values)
        call.fails(ConflictError)("insert", "order", {"name": None})
        assert call("update", "order", {"name": "c"}, {"select": None}) == ExecuteResult(1)
        assert call("update", "order", {"name": "d"}, {"id": 2, "select": 1.0}).rows_affected == 0
        assert call("update", "order", {"id": 5}, {"id": 2}) == ExecuteResult(1)
        rows = call("query", 'SELECT name, "MixedCase" AS n FROM "order" ORDER BY id')
        assert rows == [{"name": "a", "n": 1}, {"name": "c", "n": None}]
        call("drop_table", "order")
        call("drop_table", "order")
        assert call("tables") == []
        for use in (("table_schema", "order"), ("insert", "order", {"a": 1}), ("update", "order", {"a": 1}, {"a": 2})):
            call.fails(NotFoundError)(*use)

    @requires("database.schema")
    def test_hostile_values_are_values(self, call: Call, api: Api, items: str) -> None:
        kept = sorted({hostile for hostile in injections() if "\0" not in hostile})
        with call.opened("transaction") as tx:
            for number, hostile in enumerate(kept):
                api.call(tx, "insert", "item", {"id": 100 + number, "name": hostile, "qty": 1})
                api.call(tx, "update", "item", {"qty": 2}, {"name": hostile})
        assert sorted(call("query", "SELECT name FROM item WHERE qty = 2", type=str)) == kept
        for number, hostile in enumerate(kept):
            assert call("query", "SELECT id FROM item WHERE name = :name", {"name": hostile}, type=int) == [
                100 + number
            ]
        assert call("tables") == ["item"]
        assert self.count(call) == len(kept) + 2
