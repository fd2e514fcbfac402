"""The commands of the documentation run as they are written, in a folder where what a page takes for granted is; its files for other tools are what these read."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.builds import ROOT
from tests.packaging.reader import Reader
from tests.support import redis
from tests.support.ports import free_port
from tests.tutorial.pages import STEPS

BLOCK = re.compile(r"(?:<!-- not run by a test: needs (.+?) -->\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELSEWHERE = {
    "CONTRIBUTING.md": "tests/packaging/test_documentation.py",
    "README.md": "tests/packaging/test_installed.py",
    "docs/how-to/django.md": "tests/tutorial/test_pages.py",
    "docs/how-to/from-the-laptop-to-dapr.md": "tests/demo/test_demo.py",
    "docs/how-to/run-on-postgresql.md": "tests/postgres/test_operation.py",
    "docs/how-to/run-on-redis.md": "tests/redis/test_operation.py",
    **dict.fromkeys((f"docs/tutorial/{step}" for step in STEPS), "tests/packaging/test_installed.py"),
}
"""Pages whose commands other tests run."""
PAGES = sorted(str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(path: str, *languages: str) -> list[str]:
    """Return the blocks of a page in some languages, but for those that need what is not here, which they say."""
    page = (ROOT / path).read_text(encoding="utf-8")
    return [text for needs, language, text in BLOCK.findall(page) if language in languages and not needs]


def commands(path: str) -> list[str]:
    """Return the blocks of commands, which name no language; Sphinx' directives are no blocks."""
    return [text for text in blocks(path, "", "sh") if text.strip() and not text.startswith("\n## ")]


# -- what a page takes for granted ------------------------------------------------

FREE = {
    "--app-port 8080": "--app-port 8080 -H 0 -G 0",
    "telemetry serve": "telemetry serve --port 0",
    "cloud-runtimes dashboard": "cloud-runtimes dashboard --port 0 --home :memory:",
}
SHOP = """from cloud_runtimes import CloudRuntimesClient

client = CloudRuntimesClient(app_id="shop")


@client.rpc.method("place-order")
def place_order(order: dict[str, float]) -> float:
    return order["total"]
"""
APP = """import os, urllib.request

port = os.environ["DAPR_HTTP_PORT"]
print("sidecar:", urllib.request.urlopen(f"http://127.0.0.1:{port}/v1.0/healthz/outbound").status)
"""
RECORDS = """from cloud_runtimes import CloudRuntimesClient

with CloudRuntimesClient(config={"telemetry": {"instrument": True}}) as client:
    client.state.save("orders", "1", {"total": 12.5})
    print("arrived:", client.telemetry.flush(timeout=10))
"""


@contextmanager
def _command_line(reader: Reader) -> Iterator[dict[str, str]]:
    reader.write("shop/main.py", SHOP)
    reader.write("app.py", APP)
    reader.write("cloud.toml", 'app_id = "shop"\n')
    reader.write("q1.csv", "item,total\n")
    reader.write("nightly.sh", "#!/bin/sh\necho nightly\n").chmod(0o755)
    reader.type("export CLOUD_RUNTIMES_SECRET_SHOP_DB__PASSWORD=open-sesame")
    reader.type("cloud-runtimes sql bank 'CREATE TABLE account (id INTEGER)'")
    reader.type("cloud-runtimes sql bank 'INSERT INTO account VALUES (1)'")
    yield {**FREE, "copy --from .cloud_runtimes": "copy --from .cloud_runtimes --to elsewhere"}
    for text in ('{"total": 12.5}\n', '"data":{"n": 2}', "sidecar: 204\n", "nightly\n", "2026/q1.csv"):
        assert text in reader.said
    assert (reader.folder / "password").read_text(encoding="utf-8") == "open-sesame"


@contextmanager
def _workers(reader: Reader) -> Iterator[dict[str, str]]:
    (text,) = (text for text in blocks("docs/how-to/workers.md", "python") if text.startswith("# shop.py"))
    reader.write("shop.py", text)
    yield {"--workers 4": "--workers 2"}
    assert reader.heard().count("with 1 method, 1 subscription, 1 job") == 3


@contextmanager
def _dead_letters(reader: Reader) -> Iterator[dict[str, str]]:
    reader.type("""echo '{"id": 1}' | cloud-runtimes publish bus orders.dead""")
    yield {"--count 10": "--count 1"}
    assert '"data":{"id": 1}' in reader.said


@contextmanager
def _collector(reader: Reader) -> Iterator[dict[str, str]]:
    reader.write("shop.py", RECORDS)
    port = free_port()
    reader.type(f"cloud-runtimes telemetry serve --port {port}")
    yield {"localhost:4318": f"localhost:{port}"}
    assert "arrived: True\n" in reader.said


