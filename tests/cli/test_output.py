"""``--format``, and progress, on every command that prints data."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.cli.conftest import Run
from tests.support.waiting import until

LISTS = (
    ("topics", "bus"),
    ("groups", "bus", "orders"),
    ("peek", "bus", "orders"),
    ("subscribe", "bus", "orders", "--count", "1", "--no-ack", "--group", "g"),
    ("dead", "list", "bus", "orders.dead"),
    ("peek", "bus", "orders.dead"),
    ("stores",),
    ("services",),
    ("overview",),
    ("lock", "list", "locks"),
    ("schedule", "list"),
    ("schedule", "list", "--all"),
    ("schedule", "history", "nightly"),
    ("spool", "status"),
    ("spool", "refused"),
    ("state", "get", "carts", "a", "--item"),
    ("state", "list", "carts"),
    ("config", "get", "settings"),
    ("config", "get", "settings", "--items"),
    ("config", "watch", "settings", "--count", "1"),
    ("file", "ls", "reports"),
    ("file", "stat", "reports", "a"),
    ("sql", "db", "SELECT 1 AS one"),
)
NOTHING = ("services", "schedule history", "spool status", "spool refused")


@pytest.fixture
def filled(client: CloudRuntimesClient) -> CloudRuntimesClient:
    """A home with something for each list but those of `NOTHING`."""
    from cloud_runtimes.configuration import ConfigurationItem
    from cloud_runtimes.pubsub import DropEvent

    client.state.save("carts", "a", 1)
    client.file.put_file("reports", "a", b"x")
    client.lock.try_lock("locks", "r")
    client.configuration.save_configuration("settings", [ConfigurationItem("k", "v")])
    client.schedule.schedule_job("nightly", schedule="@hourly")

    def refuse(data: int) -> None:
        raise DropEvent("no currency")

    with client.pubsub.subscribe("bus", "orders", refuse, group="billing", dead_letter_topic="orders.dead"):
        client.pubsub.publish("bus", "orders", 1)
        assert until(lambda: client.pubsub.lag("bus", "orders", group="billing") == 0)
    return client


def test_each_list_in_each_format(
    cli: Run, filled: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for command in LISTS:
        for is_terminal in (False, True):
            with subtests.test(command=command, is_terminal=is_terminal):
                monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
                argv = ("--app-id", "test", *command)
                empty = " ".join(command).startswith(NOTHING)
                table = cli(*argv, "--format", "table")
                lines = cli(*argv, "--format", "json")
                assert (table.code, lines.code) == (0, 0), table.err + lines.err
                assert bool(lines.lines) != empty
                for line in lines.lines:
                    json.loads(line)
                if not empty:
                    with pytest.raises(ValueError, match=r"JSON|Expecting|Extra"):
                        json.loads(table.lines[0])


def test_another_format_is_refused(cli: Run) -> None:
    result = cli("stores", "--format", "xml")
    assert (result.code, "table" in result.err, "json" in result.err) == (2, True, True)


def test_a_table_of_dead_letters_says_why(cli: Run, filled: CloudRuntimesClient) -> None:
    head, _, letter = cli("peek", "bus", "orders.dead", "--format", "table").out.decode().splitlines()
    assert head.split() == ["time", "key", "group", "reason", "error", "data"]
    assert letter.split()[2:4] == ["billing", "dropped"]
    assert "no currency" in letter
    assert b"reason" not in cli("peek", "bus", "orders", "--format", "table").out
    taken = cli("subscribe", "bus", "orders.dead", "--count", "1", "--group", "g", "--format", "table")
    assert b"no currency" in taken.out


@pytest.mark.process
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["subscribe", "bus", "orders", "--count", "200", "--batch", "1"], "events,"),
        (["file", "put", "reports", "big", "big"], "bytes,"),
    ],
    ids=["subscribe", "file put"],
)
def test_progress_on_a_terminal_while_a_file_is_written(
    home: Path, tmp_path: Path, client: CloudRuntimesClient, argv: list[str], said: str
) -> None:
    (tmp_path / "big").write_bytes(bytes(32 << 20))
    with client.pubsub.publisher("bus", "orders") as publisher:
        for number in range(200):
            publisher.send(number)
    command = [sys.executable, "-m", "cloud_runtimes", *argv]
    ours, theirs = pty.openpty()
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=theirs, env={**os.environ, "TERM": "xterm"}, timeout=60)
    os.close(theirs)
    assert done.returncode == 0
    assert said in os.read(ours, 1 << 16).decode()
    os.close(ours)
    if argv[0] == "subscribe":
        assert len((tmp_path / "out").read_bytes().splitlines()) == 200
    else:
        assert client.file.stat_file("reports", "big").size == 32 << 20
