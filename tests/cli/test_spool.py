"""``spool``: what waits for a broker, as an operator sees and mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.cli.conftest import Run

CONFIG = """
[pubsub.bus]
component = "nats"
url = "nats://127.0.0.1:9"
spool = true

[pubsub.plain]
component = "nats"
url = "nats://127.0.0.1:9"
"""


@pytest.fixture
def cli(cli: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command where three events wait in the spool of ``bus``, and one in the home for ``plain``."""
    config = home.parent / "cloud-runtimes.toml"
    config.write_text(CONFIG)
    monkeypatch.setenv("CLOUD_RUNTIMES_CONFIG", str(config))
    with CloudRuntimesClient() as client:
        client.pubsub.publish_bulk("bus", "t", [1, 2, 3])
        with client.state.transaction("orders") as tx:
            tx.publish("plain", "t", 4)
    return cli


def test_status(cli: Run) -> None:
    shown = {row["pubsub"]: row for row in map(json.loads, cli("spool", "status").lines)}
    assert {name: (row["events"], row["in"], row["configured"]) for name, row in shown.items()} == {
        "bus": (3, "the spool of 'bus'", True),
        "plain": (1, "the home", True),
    }
    assert [json.loads(line)["pubsub"] for line in cli("spool", "status", "bus").lines] == ["bus"]
    result = cli("spool", "status", "none")
    assert (result.code, result.out, result.err) == (0, b"", "nothing waits\n")


def test_doctor(cli: Run) -> None:
    result = cli("doctor", "--json")
    assert result.code == 1, "no broker answers"
    waiting = {each["pubsub"]: each for each in json.loads(result.out)["waiting"]}
    assert {name: (each["events"], each["in"]) for name, each in waiting.items()} == {
        "bus": (3, "the spool of 'bus'"),
        "plain": (1, "the home"),
    }
    assert "3 events wait for bus in the spool of 'bus'" in cli("doctor").out.decode()


def test_flush(cli: Run) -> None:
    result = cli("spool", "flush", "bus", "--wait", "0.5")
    assert result.code == 5
    assert "3 events still wait after 0.5 s" in result.err
    assert cli("spool", "flush", "none").code == 0


def test_drop(cli: Run) -> None:
    assert "3 events that wait for bus" in cli("spool", "drop", "bus", "--dry-run").err
    refused = cli("spool", "drop", "bus")
    assert refused.code == 2
    assert "give --yes" in refused.err
    assert len(cli("spool", "status", "bus").lines) == 1
    assert "3 events are dropped" in cli("spool", "drop", "bus", "--yes").err
    (row,) = map(json.loads, cli("spool", "status", "bus").lines)
    assert (row["events"], row["dropped"], row["oldest"]) == (0, 3, None)
    assert cli("spool", "refused").out == b""
    assert "0 events that the broker refused" in cli("spool", "drop", "plain", "--refused").err
