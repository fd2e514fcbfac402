"""Conformance of a `DatabaseDriver`, through the service. The SQL is what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypedDict

import pytest

from ...client import CloudRuntimesClient
from ...database import Column, ExecuteResult, Row
from ...errors import (
    AlreadyExistsError,
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
from ._base import Suite

__all__ = ["DatabaseSuite"]

# some seconds of work for a database, that nobody waits for here
SLOW: Final = (
    "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 100000000) SELECT count(*) AS n FROM t"
)
CREATE: Final = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, qty INTEGER NOT NULL CHECK (qty >= 0))"


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


def injections() -> list[str]:
    """500 hostile strings, the same in every run."""
    seeds = [
        "item; DROP TABLE item",
        "item; DROP TABLE item; --",
        'item"; DROP TABLE item; --',
        "item'; DROP TABLE item; --",
        "item`; DROP TABLE item; --",
        "item]; DROP TABLE item; --",
        "x' OR '1'='1",
        'x" OR "1"="1',
        "1 OR 1=1",
        "item WHERE 1=1 --",
        "item UNION SELECT name FROM sqlite_master",
        "(SELECT pg_sleep(10))",
        "item/**/WHERE/**/1=1",
        "\\'; DROP TABLE item; --",
        "''; DROP TABLE item; --",
        '""',
        "item\0",
        "item\n; DROP TABLE item",
        "name) VALUES ('x'); DROP TABLE item; --",
        "name = name --",
        ":name",
        "%(name)s",
        "%s",
        "?",
        "$1",
        "{}",
        "{0.__class__}",
        "$$; DROP TABLE item; $$",
        "E'\\''; DROP TABLE item",
        "item\u2019; DROP TABLE item",
        "\uff07; DROP TABLE item",
        "item\u037e DROP TABLE item",
        "a.b.c",
        "..",
        "pg_catalog.pg_class.x",
        " ",
        "",
        "1st",
        "a-b",
        "x" * 64,
    ]
    chance = random.Random(20)
    pieces = [
        "'",
        '"',
        "`",
        ";",
        "--",
        "/*",
        "*/",
        "DROP TABLE item",
        " ",
        "\\",
        "(",
        ")",
        "1=1",
        "OR",
        "::",
        ":",
        "%",
        "\t",
    ]
    while len(seeds) < 500:
        made = "".join(chance.choice(pieces) for _ in range(chance.randint(2, 8)))
        if not made.isidentifier():
            seeds.append(made)
    return seeds


class _Steps:
    """Reading in the async face, for `Face.call`."""

    async def take_async(self, stream: Any, count: int | None) -> list[Any]:
        if count is None:
            return [row async for row in stream]
        return [await anext(stream) for _ in range(count)]


class DatabaseSuite(Suite):
    """Parameters, rows, transactions, streams, tables; what fails, what is interrupted, what is refused before any I/O."""

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

    # -- rows -------------------------------------------------------------

    def test_rows(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        rows = face.call(client.database, "query", items, "SELECT id, name, qty FROM item ORDER BY id")
        assert rows == [{"id": 1, "name": "bolt", "qty": 10}, {"id": 2, "name": "nut", "qty": 20}]
        assert all(isinstance(row, Row) for row in rows)
        assert (rows[0].name, rows[0]["qty"], list(rows[0]), len(rows[0])) == ("bolt", 10, ["id", "name", "qty"], 3)
        with pytest.raises(AttributeError, match="no column 'colour'; it has id, name, qty"):
            rows[0].colour  # noqa: B018
        assert face.call(client.database, "query", items, "SELECT id FROM item WHERE id = :id", {"id": 9}) == []

    def test_typed_rows(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        def get(type: Any, columns: str = "id, name, qty") -> Any:
            return face.call(
                client.database, "query", items, f"SELECT {columns} FROM item WHERE id = :id", {"id": 1}, type=type
            )

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

    def test_pydantic(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Model", id=(int, ...), name=(str, ...), qty=(int, ...))
        found = face.call(client.database, "query", items, "SELECT * FROM item WHERE id = 2", type=model)
        assert found == [model(id=2, name="nut", qty=20)]

    def test_two_columns_of_one_name(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with pytest.raises(InvalidArgumentError, match="several columns are named id"):
            face.call(client.database, "query", items, "SELECT a.id, b.id FROM item a, item b")

    @requires("database.schema")
    def test_every_kind_of_column(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
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
        face.call(client.database, "create_table", store, "everything", columns)
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
        face.call(client.database, "insert", store, "everything", vars(row))
        got = face.call(client.database, "query", store, "SELECT * FROM everything", type=Everything)
        assert got == [row]
        assert (
            face.call(client.database, "update", store, "everything", {"text": "x"}, {"yes": True}).rows_affected == 1
        )
        assert face.call(client.database, "query", store, "SELECT text FROM everything", type=str) == ["x"]

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
    def test_colons_that_are_no_parameters(
        self, client: CloudRuntimesClient, face: Face, store: str, sql: str, expected: str
    ) -> None:
        assert face.call(client.database, "query", store, sql) == [{"v": expected}]

    def test_a_parameter_twice(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        found = face.call(
            client.database, "query", items, "SELECT id FROM item WHERE id = :n OR qty = :n * 20 ORDER BY id", {"n": 1}
        )
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
            with pytest.raises(InvalidArgumentError) as caught:
                face.call(client.database, name, store, sql, params)
            assert message in str(caught.value)
            assert (caught.value.service, caught.value.operation, caught.value.component) == ("database", name, store)

    # -- writing ----------------------------------------------------------

    def test_execute(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        assert self.add(client, face, items, 3, "screw", 5).rows_affected == 1
        done = face.call(client.database, "execute", items, "UPDATE item SET qty = qty + :n", {"n": 1})
        assert done.rows_affected == 3
        done = face.call(client.database, "execute", items, "DELETE FROM item WHERE qty > :n", {"n": 20})
        assert done == ExecuteResult(1)
        assert face.call(client.database, "query", items, "SELECT qty FROM item ORDER BY id", type=int) == [11, 6]

    def test_a_query_that_writes_is_committed(
        self, client: CloudRuntimesClient, face: Face, items: str, harness: Harness
    ) -> None:
        sql = "INSERT INTO item (id, name, qty) VALUES (7, 'pin', 1) RETURNING id"
        assert face.call(client.database, "query", items, sql, type=int) == [7]
        assert (
            face.call(client.database, "execute", items, sql.replace("7", "8").replace("pin", "pan")).rows_affected == 1
        )
        assert self.count(client, face, items) == 4

    @requires("database.execute_many")
    def test_execute_many(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        sql = "INSERT INTO item (id, name, qty) VALUES (:id, :name, :qty)"
        rows = [{"id": number, "name": f"n{number}", "qty": number} for number in range(10, 510)]
        assert face.call(client.database, "execute_many", items, sql, iter(rows)).rows_affected == 500
        assert self.count(client, face, items) == 502
        assert face.call(client.database, "execute_many", items, sql, []) == ExecuteResult(0)
        # all or none
        bad = [{"id": 900, "name": "x", "qty": 1}, {"id": 901, "name": "bolt", "qty": 1}]
        with pytest.raises(AlreadyExistsError):
            face.call(client.database, "execute_many", items, sql, bad)
        for wrong, message in (
            ([{"id": 1}], "of row 0: no value for :name, :qty"),
            ([*rows[:1], {**rows[0], "more": 1}], "of row 1: the statement has no :more"),
            ({"id": 1}, "iterable of mappings"),
            (5, "iterable of mappings"),
        ):
            with pytest.raises(InvalidArgumentError, match=message):
                face.call(client.database, "execute_many", items, sql, wrong)
        assert self.count(client, face, items) == 502

    # -- errors -----------------------------------------------------------

    def test_errors(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
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
            for name in ("execute", "query"):
                with pytest.raises(expected) as caught:
                    face.call(client.database, name, items, sql, params)
                assert type(caught.value) is expected
                assert secret not in str(caught.value)
                assert caught.value.maybe_applied is False
                assert caught.value.component == items
                assert caught.value.__cause__ is not None
                assert secret not in str(caught.value.__cause__).partition("DETAIL")[0]
        with pytest.raises(InvalidArgumentError, match=r"use execute\(\)"):
            face.call(client.database, "query", items, "UPDATE item SET qty = 5")
        assert self.count(client, face, items) == 2
        assert face.call(client.database, "query", items, "SELECT qty FROM item WHERE id = 1", type=int) == [10]

    def test_a_foreign_key(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        face.call(client.database, "execute", items, "CREATE TABLE part (item INTEGER REFERENCES item (id))")
        with pytest.raises(ConflictError):
            face.call(client.database, "execute", items, "INSERT INTO part (item) VALUES (77)")
        face.call(client.database, "execute", items, "INSERT INTO part (item) VALUES (1)")
        with pytest.raises(ConflictError):
            face.call(client.database, "execute", items, "DELETE FROM item")

    def test_a_timeout_ends_the_work(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with pytest.raises(DeadlineExceededError) as caught:
            face.call(client.database, "query", items, SLOW, timeout=0.2)
        assert caught.value.maybe_applied is False
        with pytest.raises(DeadlineExceededError) as caught:
            face.call(
                client.database,
                "execute",
                items,
                f"INSERT INTO item (id, qty) {SLOW.replace('AS n', ', 9')}",
                timeout=0.2,
            )
        assert caught.value.maybe_applied is False
        # nothing of it is left, and the writer's turn is free
        assert self.add(client, face, items, 3, "c", 1).rows_affected == 1
        assert self.count(client, face, items) == 3

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"])
    def test_wrong_timeouts(self, client: CloudRuntimesClient, face: Face, store: str, timeout: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="timeout"):
            face.call(client.database, "query", store, "SELECT 1", timeout=timeout)
        with pytest.raises(InvalidArgumentError, match="timeout"):
            client.database.stream(store, "SELECT 1", timeout=timeout)

    # -- transactions -----------------------------------------------------

    def test_not_declared_is_refused(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "transaction": lambda: client.database.transaction(store),
            "stream": lambda: client.database.stream(store, "SELECT 1"),
            "execute_many": lambda: face.call(client.database, "execute_many", store, "SELECT 1", [{}]),
            "schema": lambda: face.call(client.database, "tables", store),
        }
        for feature, use in calls.items():
            if self.lacks(client, f"database.{feature}", store):
                with pytest.raises(UnsupportedError):
                    use()
            else:
                use()
        if self.lacks(client, "database.isolation", store) and not self.lacks(client, "database.transaction", store):
            with pytest.raises(UnsupportedError):
                client.database.transaction(store, "serializable")

    @requires("database.transaction")
    def test_a_transaction(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with face.opened(client.database.transaction(items)) as tx:
            face.call(tx, "execute", "UPDATE item SET qty = qty - :n WHERE id = 1", {"n": 3})
            face.call(tx, "execute", "UPDATE item SET qty = qty + :n WHERE id = 2", {"n": 3})
            assert face.call(tx, "query", "SELECT qty FROM item ORDER BY id", type=int) == [7, 23]
        assert face.call(client.database, "query", items, "SELECT qty FROM item ORDER BY id", type=int) == [7, 23]
        with pytest.raises(ClosedError, match="has ended"):
            face.call(tx, "query", "SELECT 1")

    @requires("database.transaction")
    def test_an_exception_rolls_back(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with pytest.raises(ZeroDivisionError):
            with face.opened(client.database.transaction(items)) as tx:
                face.call(tx, "execute", "DELETE FROM item")
                raise ZeroDivisionError
        assert self.count(client, face, items) == 2

    @requires("database.transaction")
    def test_a_failed_statement_ends_it(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with pytest.raises(ClosedError, match="rolled back") as caught:
            with face.opened(client.database.transaction(items)) as tx:
                face.call(tx, "execute", "DELETE FROM item WHERE id = 2")
                with pytest.raises(ConflictError):
                    face.call(tx, "execute", "UPDATE item SET qty = -1")
                with pytest.raises(ClosedError, match="rolled back"):
                    face.call(tx, "query", "SELECT 1")
        assert caught.value.maybe_applied is False
        assert self.count(client, face, items) == 2

    @requires("database.transaction")
    def test_what_is_refused_before_any_io_does_not_end_it(
        self, client: CloudRuntimesClient, face: Face, items: str
    ) -> None:
        with face.opened(client.database.transaction(items)) as tx:
            for wrong in ("SELECT :a", "COMMIT", "SELECT 1; SELECT 2"):
                with pytest.raises(InvalidArgumentError) as caught:
                    face.call(tx, "execute", wrong)
                assert caught.value.component == items
            face.call(tx, "execute", "DELETE FROM item WHERE id = 1")
        assert self.count(client, face, items) == 1

    @requires("database.transaction")
    def test_a_timeout_rolls_back(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with pytest.raises(DeadlineExceededError):
            with face.opened(client.database.transaction(items)) as tx:
                face.call(tx, "execute", "DELETE FROM item")
                face.call(tx, "query", SLOW, timeout=0.2)
        assert self.count(client, face, items) == 2
        assert self.add(client, face, items, 3, "c", 1).rows_affected == 1

    @requires("database.transaction")
    def test_early_ends(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with face.opened(client.database.transaction(items)) as tx:
            face.call(tx, "execute", "DELETE FROM item WHERE id = 1")
            face.call(tx, "rollback")
            face.call(tx, "rollback")
        assert self.count(client, face, items) == 2
        with face.opened(client.database.transaction(items)) as tx:
            face.call(tx, "execute", "DELETE FROM item WHERE id = 1")
            face.call(tx, "commit")
        assert self.count(client, face, items) == 1
        loose = client.database.transaction(items)  # begins with its first call
        face.call(loose, "execute", "DELETE FROM item")
        face.call(loose, "rollback")
        assert self.count(client, face, items) == 1

    @requires("database.transaction")
    def test_nothing_commits_that_was_not_asked(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        forgotten = client.database.transaction(items)
        face.call(forgotten, "execute", "DELETE FROM item")
        del forgotten
        assert self.count(client, face, items) == 2

    @requires("database.transaction")
    def test_closing_the_client_rolls_back(
        self, client: CloudRuntimesClient, face: Face, items: str, harness: Harness
    ) -> None:
        if harness.name.endswith(":memory:"):
            return  # the data ends with the client
        second = harness.client()
        tx = second.database.transaction(items)
        face.call(tx, "execute", "DELETE FROM item")
        face.call(second, "close")
        with pytest.raises(ClosedError):
            face.call(tx, "query", "SELECT 1")
        assert self.count(client, face, items) == 2

    @requires("database.transaction", "database.isolation")
    @pytest.mark.parametrize("level", ["read-uncommitted", "read-committed", "repeatable-read", "serializable"])
    def test_isolation(self, client: CloudRuntimesClient, face: Face, items: str, level: Any) -> None:
        with face.opened(client.database.transaction(items, level)) as tx:
            assert face.call(tx, "query", "SELECT count(*) FROM item", type=int) == [2]
        with pytest.raises(InvalidArgumentError, match=f"isolation '{level.upper()}'"):
            client.database.transaction(items, level.upper())

    @requires("database.transaction")
    def test_transactions_at_once(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        sql = "UPDATE item SET qty = qty + 1 WHERE id = 1"
        calls: list[Any] = [(client.database, "execute", (items, sql), {}) for _ in range(40)]
        assert all(isinstance(done, ExecuteResult) for done in face.together(calls))
        assert face.call(client.database, "query", items, "SELECT qty FROM item WHERE id = 1", type=int) == [50]

    @requires("database.transaction", "database.schema")
    def test_everything_in_a_transaction(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        with face.opened(client.database.transaction(store)) as tx:
            face.call(tx, "create_table", "a", {"id": Column(kind="integer", primary_key=True), "n": int})
            assert face.call(tx, "insert", "a", {"n": 5}) == ExecuteResult(1, 1)
            assert face.call(tx, "update", "a", {"n": 6}, {"id": 1}).rows_affected == 1
            assert face.call(tx, "execute_many", "INSERT INTO a (n) VALUES (:n)", [{"n": 1}]).rows_affected == 1
            assert face.call(tx, "execute_many", "INSERT INTO a (n) VALUES (:n)", []) == ExecuteResult(0)
            assert face.call(tx, "tables") == ["a"]
            assert [each.name for each in face.call(tx, "table_schema", "a").columns] == ["id", "n"]
            face.call(tx, "create_table", "b", {"id": int})
            face.call(tx, "drop_table", "b")
        assert face.call(client.database, "tables", store) == ["a"]
        with pytest.raises(KeyError):
            with face.opened(client.database.transaction(store)) as tx:
                face.call(tx, "drop_table", "a")
                raise KeyError
        assert face.call(client.database, "query", store, "SELECT n FROM a ORDER BY id", type=int) == [6, 1]

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
    def test_a_stream(self, client: CloudRuntimesClient, face: Face, store: str, count: int) -> None:
        sql = f"SELECT x FROM ({self.NUMBERS}) AS s WHERE x > 1 OR :n > 0"
        with face.opened(client.database.stream(store, sql, {"n": count}, type=int)) as stream:
            expected = list(range(1, max(count, 1) + 1)) if count else []
            assert self.take(face, stream) == expected
            assert self.take(face, stream) == []
        with pytest.raises(ClosedError, match="closed"):
            self.take(face, stream)

    @requires("database.stream")
    def test_streams_without_a_block_and_left_early(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        for _ in range(30):  # more than there are connections
            stream = client.database.stream(store, self.NUMBERS, {"n": 5000})
            assert self.take(face, stream, 2) == [{"x": 1, "r": "r"}, {"x": 2, "r": "r"}]
            del stream
            with face.opened(client.database.stream(store, self.NUMBERS, {"n": 5000}, type=tuple[int, str])) as stream:
                assert self.take(face, stream, 1) == [(1, "r")]
        assert face.call(client.database, "query", store, "SELECT 1 AS one") == [{"one": 1}]

    @requires("database.stream")
    def test_a_stream_that_fails(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
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
        assert self.count(client, face, items) == 2

    @requires("database.stream", "database.transaction")
    def test_a_stream_in_a_transaction(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        with face.opened(client.database.transaction(items)) as tx:
            face.call(tx, "execute", "INSERT INTO item (id, qty) VALUES (3, 30)")
            with face.opened(tx.stream("SELECT qty FROM item ORDER BY id", type=int)) as stream:
                assert self.take(face, stream) == [10, 20, 30]
            left = tx.stream(self.NUMBERS, {"n": 5000}, type=tuple[int, str])
            assert self.take(face, left, 1) == [(1, "r")]
        with pytest.raises(CloudRuntimesError):
            self.take(face, left, 2000)
        assert self.count(client, face, items) == 3

    @requires("database.stream")
    def test_a_stream_that_writes(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        sql = "UPDATE item SET qty = qty + 1 RETURNING qty"
        stream = client.database.stream(items, sql, type=int)
        assert sorted(self.take(face, stream)) == [11, 21]
        assert face.call(client.database, "query", items, "SELECT qty FROM item ORDER BY id", type=int) == [11, 21]
        with face.opened(client.database.stream(items, sql, type=int)) as stream:
            assert len(self.take(face, stream, 1)) == 1
        assert face.call(client.database, "query", items, "SELECT qty FROM item ORDER BY id", type=int) == [11, 21]

    # -- tables -----------------------------------------------------------

    @requires("database.schema")
    def test_tables(self, client: CloudRuntimesClient, face: Face, store: str) -> None:
        database = client.database
        assert face.call(database, "tables", store) == []
        columns = {
            "id": Column(kind="integer", primary_key=True),
            "name": Column(kind="text", nullable=False, unique=True),
            "select": "float",
            "MixedCase": int,
        }
        face.call(database, "create_table", store, "order", columns)
        assert face.call(database, "tables", store) == ["order"]
        schema = face.call(database, "table_schema", store, "order")
        assert schema.name == "order"
        assert [(each.name, each.nullable, each.primary_key) for each in schema.columns] == [
            ("id", False, True),
            ("name", False, False),
            ("select", True, False),
            ("MixedCase", True, False),
        ]
        with pytest.raises(AlreadyExistsError):
            face.call(database, "create_table", store, "order", columns)
        values = {"name": "a", "select": 0.5, "MixedCase": 1}
        assert face.call(database, "insert", store, "order", values) == ExecuteResult(1, 1)
        assert face.call(database, "insert", store, "order", {"name": "b", "select": None}) == ExecuteResult(1, 2)
        with pytest.raises(AlreadyExistsError):
            face.call(database, "insert", store, "order", values)
        with pytest.raises(ConflictError):
            face.call(database, "insert", store, "order", {"name": None})
        assert face.call(database, "update", store, "order", {"name": "c"}, {"select": None}) == ExecuteResult(1)
        assert face.call(database, "update", store, "order", {"name": "d"}, {"id": 2, "select": 1.0}) == ExecuteResult(
            0
        )
        assert face.call(database, "update", store, "order", {"id": 5}, {"id": 2}) == ExecuteResult(1)
        found = face.call(database, "query", store, 'SELECT name, "MixedCase" AS n FROM "order" ORDER BY id')
        assert found == [{"name": "a", "n": 1}, {"name": "c", "n": None}]
        face.call(database, "drop_table", store, "order")
        face.call(database, "drop_table", store, "order")
        assert face.call(database, "tables", store) == []
        for use in (("table_schema", "order"), ("insert", "order", {"a": 1}), ("update", "order", {"a": 1}, {"a": 2})):
            with pytest.raises(NotFoundError):
                face.call(database, use[0], store, *use[1:])

    @requires("database.schema")
    def test_wrong_tables(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        cases: list[tuple[str, tuple[Any, ...], str]] = [
            ("update", ("item", {"qty": 1}, {}), "where is empty"),
            ("update", ("item", {}, {"id": 1}), "values must be a mapping"),
            ("update", ("item", {"qty": 1}, "id = 1"), "where must be a mapping"),
            ("insert", ("item", {}), "values must be a mapping"),
            ("insert", ("item", {"qty": object()}), "type object"),
            ("create_table", ("a", {}), "at least one"),
            ("create_table", ("a", {"x": "money"}), "no kind of column"),
            ("create_table", ("a", {"x": complex}), "no kind of column"),
            ("create_table", ("a", {"x": Column(kind="money")}), "no kind of column"),  # type: ignore[arg-type]
            ("create_table", ("a", {"x": int, "X": int}), "differ by case"),
            ("drop_table", (None,), "must be str"),
        ]
        for name, arguments, message in cases:
            with pytest.raises(InvalidArgumentError, match=message):
                face.call(client.database, name, items, *arguments)
        assert face.call(client.database, "tables", items) == ["item"]

    @requires("database.schema")
    def test_500_injections(self, client: CloudRuntimesClient, face: Face, items: str) -> None:
        database = client.database
        strings = injections()
        assert len(strings) == 500
        for hostile in strings:
            for name, arguments in (
                ("table_schema", (hostile,)),
                ("create_table", (hostile, {"a": int})),
                ("create_table", ("fine", {hostile: int})),
                ("drop_table", (hostile,)),
                ("insert", (hostile, {"qty": 1})),
                ("insert", ("item", {hostile: 1})),
                ("update", (hostile, {"qty": 1}, {"id": 1})),
                ("update", ("item", {hostile: 1}, {"id": 1})),
                ("update", ("item", {"qty": 1}, {hostile: 1})),
            ):
                with pytest.raises(InvalidArgumentError):
                    face.call(database, name, items, *arguments)
        # as values they are values
        kept = sorted({hostile for hostile in strings if "\0" not in hostile})
        with face.opened(database.transaction(items)) as tx:
            for number, hostile in enumerate(kept):
                face.call(tx, "insert", "item", {"id": 100 + number, "name": hostile, "qty": 1})
                face.call(tx, "update", "item", {"qty": 2}, {"name": hostile})
        found = face.call(database, "query", items, "SELECT name FROM item WHERE qty = 2", type=str)
        assert sorted(found) == kept
        sql = "SELECT id FROM item WHERE name = :name"
        assert [face.call(database, "query", items, sql, {"name": each}, type=int) for each in kept] == [
            [100 + number] for number in range(len(kept))
        ]
        assert face.call(database, "tables", items) == ["item"]
        assert self.count(client, face, items) == len(kept) + 2

    # -- stores -----------------------------------------------------------

    def test_stores_are_apart(self, client: CloudRuntimesClient, face: Face, items: str, harness: Harness) -> None:
        other = harness.store("database")
        with pytest.raises(NotFoundError):
            self.count(client, face, other)

    def test_another_client_sees_it(
        self, client: CloudRuntimesClient, face: Face, items: str, harness: Harness
    ) -> None:
        second = harness.client()
        if harness.name.endswith(":memory:"):
            with pytest.raises(NotFoundError):  # one database per client
                self.count(second, face, items)
        else:
            assert self.count(second, face, items) == 2

    def test_a_closed_client(self, face: Face, items: str, harness: Harness) -> None:
        second = harness.client()
        face.call(second.database, "query", items, "SELECT 1 AS one")
        face.call(second, "close")
        with pytest.raises(ClosedError):
            face.call(second.database, "query", items, "SELECT 1 AS one")
