"""Give each ``x_async`` of the public API the docstring of its ``x``: ``python -m tests.support.docstrings`` (part of ``make docs``)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "cloud_runtimes"
SERVICES = (
    "admin",
    "configuration",
    "database",
    "file",
    "lock",
    "pubsub",
    "rpc",
    "schedule",
    "secret",
    "state",
    "telemetry",
)


def files() -> Iterator[Path]:
    """The modules of the client, the services and their handles."""
    yield PACKAGE / "client.py"
    for service in SERVICES:
        yield from sorted((PACKAGE / service).glob("*.py"))


def _docstring(method: ast.AST) -> ast.Expr | None:
    first = getattr(method, "body", [None])[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return first if is_text else None


def rewritten(text: str) -> str:
    """Return a module with the docstrings of its async methods as they are to be."""
    lines = text.splitlines(keepends=True)
    edits: list[tuple[int, int, list[str]]] = []
    for kind in ast.walk(ast.parse(text)):
        if not isinstance(kind, ast.ClassDef):
            continue
        # of several definitions the last one is the method, those before are overloads
        methods = {each.name: each for each in kind.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        for name, method in methods.items():
            sibling = methods.get(name.removesuffix("_async"))
            if name.startswith("_") or not name.endswith("_async") or sibling is None:
                continue
            mine, theirs = _docstring(method), _docstring(sibling)
            if theirs is None or theirs.end_lineno is None:
                continue
            wanted = lines[theirs.lineno - 1 : theirs.end_lineno]
            if mine is None or mine.end_lineno is None:
                start = method.body[0].lineno - 1
                edits.append((start, start, wanted))
            else:
                edits.append((mine.lineno - 1, mine.end_lineno, wanted))
    for start, end, wanted in sorted(edits, reverse=True):
        lines[start:end] = wanted
    return "".join(lines)


def main() -> int:
    """Rewrite the modules; with ``--check`` only tell which would change."""
    check = "--check" in sys.argv[1:]
    changed = 0
    for path in files():
        text = path.read_text("utf-8")
        if (new := rewritten(text)) != text:
            changed += 1
            if not check:
                path.write_text(new, "utf-8")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
