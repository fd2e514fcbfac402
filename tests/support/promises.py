"""The page of promises; ``python -m tests.support.promises`` writes docs/reliability.md from docs/reliability.toml, the marks on the tests, and docs/soak.md."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
_SOAK = "docs/soak.md"
_SHOWN = 3
"""Tests of a row whose names stand in the table; the others are counted."""

_HEAD = """# Promises

What holds when processes are killed, networks break, disks fill and input is hostile, and the tests that prove it. Every row runs on every change. Where a row has a figure, it is of the last run at full length, which [Long proofs](soak.md) tells whole.

Written by `make docs` from `docs/reliability.toml`, and from the marks on the tests.
"""


class Proof(NamedTuple):
    """A test that proves a promise.

    Attributes:
        path, name: of the test.
        figure: how its figures in docs/soak.md begin, if it has any.
    """

    path: str
    name: str
    figure: str | None


def promises() -> dict[str, dict[str, dict[str, str]]]:
    """Return the rows of each part."""
    parts = tomllib.loads((ROOT / "docs" / "reliability.toml").read_text(encoding="utf-8"))["part"]
    return {part.pop("name"): part for part in parts}


@cache
def proofs() -> dict[str, list[Proof]]:
    """Return the tests that are marked as proofs of each row."""
    found: dict[str, list[Proof]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.promise(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    figure = next((ast.literal_eval(each.value) for each in mark.keywords), None)
                    for row in mark.args:
                        name: str = node.name  # type: ignore[attr-defined]
                        found[ast.literal_eval(row)].append(Proof(path.relative_to(ROOT).as_posix(), name, figure))
    return dict(found)


def figures() -> list[list[str]]:
    """Return the cells of docs/soak.md: the proof, its figure, its test, and the day."""
    lines = (ROOT / _SOAK).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows[1:] if len(row) == 4]


def figures_of(proof: Proof, known: list[list[str]]) -> list[list[str]]:
    """Return the figures of a test, the newest last."""
    if proof.figure is None:
        return []
    found = [row for row in known if row[0].startswith(proof.figure) and row[2].strip("`") == proof.path]
    return sorted(found, key=lambda row: row[3])


def render() -> str:
    """Return the document."""
    return "\n".join([_HEAD, *_parts()])


def _parts() -> Iterator[str]:
    found, known = proofs(), figures()
    for name, rows in promises().items():
        yield f"## {name}\n"
        yield "| | promise | on | proved by | last figure |\n|---|---|---|---|---|"
        for id, row in rows.items():
            cells = [id, row["promise"], row["on"], _proved(row, found.get(id, [])), _last(found.get(id, []), known)]
            yield f"| {' | '.join(cells)} |"
        yield ""


def _proved(row: dict[str, Any], those: list[Proof]) -> str:
    shown = [f"`{each.path.removeprefix('tests/')}::{each.name}`" for each in those[:_SHOWN]]
    if len(those) > _SHOWN:
        shown.append(f"{len(those) - _SHOWN} more")
    return ", ".join(shown) + (f"{'; ' if shown else ''}{row['open']}" if "open" in row else "")


def _last(those: list[Proof], known: list[list[str]]) -> str:
    last = [found[-1] for each in those if (found := figures_of(each, known))]
    return "; ".join(f"{what}: {figure} ({day})" for what, figure, _, day in last[:1])


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
