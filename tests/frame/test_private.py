"""Private attributes stay in their package: another one reads no `x._name` that it does not define, and imports no `_name`."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import cloud_runtimes

ROOT = Path(cloud_runtimes.__file__).parent
KERNELS = {"_event", "_kind", "_link", "_mark", "_record", "_settlement", "_token"}
"""Of the kernels' events and spans, which users hold: what only pub/sub and OpenTelemetry's API need of them."""
TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public, by the documentation of `collections.namedtuple`."""
FRAMES = {"_context": "_service", "_frame": "_service"}
"""Nobody else reads these of services, handles and clients, though other packages have attributes of the same name."""


def package_of(path: Path) -> str:
    """Return the package: a folder or module of the top level, a component, a runtime, or what components share."""
    first, *rest = [part.removesuffix(".py") for part in path.relative_to(ROOT).parts] or ["."]
    if first not in ("components", "protocols", "runtimes") or not rest:
        return first
    return f"{first}/_shared" if rest[0].startswith("_") and first == "components" else f"{first}/{rest[0]}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(value: ast.expr) -> bool:
    """Return whether an attribute is the reader's own: of ``self``, ``cls`` or ``super()``."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def test_no_package_reads_a_private_attribute_of_another() -> None:
    problems: list[str] = []
    owners: defaultdict[str, set[str]] = defaultdict(set)
    reads: list[tuple[Path, ast.Attribute]] = []
    for path in sorted(ROOT.rglob("*.py")):
        foreign: set[str] = set()
        here: list[ast.Attribute] = []
        for node in ast.walk(ast.parse(path.read_bytes())):
            name = ""
            if isinstance(node, ast.Import):
                foreign.update(alias.asname or alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                if package_of(folder) != package_of(path):
                    names = [each.name for each in node.names if is_private(each.name)]
                    modules = {each.stem for each in folder.glob("_*")}
                    problems += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in set(names) - modules]
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.Attribute) and is_private(node.attr):
                if not is_own(node.value):
                    here.append(node)
                elif isinstance(node.ctx, ast.Store):
                    name = node.attr
            if is_private(name):
                owners[name].add(package_of(path))
        reads += [(path, node) for node in here if ast.unparse(node.value) not in foreign]
    listed = set()
    for path, node in reads:
        owned = {FRAMES[node.attr]} if node.attr in FRAMES else owners[node.attr]
        if not owned or package_of(path) in owned or node.attr in TUPLES:  # without owners it is of a foreign package
            continue
        if node.attr in KERNELS:
            listed.add(node.attr)
        else:
            problems.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)} ({', '.join(sorted(owned))})")
    assert not problems, "\n".join(problems)
    assert listed == KERNELS, "the list names what is read no more"
