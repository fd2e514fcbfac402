"""The scanner of SQL texts, whatever is in them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_runtimes.dapr_server.bindings.positional import named
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.spi.sql import MAX_SQL, _scan, scan, tokens

SIGNS = st.sampled_from(
    ["'", '"', "`", "$", "$$", "$a$", "$1", "/*", "*/", "--", "\n", "\\", ":", "::", "?", ";", "a", "1"]
)
LONG = {
    "tags without an end": "".join(f"$a{number}$ " for number in range(130_000)),
    "comments without an end": "/*a " * 250_000,
    "quotes": "'" * 999_001,
    "quoted names": '"a""' * 249_000,
    "texts of PostgreSQL": "E'\\" * 330_000,
    "dollars": "$" * 999_000,
    "openings of all kinds": "`\"'/*$" * 166_000,
    "names after dollars": "$a" * 499_000,
    "colons": ":" * 999_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("mysql", [False, True], ids=["standard", "mysql"])
def test_a_long_text_is_scanned_in_one_pass(text: str, mysql: bool) -> None:
    """A second for each 1 MB, where looking again for each end took minutes to hours."""
    begin = time.thread_time()
    work: list[Callable[[str], Any]] = [lambda sql: scan(sql, mysql=mysql), lambda sql: named(sql, [1], mysql=mysql)]
    for one in work:
        with contextlib.suppress(InvalidArgumentError):
            one(f"SELECT {text[: MAX_SQL - 7]}")
    assert time.thread_time() - begin < 30


@pytest.mark.parametrize("take", [scan, lambda sql: named(sql, [1])], ids=["scan", "named"])
def test_a_longer_text_is_refused_before_it_is_scanned(take: Callable[[str], Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="1000001 characters; at most 1000000: bind values"):
        take("SELECT " + "?" * (MAX_SQL - 6))


@given(st.lists(SIGNS).map("".join), st.booleans())
def test_tokens_are_the_whole_text(text: str, mysql: bool) -> None:
    found = list(tokens(text, mysql=mysql))
    assert "".join(token for _, token, _ in found) == text
    assert all(text[at : at + len(token)] == token for _, token, at in found)
    assert "open" not in [kind for kind, _, _ in found[:-1]]


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("$a$ ; $b$ $a$", ["string"]),
        ("$a$;$b$", ["other", "word", "end", "other", "word"]),
        ("$$$$$", ["string", "other"]),
        ("$$$", ["other", "other", "other"]),
        ("a$$b$$", ["word"]),
        ("'a''", ["open"]),
        ("/* ' */'", ["comment", "open"]),
    ],
)
def test_openings_and_ends(sql: str, kinds: list[str]) -> None:
    assert [kind for kind, _, _ in tokens(sql)] == kinds


def test_the_scan_of_a_long_text_is_not_kept() -> None:
    before = _scan.cache_info().currsize
    for number in range(3):
        scan(f"SELECT {number}, '{'x' * 10_000}'")
    assert _scan.cache_info().currsize == before
