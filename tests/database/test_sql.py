"""What the scanner says of a text."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.spi.sql import scan


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT :a, :b_2, :a", {"a", "b_2"}),
        ("SELECT x::int, :a::text", {"a"}),
        ("SELECT ':a', \":b\", `:c`, E'\\':d', $$:e$$, $t$ $$ :f $t$", set()),
        ("SELECT 1 -- :a\n, :b /* :c ' */", {"b"}),
        ("SELECT a[1:2], a[:n], a[lo:hi]", {"n"}),
        ("SELECT \\:a, :grün", {"grün"}),
        ("SELECT 'it''s :a', 'x' || :b", {"b"}),
        ("SELECT '{\"a\": 1}' :: json", set()),
    ],
)
def test_parameters(sql: str, names: set[str]) -> None:
    scanned = scan(sql)
    assert scanned.names == names
    # the compiler sees the same parameters, and the rest of the text as it is
    compiled = str(text(scanned.template).compile(dialect=sqlite.dialect(paramstyle="named")))
    assert compiled == sql.replace("\\:", ":")


@pytest.mark.parametrize(
    ("sql", "summary"),
    [
        ("select 1", "SELECT"),
        ("-- from c\nselect 'from a' from shop . orders o join b on true", "SELECT shop.orders"),
        ("SELECT extract(YEAR FROM created) FROM ONLY orders, b", "SELECT orders"),
        ("SELECT a IS DISTINCT FROM b FROM t", "SELECT t"),
        ("SELECT * FROM (SELECT 1 FROM a) q", "SELECT"),
        ('SELECT * FROM "my ""orders"""', "SELECT"),
        ("SELECT * FROM $$secret$$", "SELECT"),
        ("SELECT * FROM :table", "SELECT"),
        ("insert into orders (a) values ('into x') ON CONFLICT DO UPDATE SET a = 1", "INSERT orders"),
        ("UPDATE orders SET a = 1 FROM b", "UPDATE orders"),
        ("DELETE FROM orders", "DELETE orders"),
        ("SELECT * FROM orders FOR UPDATE", "SELECT orders"),
        ("create table if not exists orders (a text)", "CREATE orders"),
        ("PRAGMA user_version", "PRAGMA"),
        (":a", ""),
    ],
)
def test_summaries(sql: str, summary: str) -> None:
    assert scan(sql).summary == summary


def test_the_rules_of_mysql() -> None:
    assert scan("SELECT 'it\\'s :a', :b # :c", mysql=True).names == {"b"}
    assert scan("SELECT a #> :b").names == {"b"}


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT 1", True),
        ("  (SELECT 1)", True),
        ("/* INSERT */ select 'DELETE'", True),
        ("WITH t AS (SELECT 1) SELECT * FROM t", True),
        ("WITH t AS (DELETE FROM a RETURNING *) SELECT * FROM t", False),
        ("SELECT * FROM a FOR UPDATE", False),
        ("SELECT * INTO b FROM a", False),
        ("SELECT nextval('s')", False),
        ("EXPLAIN SELECT 1", True),
        ("EXPLAIN ANALYZE SELECT 1", False),
        ("INSERT INTO a SELECT 1", False),
        ("SET x = 1", False),
        ("PRAGMA table_info(a)", True),
        ("PRAGMA foreign_keys = OFF", False),
    ],
)
def test_reads(sql: str, reads: bool) -> None:
    assert scan(sql).reads is reads


def test_what_changes_its_connection() -> None:
    for sql in (
        "SET search_path TO x",
        "PRAGMA foreign_keys = OFF",
        "CREATE TEMP TABLE a (b int)",
        "SELECT set_config('a', 'b', false)",
    ):
        assert scan(sql).soils
    assert not scan("UPDATE a SET b = 1").soils


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "CREATE TABLE begin (a int); DROP TABLE b", "DELETE FROM a; -- x\nDROP TABLE a"]
)
def test_several_statements(sql: str) -> None:
    with pytest.raises(InvalidArgumentError, match="more than one"):
        scan(sql)


def test_a_body_of_a_trigger_is_one_statement() -> None:
    body = "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET n = CASE WHEN 1 THEN 2 END; DELETE FROM c; END"
    assert scan(body + ";").names == frozenset()
    with pytest.raises(InvalidArgumentError, match="more than one"):
        scan(body + "; DROP TABLE a")