@contextmanager
def _sidecar(reader: Reader) -> Iterator[dict[str, str]]:
    reader.write("app.py", APP)
    yield FREE
    assert "sidecar: 204\n" in reader.said


def _fill(reader: Reader) -> None:
    reader.type("""cloud-runtimes state save orders 1 '{"total": 12.5}'""")


@contextmanager
def _postgresql(reader: Reader, url: str) -> Iterator[dict[str, str]]:
    _fill(reader)
    server, _, name = url.rpartition("/")
    yield {
        "createdb shop": f"createdb --maintenance-db={url} {name}_shop",
        "postgresql://shop:password@db.example.com/shop": f"{server}/{name}_shop",
        "/srv/": "",
    }
    assert len(re.findall(r"^state +orders +1 +1 +0 +0 ", reader.said, re.MULTILINE)) == 2
    reader.type(f"dropdb --maintenance-db={url} {name}_shop")


@contextmanager
def _redis(reader: Reader) -> Iterator[dict[str, str]]:
    _fill(reader)
    with redis.serve() as server:
        yield {"redis://shop:password@redis.example.com/0": server.url, "/srv/": ""}
    assert len(re.findall(r"^state +orders +1 +1 +0 +0 ", reader.said, re.MULTILINE)) == 2


@contextmanager
def _nats(reader: Reader) -> Iterator[dict[str, str]]:
    _fill(reader)
    (text,) = (text for text in blocks("docs/how-to/move-to-nats.md", "text") if text.startswith("listen: "))
    port, monitor = free_port(), free_port()
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}").replace("/var/lib/nats", str(reader.folder / "data"))
    reader.write("server.conf", f'http: "127.0.0.1:{monitor}"\n{text}')
    yield {
        "shop:password@nats.example.com": f"owner:owner-secret@127.0.0.1:{port}",
        "nats.example.com": f"127.0.0.1:{port}",
        "127.0.0.1:8222": f"127.0.0.1:{monitor}",
    }
    assert re.search(r"^state +orders +1 +1 +0 +0 ", reader.said, re.MULTILINE)
    assert '"status":"ok"' in reader.said
    assert "KV_cr-state-orders" in reader.said


PREPARED: dict[str, Callable[..., Any]] = {
    "docs/how-to/dead-letters.md": _dead_letters,
    "docs/how-to/move-to-nats.md": _nats,
    "docs/how-to/move-to-postgresql.md": _postgresql,
    "docs/how-to/move-to-redis.md": _redis,
    "docs/how-to/telemetry-to-a-collector.md": _collector,
    "docs/how-to/workers.md": _workers,
    "docs/reference/command-line.md": _command_line,
    "docs/reference/sidecar.md": _sidecar,
}


@pytest.mark.process
@pytest.mark.parametrize("path", [path for path in PAGES if path not in ELSEWHERE and commands(path)])
def test_the_commands_run(path: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    reader = Reader(tmp_path, None, {})
    prepared = PREPARED.get(path, lambda reader: nullcontext(FREE))
    given = [request.getfixturevalue("postgres_database")] if prepared is _postgresql else []
    with prepared(reader, *given) as replacements:
        reader.replacements = replacements
        try:
            for block in commands(path):
                reader.follow(f"```\n{block}```\n")
        finally:
            reader.stop()
    assert "Traceback" not in reader.said + reader.heard()


def test_what_is_not_run_says_what_it_needs() -> None:
    needed = {needs for path in PAGES for needs, _, _ in BLOCK.findall((ROOT / path).read_text(encoding="utf-8"))}
    assert needed - {""} == {"AWS", "Dapr", "Docker", "Kafka", "Kubernetes", "RabbitMQ", "etcd", "uvicorn-worker"}


# -- files ------------------------------------------------------------------------


def test_files_can_be_read(subtests: pytest.Subtests) -> None:
    for path in PAGES:
        with subtests.test(path=path):
            for text in blocks(path, "toml"):
                tomllib.loads(text)
            for text in blocks(path, "json"):
                json.loads(text)
            for text in blocks(path, "yaml"):
                assert all(isinstance(each, dict) for each in yaml.safe_load_all(text))


def test_the_pipelines_of_the_collector_have_their_parts() -> None:
    (text,) = blocks("docs/how-to/telemetry-to-a-collector.md", "yaml")
    collector = yaml.safe_load(text)
    pipelines = collector["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics", "logs"}
    for pipeline in pipelines.values():
        assert set(pipeline) == {"receivers", "exporters"}
        for part, names in pipeline.items():
            assert set(names) <= set(collector[part])
