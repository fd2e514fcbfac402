"""The page of promises is the generated one; each row has a test or says why not, and each mark stands for a row."""

from __future__ import annotations

import pytest

from tests.support.promises import DOCUMENT, figures, figures_of, promises, proofs, render

ROWS = {id: row for part in promises().values() for id, row in part.items()}
OPEN = {"G7", "I4"}
"""Rows that no test of a run proves."""


def test_the_page_is_the_generated_one() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), "run `make docs`"


def test_rows_and_marks_meet() -> None:
    found = proofs()
    assert found.keys() <= ROWS.keys()
    assert ROWS.keys() - found.keys() == OPEN
    assert all(ROWS[id].get("open") for id in OPEN)


@pytest.mark.parametrize("id", [id for id, those in proofs().items() if any(each.figure for each in those)])
def test_figures_are_there(id: str) -> None:
    known = figures()
    for each in proofs()[id]:
        assert each.figure is None or figures_of(each, known), f"docs/soak.md has nothing of {each.figure!r}"
