"""No circles of imports, those inside functions included, and none between components; layers are contracts in `pyproject.toml`."""

from __future__ import annotations

from collections import defaultdict
from graphlib import TopologicalSorter

import pytest

grimp = pytest.importorskip("grimp")

ROOT = "cloud_runtimes"
REGISTERS = ("cloud_runtimes.codec.cloudevents", "cloud_runtimes.pubsub.types")
"""An event that is decoded is the type of pub/sub, which registers itself with the kernel."""


def imports(*, types: bool) -> dict[str, set[str]]:
    """Return what each module imports; ``types``: also what only type checkers see."""
    graph = grimp.build_graph(ROOT, exclude_type_checking_imports=not types, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) - {module} for module in graph.modules}


def siblings(of: dict[str, set[str]], depth: int | None = None) -> dict[str, dict[str, set[str]]]:
    """Return, for each package, which of its members import which others; ``depth``: of packages so deep only."""
    imports: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, others in of.items():
        for imported in others:
            one, two = importer.split("."), imported.split(".")
            same = next((at for at, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), 0)
            if same and (importer, imported) != REGISTERS and depth in (None, same):
                imports[".".join(one[:same])][one[same]].add(two[same])
    return imports  # type: ignore[return-value]


def test_modules_import_in_no_circle() -> None:
    TopologicalSorter(imports(types=False)).prepare()  # an error names the circle


def test_packages_import_in_no_circle() -> None:
    for members in siblings(imports(types=False)).values():
        TopologicalSorter(members).prepare()


def test_packages_of_the_top_level_import_in_no_circle_for_types_either() -> None:
    TopologicalSorter(siblings(imports(types=True), depth=1)[ROOT]).prepare()


def test_a_component_imports_no_other() -> None:
    members = siblings(imports(types=True), depth=2)[f"{ROOT}.components"]
    between = {(one, two) for one, others in members.items() for two in others if not two.startswith("_")}
    assert between == {("env", "config_file")}, "a .env file is read and watched as a file of secrets is"
