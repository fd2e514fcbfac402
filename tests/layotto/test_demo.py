"""The demo, unchanged, with one configuration file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_layotto import FakeLayotto

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.demo import _flights as flights

pytestmark = pytest.mark.process
EVENTS = 1500
DEADLINE = 120


def test_the_demo_runs_over_layotto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        flights.archive()
    except flights.MissingDataError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    monkeypatch.setenv("CLOUD_RUNTIMES_SECRET_DEMO_REPORT__KEY", "a key of sixteen characters")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {"capa": {"home": ":memory:demo"}}
    with CloudRuntimesClient(runtime="capa", app_id="flights-demo", config=config) as beneath:
        with FakeLayotto(beneath, app_id="flights-demo") as fake:
            fake.invoke.routes["flights-demo"] = f"127.0.0.1:{port}"
            path = tmp_path / "cloud.toml"
            path.write_text(f'runtime = "layotto"\nendpoint = "{fake.endpoint}"\n', encoding="utf-8")
            command = [sys.executable, "-W", "error", "-m", "cloud_runtimes.demo"]
            command += ["--events", str(EVENTS), "--config", str(path)]
            done = subprocess.run(
                command,
                env={**os.environ, "APP_PORT": str(port)},
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all totals as in the file, nothing lost" in done.stdout
