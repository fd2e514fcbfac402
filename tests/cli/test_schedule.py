"""``schedule add|list|rm|history|run``."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import NotFoundError
from cloud_runtimes.schedule import RpcTarget, TopicTarget


def test_add_list_rm(cli: Any, home: Path) -> None:
    assert cli("schedule", "add", "j", '{"a": 1}', "--schedule", "0 3 * * *", "--timezone", "Europe/Paris")[:2] == (
        0,
        b"",
    )
    result = cli("schedule", "add", "j", "--schedule", "@hourly")
    assert result.code == 4
    assert "--overwrite" in result.err or "overwrite" in result.err
    assert (
        cli(
            "schedule", "add", "j", "text", "--due", "1h", "--overwrite", "--rpc", "orders/sync/all", "--retries", "0"
        ).code
        == 0
    )
    options = ("--schedule", "@every 5s", "--repeats", "3", "--ttl", "1h", "--misfire", "all", "--topic", "bus/t")
    assert cli("schedule", "add", "k", *options).code == 0
    lines = [json.loads(line) for line in cli("schedule", "list").lines]
    assert [line["name"] for line in lines] == ["j", "k"]
    assert lines[0]["data"] == "text"
    assert lines[0]["target"] == {"service": "orders", "method": "sync/all"}
    assert (lines[1]["repeats"], lines[1]["misfire"], lines[0]["failure_policy"]) == (3, "all", "drop")
    with CloudRuntimesClient(app_id="cloud-runtimes") as client:
        assert client.schedule.get_job("j").target == RpcTarget("orders", "sync/all")
        assert client.schedule.get_job("k").target == TopicTarget("bus", "t")
        assert cli("schedule", "rm", "j", "k", "absent").code == 0
        with pytest.raises(NotFoundError):
            client.schedule.get_job("j")
    assert cli("schedule", "list")[:2] == (0, b"")


def test_a_job_that_cannot_be_read_is_listed(cli: Any, home: Path) -> None:
    for name in ("good", "odd"):
        assert cli("schedule", "add", name, "--schedule", "@daily").code == 0
    with closing(sqlite3.connect(home / "cloud_runtimes.db")) as connection, connection:
        connection.execute("UPDATE schedule_jobs SET spec = '{' WHERE name = 'odd'")
    lines = {line["name"]: line for line in map(json.loads, cli("schedule", "list").lines)}
    assert lines["good"]["error"] is None
    assert "JSONDecodeError" in lines["odd"]["error"]
    assert cli("schedule", "rm", "odd").code == 0
    assert [json.loads(line)["name"] for line in cli("schedule", "list").lines] == ["good"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("add", "j"), "schedule="),
        (("add", "j", "--schedule", "x"), "schedule 'x'"),
        (("add", "j", "--due", "x"), "due_time 'x'"),
        (("add", "a/b", "--due", "1s"), "name"),
        (("add", "j", "--due", "1s", "--rpc", "s/m", "--topic", "b/t"), "not both"),
        (("add", "j", "--due", "1s", "--topic", "b"), "topic"),
        (("add", "j", "--due", "1s", "--misfire", "never"), "misfire"),
    ],
)
def test_what_is_no_job(cli: Any, argv: tuple[str, ...], message: str) -> None:
    result = cli("schedule", *argv)
    assert result.code == 2
    assert message in result.err
    assert cli("schedule", "list").out == b""


def test_run_now_and_history(cli: Any, home: Path) -> None:
    assert cli("schedule", "run", "j").code == 3
    assert cli("schedule", "add", "j", "--schedule", "@yearly").code == 0
    (run,) = cli("schedule", "run", "j").lines
    (line,) = map(json.loads, cli("schedule", "history", "j").lines)
    assert (line["run_id"], line["status"], line["attempt"]) == (run.decode(), "waiting", 0)
    assert cli("schedule", "history", "absent")[:2] == (0, b"")


@pytest.mark.process
def test_run_until_a_signal(cli: Any, home: Path) -> None:
    assert cli("schedule", "add", "j", "5", "--due", "0s", "--topic", "bus/t").code == 0
    argv = [sys.executable, "-m", "cloud_runtimes", "schedule", "run"]
    with (
        CloudRuntimesClient(app_id="cloud-runtimes") as client,
        client.pubsub.subscribe("bus", "t") as events,
        subprocess.Popen(argv, env={**os.environ}, stderr=subprocess.PIPE, text=True) as process,
    ):
        event = events.receive(30)
        assert event is not None
        assert event.data == 5
        event.ack()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert client.schedule.list_runs("j")[0].status == "succeeded"
