"""What a person sees: tables on a terminal, hints, completion, and words of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.cli._tables import Table

BOLD = b"\x1b[1m"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def stored(client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ID", "test")  # jobs belong to it
    client.schedule.schedule_job("nightly", schedule="@daily", data={"id": 7})
    client.configuration.save_configuration("app", {"limit": "5"})
    client.file.put_file("docs", "a.txt", b"text", content_type="text/plain")
    client.state.save("orders", LONG, {"total": 12.5})
    client.pubsub.publish("bus", "orders", {"id": 7}, key="7")


LONG = "key-" * 25

COMMANDS = [
    (("schedule", "list"), [b"name", b"schedule", b"next_run", b"target", b"data"], b'{"id":7}'),
    (("config", "get", "app", "--items"), [b"key", b"value", b"version", b"group", b"label"], b"limit"),
    (("config", "watch", "app", "--count", "1"), [b"key", b"value", b"version", b"group", b"label"], b"limit"),
    (
        ("subscribe", "bus", "orders", "--start", "earliest", "--count", "1"),
        [b"time", b"key", b"data"],
        b'7    {"id":7}',
    ),
    (("file", "ls", "docs"), [b"size", b"modified", b"content_type", b"name"], b"text/plain"),
    (("state", "list", "orders"), [b"key"], LONG.encode()),
]


@pytest.mark.parametrize(("argv", "columns", "cell"), COMMANDS, ids=lambda value: str(value)[:30])
def test_tables(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch, argv: Any, columns: Any, cell: bytes) -> None:
    on_a_terminal(monkeypatch)
    code, out, err = cli(*argv)
    head, rule, *lines = out.splitlines()
    assert (code, err, head.removeprefix(BOLD).removesuffix(b"\x1b[0m").split()) == (0, "", columns)
    assert (set(rule) - set(b" "), len(lines), cell in lines[0]) == (set(b"-"), 1, True)
    assert head.startswith(BOLD)


@pytest.mark.parametrize(("argv", "columns", "cell"), COMMANDS[:4], ids=lambda value: str(value)[:30])
def test_a_pipe_gets_json(cli: Any, stored: None, argv: Any, columns: Any, cell: bytes) -> None:
    (line,) = cli(*argv).lines
    assert {name.decode() for name in columns} - {"key"} <= set(json.loads(line))
    assert cell.split()[-1] in line.replace(b"\\", b"")


RECORDS = [
    (("state", "get", "orders", LONG, "--item"), b'{"total":12.5}'),
    (("config", "get", "app", "limit", "limit"), b"5"),
    (("file", "stat", "docs", "a.txt"), b"text/plain"),
]


@pytest.mark.parametrize(("argv", "value"), RECORDS, ids=lambda value: str(value)[:30])
def test_fields(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch, argv: Any, value: bytes) -> None:
    (line,) = cli(*argv).lines
    fields = json.loads(line)
    on_a_terminal(monkeypatch)
    head, _, *lines = cli(*argv).lines
    assert head.startswith(BOLD)
    assert [each.split()[0].decode() for each in lines] == list(fields)
    assert any(each.endswith(b" " + value) for each in lines)


def test_a_table_that_comes_in_parts_has_one_head(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    table = Table(("key", "data"))
    first, then = table.render([["a", "x" * 99]]), table.render([["longer key", "y" * 99]])
    assert first == [
        f"{BOLD.decode()}key  data{' ' * 31}".rstrip() + "\x1b[0m",
        "---  " + "-" * 35,
        "a    " + "x" * 34 + "…",
    ]
    assert then == ["longer key  " + "y" * 27 + "…"]


def test_doctor_and_errors_have_colours(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = cli("doctor").out
    (head,) = (line for line in out.splitlines() if line.startswith(BOLD))
    assert head.removeprefix(BOLD).split() == [b"component", b"service", b"features\x1b[0m"]
    assert out.endswith(b"ready           \x1b[32myes\x1b[0m\n")
    assert cli("state", "get", "orders", "none").err.startswith("\x1b[31merror:\x1b[0m no key")


def test_no_color(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b" not in cli("schedule", "list").out


def test_it_says_that_it_waits(cli: Any) -> None:
    code, out, err = cli("subscribe", "bus", "quiet", "--idle", "1.5")
    assert (code, out, err) == (0, b"", "waiting for events of bus/quiet; Ctrl-C ends\n")


@pytest.mark.parametrize("value", ['{"a": 1', "[1, 2", '"text', '{"a": nan}'])
def test_broken_json_is_no_text(cli: Any, client: CloudRuntimesClient, value: str) -> None:
    code, out, err = cli("state", "save", "orders", "k", value)
    assert (code, out, "not JSON" in err, "--text takes it as it is" in err) == (2, b"", True, True)
    assert client.state.get("orders", "k") is None
    assert cli("state", "save", "orders", "k", value, "--text").code == 0
    assert client.state.get("orders", "k") == value


def test_messages_speak_the_command_line(cli: Any) -> None:
    assert "file ls shows what there is" in cli("file", "get", "docs", "nothing").err


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    environment = {**os.environ, "COMP_WORDS": "cloud-runtimes st", "COMP_CWORD": "1"}
    environment |= {"_TYPER_COMPLETE_ARGS": "cloud-runtimes st", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment["_CLOUD_RUNTIMES_COMPLETE"] = f"complete_{shell}"
    done = subprocess.run([sys.executable, "-m", "cloud_runtimes"], env=environment, capture_output=True, text=True)
    told = {
        "bash": "state",
        "zsh": """_arguments '*: :(("state":"Read and write keys."))'""",
        "fish": "state\tRead and write keys.",
    }
    assert done.stdout.strip() == told[shell]
