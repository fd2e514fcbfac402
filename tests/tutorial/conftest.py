"""The shop of the tutorial, copied and run as its readers run it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient

SHOP = Path(__file__).parent.parent.parent / "docs" / "tutorial" / "shop"
RUN = ("-m", "cloud_runtimes", "run", "shop.handlers:client")


def wait_until(condition: Callable[[], object], shown: Callable[[], str], seconds: float = 60.0) -> None:
    """Wait for a condition; when the time is up show why it may not have come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, shown()
        time.sleep(0.01)


def ask(url: str, data: Any = None) -> Any:
    """Get JSON, or post it."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


class Project:
    """A folder in which programs run, with what they write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run Python in the folder."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD_RUNTIMES_")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, times: int = 1, seconds: float = 60.0) -> None:
        wait_until(lambda: self.output().count(text) >= times, self.output, seconds)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Shop(Project):
    """A copy of the shop, and a client of its home."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        super().__init__(folder)
        self.handlers = folder / "shop" / "handlers.py"
        self.client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": str(folder / ".cloud_runtimes")}})

    def move(self, home: dict[str, str], **homes: str) -> None:
        """Move it to a server, by its ``home`` and a line for each service that the server lacks."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in home.items()]
        lines += ["[capa.homes]", *(f"{service} = {json.dumps(place)}" for service, place in homes.items())]
        path = self.folder / "cloud-runtimes.toml"
        path.write_text("\n".join([path.read_text(encoding="utf-8"), "[capa.home]", *lines, ""]), encoding="utf-8")
        self.client.close()
        self.client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": home, "homes": homes}})

    def close(self) -> None:
        self.client.close()
        super().close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    if not SHOP.exists():
        pytest.skip("docs is not among the test's files")
    instance = Shop(tmp_path / "shop")
    yield instance
    instance.close()
