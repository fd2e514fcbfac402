"""``cloud-runtimes sql``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient


@pytest.fixture
def store(client: CloudRuntimesClient) -> str:
    """A table of three rows."""
    client.database.create_table("bank", "account", {"id": int, "owner": str, "data": bytes})
    for number, owner, data in ((1, 'Ann "A", jr', b"\xff"), (2, None, None), (3, "\x1b[31m" + "x" * 80, b"")):
        client.database.insert("bank", "account", {"id": number, "owner": owner, "data": data})
    return "bank"


def test_csv(cli: Any, store: str) -> None:
    result = cli("sql", store, "SELECT id, owner, data FROM account WHERE id < :n ORDER BY id", "--param", "n=3")
    assert result == (0, b'id,owner,data\n1,"Ann ""A"", jr",ff\n2,,\n', "")


def test_json(cli: Any, store: str) -> None:
    lines = cli("sql", store, "SELECT id, owner, data FROM account ORDER BY id", "--format", "json").lines
    assert json.loads(lines[0]) == {"id": 1, "owner": 'Ann "A", jr', "data": "ff"}
    assert json.loads(lines[1]) == {"id": 2, "owner": None, "data": None}


def test_a_table_holds_no_escape_sequence(cli: Any, store: str) -> None:
    out = cli("sql", store, "SELECT id, owner FROM account ORDER BY id", "--format", "table").out.decode()
    assert out.splitlines()[0].split() == ["id", "owner"]
    assert set(out.splitlines()[1]) == {"-", " "}
    assert out.splitlines()[3] == "2   NULL"
    assert "\x1b" not in out
    assert out.splitlines()[4].endswith("…")


def test_writing(cli: Any, store: str, client: CloudRuntimesClient) -> None:
    result = cli(
        "sql", store, "UPDATE account SET owner = :name WHERE id = :id", "--param", "name=Bob", "--param", "id=2"
    )
    assert result == (0, b"", "1 row affected\n")
    assert client.database.query(store, "SELECT owner FROM account WHERE id = 2", type=str) == ["Bob"]
    result = cli("sql", store, "-", stdin=b"DELETE FROM account WHERE id > 1 RETURNING id")
    assert result == (0, b"id\n2\n3\n", "")
    assert client.database.query(store, "SELECT count(*) FROM account", type=int) == [1]


def test_no_rows(cli: Any, store: str) -> None:
    for output in ("csv", "json", "table"):
        assert cli("sql", store, "SELECT id FROM account WHERE id = 9", "--format", output) == (0, b"", "")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("SELECT :a",), 2, "no value for :a"),
        (("SELECT 1", "--param", "a=1"), 2, "has no :a"),
        (("SELECT 1", "--param", "a"), 2, "give NAME=VALUE"),
        (("SELECT 1", "--format", "xml"), 2, "give table, csv, json"),
        (("SELECT 1; SELECT 2",), 2, "more than one statement"),
        (("SELEC 1",), 2, "syntax error"),
        (("SELECT * FROM nope",), 3, "no such table"),
        (("INSERT INTO u VALUES (1)",), 4, "unique value exists"),
    ],
)
def test_errors(cli: Any, client: CloudRuntimesClient, argv: tuple[str, ...], code: int, message: str) -> None:
    client.database.execute("bank", "CREATE TABLE u (id INTEGER PRIMARY KEY)")
    client.database.execute("bank", "INSERT INTO u VALUES (1)")
    result = cli("sql", "bank", *argv)
    assert result.code == code
    assert message in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
