"""What a person sees: tables on a terminal, hints, completion, and words of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient

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


COMMANDS = [
    (("schedule", "list"), [b"name", b"schedule", b"next_run", b"target", b"data"], b'{"id":7}'),
    (("config", "get", "app", "--items"), [b"key", b"value", b"version", b"group", b"label"], b"limit"),
    (("config", "watch", "app", "--count", "1"), [b"key", b"value", b"version", b"group", b"label"], b"limit"),
    (("file", "ls", "docs", "--long"), [b"size", b"modified", b"content_type", b"name"], b"text/plain"),
]


@pytest.mark.parametrize(("argv", "columns", "cell"), COMMANDS, ids=lambda value: str(value)[:30])
def test_tables(cli: Any, stored: None, monkeypatch: pytest.MonkeyPatch, argv: Any, columns: Any, cell: bytes) -> None:
    on_a_terminal(monkeypatch)
    code, out, err = cli(*argv)
    head, rule, *lines = out.splitlines()
    assert (code, err, head.removeprefix(BOLD).removesuffix(b"\x1b[0m").split()) == (0, "", columns)
    assert (set(rule), len(lines), cell in lines[0]) == (set(b"- "), 1, True)
    assert head.startswith(BOLD)


@pytest.mark.parametrize(("argv", "columns", "cell"), COMMANDS[:3], ids=lambda value: str(value)[:30])
def test_a_pipe_gets_json(cli: Any, stored: None, argv: Any, columns: Any, cell: bytes) -> None:
    (line,) = cli(*argv).lines
    assert {name.decode() for name in columns} <= set(json.loads(line))


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
def test_completion() -> None:
    environment = {**os.environ, "COMP_WORDS": "cloud-runtimes st", "COMP_CWORD": "1"}
    environment["_CLOUD_RUNTIMES_COMPLETE"] = "complete_bash"
    done = subprocess.run([sys.executable, "-m", "cloud_runtimes"], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["state"]
