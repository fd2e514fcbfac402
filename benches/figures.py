"""Page of the figures that README shows, each with its picture: ``python -m benches.figures``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from .report import Row, plot

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "figures.md"
PICTURE: Final = ROOT / "docs" / "benchmarks" / "figures.svg"
_UNITS: Final = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_TIME: Final = re.compile(
    r"(?:^|, )(?P<name>[^()]*?) ?(?P<value>[\d.]+)(?: to [\d.]+)? (?P<unit>ns|µs|ms|s)\b(?: \([^)]*\))?"
)
_HEAD: Final = """# Figures

What README claims, with pictures: `python -m benches.figures` draws them from its table. Shorter bars are better; each row has a scale of its own. `make bench` measures them in five minutes on your machine; those of other commands name them. [Benchmarks](benchmarks.md) has all others.

![times of ours and of what is beside it](benchmarks/figures.svg)

"""


def _seconds(cell: str) -> dict[str, float]:
    """Return the times that a cell tells, by what they are of."""
    return {found["name"]: float(found["value"]) * _UNITS[found["unit"]] for found in _TIME.finditer(cell)}


def table() -> list[str]:
    """Return README's table, a line each."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Figures\n")[2].partition("\n## ")[0]
    return [line for line in section.split("\n") if line.startswith("|")]


def page() -> str:
    """Return the page."""
    return _HEAD + "\n".join(table()).replace("](docs/", "](") + "\n"


def picture() -> str:
    """Return the rows that have something beside them as one SVG."""
    rows = []
    for line in table()[2:]:
        what, ours, beside, _ = (cell.strip().replace("`", "") for cell in line.split("|")[1:-1])
        (own,) = _seconds(ours).values()
        if others := _seconds(beside):
            rows.append(Row("", what, "", {"ours": own, **others}, {}, {}))
    return plot(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE} and {PICTURE}\n")
