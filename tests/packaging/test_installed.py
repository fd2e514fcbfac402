"""Installation from the wheel, with no more than it requires and with the source tree out of sight."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.packaging.builds import ROOT, environment, fresh, run
from tests.packaging.programs import RUNNABLE, check_program, programs
from tests.packaging.reader import Reader
from tests.support import Rounds, redis
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.tutorial.pages import STEPS

pytestmark = pytest.mark.process

NAMES = "import importlib.metadata as m; print(*sorted({each.name.lower() for each in m.distributions()}))"


def test_the_base_install(pure: Path, tmp_path: Path) -> None:
    python = fresh(tmp_path / "venv", pure)
    assert run(python, "-c", NAMES).stdout.split() == ["cloud-runtimes-python", "msgpack", "orjson"]
    program = (ROOT / "tests/packaging/base_program.py").read_text(encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = run(python, "-W", "error", "program.py", env=environment(None), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for command in ((), ("state", "get", "orders", "order-1")):
        done = run(python.with_name("cloud-runtimes"), *command, env=environment(None), cwd=tmp_path)
        line = 'error: this command needs an extra: pip install ".[cli]" in the checkout\n'
        assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


MISSION = """
import json
from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient(timeout=30.0)
client.state.save(store_name="state-store", key="my-key", value={"data": "value"})
print(json.dumps(client.state.get(store_name="state-store", key="my-key")))
client.close()
"""


def test_the_standard_install_by_a_new_user(pure: Path, tmp_path: Path, rounds: Rounds) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with redis.serve() as server:
        elsewhere = {"make demo\nmake test": "true"}
        reader = Reader(tmp_path, pure, {"redis://localhost": server.url, **elsewhere})
        for number in range(1, rounds(1, 3) + 1):
            reader.follow(readme)
            reader.hear("ship order-2 for 30.0\n", number)
            reader.hear("orders: 2\n", number)
            reader.stop()
        assert reader.said.count("{'total': 12.5}\n") == 2 * number
        assert reader.said.count('"data":{"id":"order-1"}') == 2 * number
        assert reader.said.count('"placed":"order-2"') == reader.said.count('{"id":"order-2","total":30.0}') == number
        assert b"order-2" in server.command("KEYS", "*order-2*")
    python = reader.python
    sources = [text for path in RUNNABLE if path != "README.md" for text in programs(path)]
    assert len(sources) > 15
    for number, text in enumerate(sources):
        folder = tmp_path / str(number)
        folder.mkdir()
        if not re.search(r"opentelemetry|structlog|loguru", text):  # which are packages of others
            check_program(python, text, folder)
    command = python.with_name("cloud-runtimes")
    done = run(command, "sql", "bank", "SELECT 1 AS one", env=environment(None), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n1\n", "")
    sidecar = (command, "serve", "--dapr-http-port", "0", "--", python, "-W", "error", "-c", MISSION)
    done = run(*sidecar, env=environment(None), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, '{"data": "value"}\n')
    assert done.stderr.startswith("note: HTTP alone, since gRPC needs an extra")


def test_a_reader_of_the_tutorial(tmp_path: Path, rounds: Rounds, request: pytest.FixtureRequest) -> None:
    """Its first steps; with ``--soak`` all but the containers, in a fresh environment, the second home on PostgreSQL."""
    steps = [(ROOT / "docs/tutorial" / step).read_text(encoding="utf-8") for step in STEPS]
    port = free_port()
    look = "cloud-runtimes state get shipments 3"
    mine = {
        "uvicorn shop.web:app": f"uvicorn shop.web:app --port {port}",
        "localhost:8000": f"localhost:{port}",
        "python3 -m venv": "python3 -m venv --without-pip",  # its commands are in an environment already
        look: f"until {look}; do sleep 0.1; done",  # the worker may need the moment that a user needs to type
    }
    wheel = request.getfixturevalue("pure") if rounds(0, 1) else None
    reader = Reader(tmp_path, wheel, mine)
    for step in steps[: rounds(3, 8)]:
        reader.follow(step)
    reader.stop()
    assert '{"order":"3","parcels":3}' in reader.said
    if wheel is not None:
        with PostgresServer() as server:
            mine["postgresql://shop:PASSWORD@db.example.com/shop"] = server.url
            reader.follow(steps[8])
            order = json.dumps({"id": "5", "item": "tea", "quantity": 1})
            reader.type(f"curl -s localhost:{port}/orders -H 'content-type: application/json' -d '{order}'")
            reader.type(f"until curl -s localhost:{port}/orders/5 | grep parcels; do sleep 0.1; done")
            reader.type(f"curl -s localhost:{port}/orders/4")
            reader.stop()
        assert reader.said.endswith('"shipment":{"order":"4","parcels":2}}')
        assert '"id":"4","item":"tea","quantity":12' in reader.said
        assert "3 passed" in reader.said
        assert '"status":"succeeded"' in reader.said
    assert "Traceback" not in reader.said + reader.heard()


def test_a_component_of_others_passes_its_suites(pure: Path, tmp_path: Path) -> None:
    """The package of docs/how-to/write-a-component.md, installed beside the wheel."""
    page = (ROOT / "docs/how-to/write-a-component.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```(?:python|toml)\n# (\S+\.\w+)\n(.*?)```", page, re.DOTALL))
    assert sorted(files) == [
        "acme_memory/__init__.py",
        "acme_memory/broker.py",
        "pyproject.toml",
        "test_acme_memory.py",
    ]
    for name, text in files.items():
        path = tmp_path / "acme" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    python = fresh(tmp_path / "venv", pure, "pytest", tmp_path / "acme")
    suites = tmp_path / "suites"
    suites.mkdir()
    (tmp_path / "acme" / "test_acme_memory.py").rename(suites / "test_acme_memory.py")
    done = run(
        *(python, "-m", "pytest", "-q", "-rs", "-W", "error", "-p", "no:cacheprovider"),
        env=environment(None),
        cwd=suites,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    passed = re.search(r"^(\d+) passed.* (\d+) subtests passed", done.stdout, re.MULTILINE)
    assert passed is not None, done.stdout
    assert int(passed[1]) + int(passed[2]) > 100
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all(line.endswith("is not declared") for line in skipped), skipped
