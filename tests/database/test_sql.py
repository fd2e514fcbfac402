"""The scanner of SQL texts, whatever is in them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import MetaData, Table, text
from sqlalchemy.dialects import registry, sqlite
from sqlalchemy.schema import CreateTable

from cloud_runtimes.components.sqlalchemy.values import column
from cloud_runtimes.dapr_server.bindings.sql import named
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.spi.database import Column
from cloud_runtimes.spi.sql import MAX_SQL, _scan, scan, tokens
from tests.support import Rounds


@pytest.mark.promise("H2")
def test_parameters(subtests: pytest.Subtests) -> None:
    for sql, names in (
        ("SELECT :a, :b_2, :a", {"a", "b_2"}),
        ("SELECT x::int, :a::text", {"a"}),
        ("SELECT ':a', \":b\", `:c`, E'\\':d', $$:e$$, $t$ $$ :f $t$", set()),
        ("SELECT 1 -- :a\n, :b /* :c ' */", {"b"}),
        ("SELECT a[1:2], a[:n], a[lo:hi]", {"n"}),
        ("SELECT \\:a, :grün", {"grün"}),
        ("SELECT 'it''s :a', 'x' || :b", {"b"}),
        ("SELECT '{\"a\": 1}' :: json", set()),
    ):
        with subtests.test(sql=sql, names=names):
            scanned = scan(sql)
            assert scanned.names == names
            # the compiler sees the same parameters, and the rest of the text as it is
            compiled = str(text(scanned.template).compile(dialect=sqlite.dialect(paramstyle="named")))
            assert compiled == sql.replace("\\:", ":")


def test_summaries(subtests: pytest.Subtests) -> None:
    for sql, summary in (
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
    ):
        with subtests.test(sql=sql, summary=summary):
            assert scan(sql).summary == summary


def test_the_rules_of_mysql() -> None:
    assert scan("SELECT 'it\\'s :a', :b # :c", mysql=True).names == {"b"}
    assert scan("SELECT a #> :b").names == {"b"}


def test_reads(subtests: pytest.Subtests) -> None:
    for sql, reads in (
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
    ):
        with subtests.test(sql=sql, reads=reads):
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


def test_several_statements(subtests: pytest.Subtests) -> None:
    for sql in ("SELECT 1; SELECT 2", "CREATE TABLE begin (a int); DROP TABLE b", "DELETE FROM a; -- x\nDROP TABLE a"):
        with subtests.test(sql=sql), pytest.raises(InvalidArgumentError, match="more than one"):
            scan(sql)


def test_a_body_of_a_trigger_is_one_statement() -> None:
    body = "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET n = CASE WHEN 1 THEN 2 END; DELETE FROM c; END"
    assert scan(body + ";").names == frozenset()
    with pytest.raises(InvalidArgumentError, match="more than one"):
        scan(body + "; DROP TABLE a")


# -- the scanner of SQL texts, whatever is in them

SIGNS = st.sampled_from(
    ["'", '"', "`", "$", "$$", "$a$", "$1", "/*", "*/", "--", "\n", "\\", ":", "::", "?", ";", "a", "1"]
)
LONG = {
    "tags without an end": "".join(f"$a{number}$ " for number in range(130_000)),
    "comments without an end": "/*a ",
    "quotes": "'",
    "quoted names": '"a""',
    "texts of PostgreSQL": "E'\\",
    "dollars": "$",
    "openings of all kinds": "`\"'/*$",
    "names after dollars": "$a",
    "colons": ":",
}


@pytest.mark.parametrize("mysql", [False, True], ids=["standard", "mysql"])
def test_a_long_text_is_scanned_in_one_pass(mysql: bool, rounds: Rounds, subtests: pytest.Subtests) -> None:
    """A second for each 1 MB, where looking again for each end took minutes to hours."""
    size = rounds(250_000, MAX_SQL - 7)
    work: list[Callable[[str], Any]] = [lambda sql: scan(sql, mysql=mysql), lambda sql: named(sql, [1], mysql=mysql)]
    for name, part in LONG.items():
        with subtests.test(name=name):
            begin = time.thread_time()
            for one in work:
                with contextlib.suppress(InvalidArgumentError):
                    one(f"SELECT {(part * (size // len(part) + 1))[:size]}")
            assert time.thread_time() - begin < rounds(3, 30)


def test_a_longer_text_is_refused_before_it_is_scanned(subtests: pytest.Subtests) -> None:
    for take in (scan, lambda sql: named(sql, [1])):
        with subtests.test(take=take):
            with pytest.raises(InvalidArgumentError, match="1000001 characters; at most 1000000: bind values"):
                take("SELECT " + "?" * (MAX_SQL - 6))


@given(st.lists(SIGNS).map("".join), st.booleans())
def test_tokens_are_the_whole_text(text: str, mysql: bool) -> None:
    result = list(tokens(text, mysql=mysql))
    assert "".join(token for _, token, _ in result) == text
    assert all(text[at : at + len(token)] == token for _, token, at in result)
    assert "open" not in [kind for kind, _, _ in result[:-1]]


def test_openings_and_ends(subtests: pytest.Subtests) -> None:
    for sql, kinds in (
        ("$a$ ; $b$ $a$", ["string"]),
        ("$a$;$b$", ["other", "word", "end", "other", "word"]),
        ("$$$$$", ["string", "other"]),
        ("$$$", ["other", "other", "other"]),
        ("a$$b$$", ["word"]),
        ("'a''", ["open"]),
        ("/* ' */'", ["comment", "open"]),
    ):
        with subtests.test(sql=sql, kinds=kinds):
            assert [kind for kind, _, _ in tokens(sql)] == kinds


def test_the_scan_of_a_long_text_is_not_kept() -> None:
    before = _scan.cache_info().currsize
    for number in range(3):
        scan(f"SELECT {number}, '{'x' * 10_000}'")
    assert _scan.cache_info().currsize == before


def test_a_key_is_numbered_by_each_database(subtests: pytest.Subtests) -> None:
    for name, words in (
        ("sqlite", "INTEGER NOT NULL"),
        ("postgresql", "BIGSERIAL"),
        ("mysql", "AUTO_INCREMENT"),
        ("mssql", "IDENTITY"),
        ("oracle", "GENERATED BY DEFAULT AS IDENTITY"),
    ):
        with subtests.test(database=name):
            dialect = registry.load(name)()
            key = column("id", Column(kind="integer", primary_key=True), True, dialect.name)
            table = Table("t", MetaData(), key)
            assert words in str(CreateTable(table).compile(dialect=dialect))
