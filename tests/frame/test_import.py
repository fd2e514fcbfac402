"""Cost of importing: it loads nothing heavy, and its time stays near that of one module of the standard library."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

from tests.support import Figure

pytestmark = pytest.mark.process

EXTRAS = (
    "cronsim", "google", "grpc", "h11", "keyring", "opentelemetry", "psycopg", "rich", "sqlalchemy", "starlette",
    "typer", "uvicorn", "watchfiles", "yaml",
)  # fmt: skip
HEAVY = (*EXTRAS, "asyncio", "concurrent.futures", "http", "importlib.metadata", "logging", "orjson", "sqlite3")

USED = """
import os
os.environ["CLOUD_RUNTIMES_HOME"] = ":memory:"
os.environ["CLOUD_RUNTIMES_SECRET_S_K"] = "v"
from cloud_runtimes import CloudRuntimesClient
with CloudRuntimesClient(app_id="app") as client:
    client.state.save("s", "k", 1)
    client.pubsub.publish("bus", "t", 1)
    client.configuration.save_configuration("s", {"k": "v"})
    client.secret.get_secret("s", "k")
    client.telemetry.logger("l").info("m")
    client.file.put_file("s", "k", b"v")
    client.lock.try_lock("s", "k").release()
    client.rpc.register_method("m", lambda: None)
    client.rpc.invoke_method("app", "m")
    client.schedule.job("j")(lambda: None)
    client.schedule.schedule_job("j", schedule="@every 1h")
    client.database.tables  # made, and not used
"""

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


def test_using_services_loads_no_package_of_an_extra() -> None:
    modules = loaded(USED)
    assert "cloud_runtimes.components.sqlite" in modules
    assert {name for name in modules if name.partition(".")[0] in EXTRAS} == set()


@pytest.mark.soak
def test_import_time(figure: Figure) -> None:
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
