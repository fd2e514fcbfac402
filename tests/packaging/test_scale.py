"""The page of what it costs at scale has the tables that the benchmarks give."""

from __future__ import annotations

from benches.scale import BENCHMARKS, tables


def test_the_tables_are_those_of_the_benchmarks() -> None:
    page = BENCHMARKS.parent / "explanation" / "scale.md"
    assert tables() in page.read_text(encoding="utf-8"), "run `python -m benches.scale`"
