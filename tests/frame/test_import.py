"""What importing costs: nothing heavy is loaded, and the time stays near that of one module of the standard library."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.process

HEAVY = (
    "asyncio",
    "concurrent.futures",
    "http",
    "importlib.metadata",
    "logging",
    "orjson",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "typer",
)

LOADED = """
import sys
before = set(sys.modules)
{statement}
import json
print(json.dumps(sorted(set(sys.modules) - before)))
"""

TIMED = """
import time
begin = time.perf_counter()
{statement}
print(time.perf_counter() - begin)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def loaded(statement: str) -> set[str]:
    return set(json.loads(run(LOADED.format(statement=statement))))


@pytest.mark.parametrize("statement", ["import cloud_runtimes", "from cloud_runtimes import CloudRuntimesClient"])
def test_nothing_heavy_is_loaded(statement: str) -> None:
    modules = loaded(statement)
    assert "cloud_runtimes" in modules
    assert not {name for name in modules if name in HEAVY or name.startswith(tuple(f"{each}." for each in HEAVY))}


def test_the_bare_package_loads_its_version_alone() -> None:
    assert {name for name in loaded("import cloud_runtimes") if name.startswith("cloud_runtimes")} == {
        "cloud_runtimes",
        "cloud_runtimes._version",
    }


def test_making_a_client_loads_no_service() -> None:
    modules = loaded("from cloud_runtimes import CloudRuntimesClient\nCloudRuntimesClient()")
    assert "cloud_runtimes.client" in modules
    assert not {name for name in modules if name.startswith(("cloud_runtimes.state", "cloud_runtimes.components"))}
    assert not modules & set(HEAVY)


@pytest.mark.timing
def test_import_time(figure: Callable[[str, str], None]) -> None:
    def seconds(statement: str) -> float:
        return float(run(TIMED.format(statement=statement)))

    ours, theirs = "from cloud_runtimes import CloudRuntimesClient", "import asyncio"
    for statement in (ours, theirs):  # the files are read, and compiled, once
        seconds(statement)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(9)]  # interleaved: noise meets both
    ratio = statistics.median(mine / other for mine, other in pairs)
    mine, other = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    figure(
        "import time, `from cloud_runtimes import CloudRuntimesClient`",
        f"{mine:.1f} ms, {ratio:.2f} of `import asyncio` ({other:.1f} ms)",
    )
    assert ratio <= 1.5
