"""Conformance of a `DatabaseDriver`: tables, rows without SQL, and hostile names."""

from __future__ import annotations

import random
from typing import Any

from ...client import CloudRuntimesClient
from ...database import Column, ExecuteResult
from ...errors import AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError
from ..faces import Face
from ..harness import requires
from ._base import Call
from ._database import DatabaseTable

__all__ = ["TableTests"]


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
        made = "".join(chance.choice(pieces) for _ in range(chance.randint(2, 8)))
        if not made.isidentifier():
            seeds.append(made)
    return seeds


class TableTests(DatabaseTable):
    """Tables, and rows as mappings."""

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
        face.fails(AlreadyExistsError)(database, "create_table", store, "order", columns)
        values = {"name": "a", "select": 0.5, "MixedCase": 1}
        assert face.call(database, "insert", store, "order", values) == ExecuteResult(1, 1)
        assert face.call(database, "insert", store, "order", {"name": "b", "select": None}) == ExecuteResult(1, 2)
        face.fails(AlreadyExistsError)(database, "insert", store, "order", values)
        face.fails(ConflictError)(database, "insert", store, "order", {"name": None})
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
            face.fails(NotFoundError)(database, use[0], store, *use[1:])

    @requires("database.schema")
    def test_wrong_tables(self, call: Call, client: CloudRuntimesClient, face: Face, items: str) -> None:
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
            face.fails(InvalidArgumentError, match=message)(client.database, name, items, *arguments)
        assert call("tables") == ["item"]

    @requires("database.schema")
    def test_500_injections(self, call: Call, client: CloudRuntimesClient, face: Face, items: str) -> None:
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
                face.fails(InvalidArgumentError)(database, name, items, *arguments)
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
        assert self.count(call) == len(kept) + 2
