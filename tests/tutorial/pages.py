"""Pages whose blocks are files: the first line of a block names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
INDEX = DOCS / "tutorial" / "index.md"
STEPS = re.findall(
    r"^\d+\. \[[^]]+\]\(([\w-]+\.md)\)", INDEX.read_text("utf-8") if INDEX.exists() else "", re.MULTILINE
)
"""Pages of the tutorial, in order."""


def files_of(page: str) -> dict[str, str]:
    """Return name → text of the files that a page of docs shows."""
    path = DOCS / page
    if not path.exists():
        pytest.skip("docs is not among the test's files")
    return dict(re.findall(r"```\w+\n# ([\w./-]+)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))


def write_files(page: str, folder: Path) -> None:
    """Write the files of a page into a folder."""
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
