"""Pages that are made of others have what is made of those now."""

from __future__ import annotations

from benches import figures
from benches.scale import BENCHMARKS, tables


def test_the_tables_are_those_of_the_benchmarks() -> None:
    page = BENCHMARKS.parent / "explanation" / "scale.md"
    assert tables() in page.read_text(encoding="utf-8"), "run `python -m benches.scale`"


def test_the_pictures_are_those_of_readme() -> None:
    assert figures.page() == figures.PAGE.read_text(encoding="utf-8"), "run `python -m benches.figures`"
    assert figures.picture() == figures.PICTURE.read_text(encoding="utf-8"), "run `python -m benches.figures`"
