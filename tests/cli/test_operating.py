"""``services``, ``stores``, ``overview``, ``top``, ``lock list|break`` and ``schedule list --all|pause|resume|retry``."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.admin import AdminService, Overview
from cloud_runtimes.pubsub import Event
from tests.cli.conftest import Run
from tests.support.waiting import until


def test_services(cli: Run, client: CloudRuntimesClient) -> None:
    assert cli("services")[:2] == (0, b"")
    client.rpc.register_method("add", lambda: 1)
    with client.rpc.serving(port=0) as server:
        (service,) = map(json.loads, cli("services").lines)
        assert (service["app_id"], service["methods"]) == ("test", ["add"])
        (instance,) = service["instances"]
        assert (instance["address"], instance["pid"]) == (server.address, os.getpid())
        assert cli("services", "--prefix", "x")[:2] == (0, b"")


def test_services_on_a_terminal(cli: Run, client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    client.rpc.register_method("add", lambda: 1)
    with client.rpc.serving(port=0) as server:
        head, _, row = cli("services").lines
        assert b"app_id" in head
        assert server.address.encode() in row


def test_stores(cli: Run, client: CloudRuntimesClient) -> None:
    assert cli("stores")[:2] == (0, b"")
    client.state.save("carts", "k", 1)
    client.file.put_file("reports", "a", b"x")
    assert [json.loads(line) for line in cli("stores").lines] == [
        {"service": "state", "name": "carts", "component": "sqlite", "declared": False},
        {"service": "file", "name": "reports", "component": "local", "declared": False},
    ]


def test_locks(cli: Run, client: CloudRuntimesClient) -> None:
    assert cli("lock", "list", "locks")[:2] == (0, b"")
    lease = client.lock.try_lock("locks", "orders/1", "me", expiry=60)
    assert lease is not None
    (lock,) = map(json.loads, cli("lock", "list", "locks").lines)
    assert (lock["resource_id"], lock["owner"], lock["token"], lock["waiting"]) == ("orders/1", "me", lease.token, 0)
    assert cli("lock", "list", "locks", "--prefix", "x")[:2] == (0, b"")


def test_break_lock(cli: Run, client: CloudRuntimesClient) -> None:
    assert cli("lock", "break", "locks", "r").code == 3
    lease = client.lock.try_lock("locks", "r", "me", expiry=60)
    assert lease is not None
    assert client.lock.try_lock("locks", "r2") is not None
    result = cli("lock", "break", "locks", "r", "--dry-run")
    assert result.code == 0
    assert "r is held by me since 20" in result.err
    assert f"token {lease.token}" in result.err
    result = cli("lock", "break", "locks", "r")
    assert result.code == 2
    assert "give --yes" in result.err
    assert cli("lock", "break", "locks", "r", "--token", "1", "--yes").code == 4
    assert client.lock.try_lock("locks", "r") is None
    assert cli("lock", "break", "locks", "r", "--yes").code == 0
    assert client.lock.try_lock("locks", "r") is not None


def test_pause_and_resume(cli: Run, client: CloudRuntimesClient) -> None:
    client.schedule.schedule_job("j", schedule="@hourly")
    job = ("--app-id", "test", "schedule")
    assert cli(*job, "pause", "absent", "--yes").code == 3
    assert "next run" in cli(*job, "pause", "j", "--dry-run").err
    assert cli(*job, "pause", "j").code == 2
    assert not client.schedule.get_job("j").paused
    assert cli(*job, "pause", "j", "--yes").code == 0
    assert client.schedule.get_job("j").paused
    assert "paused already" in cli(*job, "pause", "j").err
    (listed,) = map(json.loads, cli("schedule", "list", "--all").lines)
    assert (listed["app_id"], listed["name"], listed["paused"], listed["next_run"]) == ("test", "j", True, None)
    assert cli(*job, "resume", "j", "--dry-run").code == 0
    assert client.schedule.get_job("j").paused
    assert cli(*job, "resume", "j", "--yes").code == 0
    assert not client.schedule.get_job("j").paused


def test_retry(cli: Run, client: CloudRuntimesClient) -> None:
    @client.schedule.job("j")
    def run() -> None:
        raise ZeroDivisionError("no")

    client.schedule.schedule_job("j", schedule="@yearly", failure_policy="drop")
    job = ("--app-id", "test", "schedule", "retry", "j")
    result = cli(*job, "--yes")
    assert result.code == 3
    assert "no run of 'j' has failed" in result.err

    def failed() -> int:
        return sum(each.status == "failed" for each in client.schedule.list_runs("j"))

    with client.schedule.running():
        run_id = client.schedule.run_now("j")
        assert until(lambda: failed() == 1)
        result = cli(*job, "--dry-run")
        assert run_id in result.err
        assert "ZeroDivisionError: no" in result.err
        assert cli(*job, "absent", "--yes").code == 3
        assert failed() == 1
        assert cli(*job, "--yes").code == 0
        assert until(lambda: failed() == 2)


@pytest.fixture
def lagging(client: CloudRuntimesClient) -> CloudRuntimesClient:
    with client.pubsub.subscribe("bus", "t", group="g", dead_letter_topic="dead") as events:
        client.pubsub.publish("bus", "t", 1)
        event = events.receive(timeout=10)
        assert isinstance(event, Event)
        event.drop()
    client.pubsub.publish("bus", "t", 2)
    return client


def test_overview(cli: Run, lagging: CloudRuntimesClient) -> None:
    result = cli("overview", "--dead", "dead")
    assert result.code == 0
    found = json.loads(result.out)
    assert [each["error"] for each in found["components"]] == [None]
    (backlog,) = found["groups"]
    assert (backlog["pubsub_name"], backlog["group"]["name"], backlog["group"]["lag"]) == ("bus", "g", 1)
    assert [each["topic"]["events"] for each in found["dead_letters"]] == [1]


def test_overview_of_what_is_away(cli: Run, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[state.carts]\ncomponent = "redis"\nurl = "redis://127.0.0.1:1"\n')
    result = cli("--config", str(config), "overview")
    assert result.code == 1
    assert "cannot be reached" in json.loads(result.out)["components"][0]["error"]


def test_overview_on_a_terminal(
    cli: Run, lagging: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    config = tmp_path / "c.toml"
    config.write_text('[state.carts]\ncomponent = "redis"\nurl = "redis://127.0.0.1:1"\n')
    text = cli("--config", str(config), "overview", "--dead", "dead").out.decode()
    assert "1 component 1 away   1 group, 1 behind   1 dead-letter topic   0 failed jobs" in text
    for title in "Components that do not answer", "Groups", "Dead letters":
        assert f"\n\n{title}\n" in text
    assert "Jobs that failed" not in text


def test_top_in_a_pipe(cli: Run, lagging: CloudRuntimesClient) -> None:
    result = cli("top", "--count", "2", "--interval", "0.1")
    assert result.code == 0
    assert [json.loads(line)["groups"][0]["group"]["lag"] for line in result.lines] == [1, 1]


def test_top_leaves_servers_alone_for_longer_than_it_looks(
    cli: Run, lagging: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment, waited = [0.0], [0.0]

    def look(*arguments: Any, **options: Any) -> Overview:
        moment[0] += 0.5  # it takes so long
        return Overview((), (), (), (), (), 0)

    def wait(seconds: float) -> str:
        moment[0] += seconds
        waited[0] += seconds
        return ""

    monkeypatch.setattr("cloud_runtimes.cli._top.monotonic", lambda: moment[0])
    monkeypatch.setattr("cloud_runtimes.cli._top._no_keys", wait)
    monkeypatch.setattr(AdminService, "overview", look)
    assert len(cli("top", "--count", "2", "--interval", "1").lines) == 2
    assert waited[0] == pytest.approx(20 * 0.5)


@contextmanager
def _top(*options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run ``top`` on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cloud_runtimes", "top", "--interval", "0.1", *options]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        try:
            yield ours, process
        finally:
            process.kill()
            os.close(ours)


def _read_until(terminal: int, text: bytes) -> bytes:
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 65536)
    return shown


@pytest.mark.process
@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
def test_top_on_a_terminal(lagging: CloudRuntimesClient, end: str) -> None:
    with _top("--dead", "dead") as (terminal, process):
        first = _read_until(terminal, b"Dead letters")
        assert b"\x1b[?1049h" in first
        lagging.pubsub.publish_bulk("bus", "t", [0] * 41)
        _read_until(terminal, b"42")
        if end == "q":
            os.write(terminal, b"q")
        else:
            process.send_signal(signal.SIGINT)
        _read_until(terminal, b"\x1b[?1049l")
        assert process.wait(30) == 0
