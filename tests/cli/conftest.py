"""The command line in this process, each test with a home of its own."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.cli import main
from tests.support.waiting import until

_ENVIRONMENT = (
    "APP_ID", "CLOUD_RUNTIMES_RUNTIME", "DAPR_HTTP_ENDPOINT", "DAPR_GRPC_ENDPOINT", "DAPR_HTTP_PORT",
    "DAPR_GRPC_PORT", "LAYOTTO_GRPC_ENDPOINT", "NAMESPACE",
)  # fmt: skip


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[bytes]:
        return self.out.splitlines()


Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of this test; nothing else of the environment counts."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("CLOUD_RUNTIMES_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command; ``stdin=`` is what it reads."""

    def run(*argv: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        code = main(argv)
        out, err = capsysbinary.readouterr()
        return Result(code, out, err.decode())

    return run


@pytest.fixture
def client(home: Path) -> Iterator[CloudRuntimesClient]:
    """A client on the same home."""
    with CloudRuntimesClient(app_id="test") as instance:
        yield instance


@pytest.fixture(params=["process", "thread"])
def signalled(request: pytest.FixtureRequest) -> Callable[[int, int], None]:
    """Send a signal to a process; also by one of its threads other than the first, whose wait it does not interrupt: so does one that comes just before the wait."""

    def send(pid: int, number: int) -> None:
        def others() -> list[int]:
            return [int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]

        os.kill(pid if request.param == "process" else max(until(others)), number)

    return send
