"""The demo, unchanged, with one configuration file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.support import Figure, Rounds
from tests.support.fake_layotto import FakeLayotto
from tests.support.layotto import layotto_process
from tests.support.needs import needs_flights
from tests.support.ports import reserved_port

pytestmark = [pytest.mark.process, needs_flights]
EVENTS = 1500
DEADLINE = 120


def run(folder: Path, endpoint: str, port: int, events: int) -> str:
    """Run it, and return what it says."""
    path = folder / "cloud.toml"
    path.write_text(f'runtime = "layotto"\nendpoint = "{endpoint}"\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.demo", "--config", str(path), "--events", str(events)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "APP_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=DEADLINE + events / 200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all totals as in the file, nothing lost" in done.stdout
    return done.stdout


def test_the_demo_runs_over_layotto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RUNTIMES_SECRET_DEMO_REPORT__KEY", "a key of sixteen characters")
    config = {"capa": {"home": ":memory:demo"}}
    with reserved_port() as port, CloudRuntimesClient(runtime="capa", app_id="flights-demo", config=config) as beneath:
        with FakeLayotto(beneath, app_id="flights-demo") as fake:
            fake.invoke.routes["flights-demo"] = f"127.0.0.1:{port}"
            run(tmp_path, fake.endpoint, port, EVENTS)


@pytest.mark.skipif(not os.environ.get("LAYOTTO"), reason="LAYOTTO names no Layotto")
def test_the_demo_runs_over_a_real_layotto(tmp_path: Path, rounds: Rounds, figure: Figure) -> None:
    with layotto_process(tmp_path, app_id="flights-demo", service="flights-demo") as layotto:
        if layotto is None:
            pytest.skip("there is no redis-server")
        count = rounds(EVENTS, 336_776)
        output = run(tmp_path, f"grpc://127.0.0.1:{layotto.grpc}", layotto.app, count)
    lost = re.search(r"lost\s+(\d+)", output)
    assert lost is not None
    figure("demo over a real Layotto, flights", f"{count:,}, lost {lost[1]}")
