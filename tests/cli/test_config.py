"""``config get|set|delete|watch``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient


def test_set_and_get(cli: Any, client: CloudRuntimesClient) -> None:
    assert cli("config", "set", "app", "db.host", "näme\n2") == (0, b"", "")
    assert client.configuration.get_configuration("app") == {"db.host": "näme\n2"}
    assert cli("config", "get", "app", "db.host") == (0, "näme\n2\n".encode(), "")
    assert cli("config", "set", "app", "empty", "").code == 0
    assert cli("config", "get", "app", "empty").out == b"\n"
    assert json.loads(cli("config", "get", "app").out) == {"db.host": "näme\n2", "empty": ""}
    assert json.loads(cli("config", "get", "app", "db.host", "empty").out) == {"db.host": "näme\n2", "empty": ""}


def test_a_value_from_stdin(cli: Any, client: CloudRuntimesClient) -> None:
    assert cli("config", "set", "app", "k", "-", stdin="grüße\n".encode()).code == 0
    assert client.configuration.get_configuration("app") == {"k": "grüße\n"}
    refused = cli("config", "set", "app", "k", "-", stdin=b"\xff")
    assert (refused.code, refused.out) == (2, b"")
    assert "UTF-8" in refused.err


def test_no_such_key(cli: Any) -> None:
    assert cli("config", "get", "app", "k") == (3, b"", "error: no key 'k' in 'app'\n")
    cli("config", "set", "app", "a", "1")
    assert cli("config", "get", "app", "a", "k", "l") == (3, b'{"a":"1"}\n', "error: no key 'k', 'l' in 'app'\n")
    assert cli("config", "get", "nothing") == (0, b"{}\n", "")


def test_items_with_tags_groups_and_labels(cli: Any) -> None:
    options = ("--group", "g", "--label", "l")
    assert cli("config", "set", "app", "k", "1", *options, "--tag", "owner=ops", "--tag", "note=a=b").code == 0
    assert cli("config", "get", "app", "k").code == 3
    assert json.loads(cli("config", "get", "app", "--items", *options).out) == {
        "key": "k",
        "value": "1",
        "version": "1",
        "group": "g",
        "label": "l",
        "tags": {"owner": "ops", "note": "a=b"},
        "metadata": {},
        "deleted": False,
    }
    assert cli("config", "set", "app", "k", "1", "--tag", "owner").code == 2


def test_delete(cli: Any, client: CloudRuntimesClient) -> None:
    client.configuration.save_configuration("app", {"a": "1", "b": "2", "c": "3"})
    assert cli("config", "delete", "app", "a", "b", "never") == (0, b"", "")
    assert client.configuration.get_configuration("app") == {"c": "3"}
    assert cli("config", "delete", "app").code == 2


def test_a_read_only_store(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "app.toml").write_text("[db]\nport = 5432\n")
    (tmp_path / "cloud.toml").write_text('[configuration.app]\ncomponent = "config_file"\npath = "app.toml"\n')
    assert cli("--config", "cloud.toml", "config", "get", "app", "db.port") == (0, b"5432\n", "")
    refused = cli("--config", "cloud.toml", "config", "set", "app", "db.port", "1")
    assert (refused.code, refused.out) == (1, b"")
    assert "not supported" in refused.err


def test_watch_some_lines(cli: Any, client: CloudRuntimesClient) -> None:
    client.configuration.save_configuration("app", {"a": "1", "b": "2", "c": "3"})
    shown = cli("config", "watch", "app", "b", "c", "--count", "2")
    assert [json.loads(line)["value"] for line in shown.lines] == ["2", "3"]
    assert (shown.code, shown.err) == (0, "")


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_watch_until_a_signal(client: CloudRuntimesClient, number: int, code: int) -> None:
    client.configuration.save_configuration("app", {"a": "1"})
    command = [sys.executable, "-m", "cloud_runtimes", "config", "watch", "app"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None

            def line() -> tuple[str, str, bool]:
                assert process.stdout is not None
                item = json.loads(process.stdout.readline())
                return item["key"], item["value"], item["deleted"]

            assert line() == ("a", "1", False)
            client.configuration.save_configuration("app", {"b": "2"})
            assert line() == ("b", "2", False)
            client.configuration.delete_configuration("app", ["a"])
            assert line() == ("a", "", True)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (code, b"", b"")
