"""``state get|save|delete|list``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ('{"a": 1.50}', {"a": 1.5}),
        ("12", 12),
        ("null", None),
        ('"text"', "text"),
        ("hello", "hello"),
        ("NaN", "NaN"),
        ("", ""),
        ("ü", "ü"),
    ],
)
def test_json_where_it_parses_else_text(cli: Any, client: CloudRuntimesClient, value: str, stored: Any) -> None:
    assert cli("state", "save", "s", "k", value) == (0, b"", "")
    item = client.state.get_item("s", "k")
    assert item is not None
    assert (item.value, item.content_type) == (stored, "application/json")


def test_json_keeps_its_bytes(cli: Any) -> None:
    text = '{"a": 12345678901234567890123, "b": 1.50}'
    assert cli("state", "save", "s", "k", text).code == 0
    assert cli("state", "get", "s", "k") == (0, text.encode() + b"\n", "")


def test_text_and_bytes_come_as_they_are(cli: Any, tmp_path: Path) -> None:
    assert cli("state", "save", "s", "text", "--text", "12").code == 0
    assert cli("state", "get", "s", "text").out == b"12"
    (tmp_path / "file").write_bytes(b"\x00\xff\n")
    assert cli("state", "save", "s", "bytes", "--file", str(tmp_path / "file")).code == 0
    assert cli("state", "get", "s", "bytes").out == b"\x00\xff\n"
    assert cli("state", "save", "s", "stdin", "--file", "-", "--content-type", "image/png", stdin=b"\xff").code == 0
    assert json.loads(cli("state", "get", "s", "stdin", "--item").out)["content_type"] == "image/png"


def test_a_value_from_stdin(cli: Any) -> None:
    assert cli("state", "save", "s", "k", "-", stdin=b'{"a":1}\n').code == 0
    assert cli("state", "get", "s", "k").out == b'{"a":1}\n'
    assert "--file" in cli("state", "save", "s", "k", "-", stdin=b"\xff").err


def test_messagepack_is_shown_as_json(cli: Any, client: CloudRuntimesClient) -> None:
    assert cli("state", "save", "s", "k", '{"a":1}', "--content-type", "application/msgpack").code == 0
    assert client.state.get("s", "k", type=bytes) == b"\x81\xa1a\x01"
    assert cli("state", "get", "s", "k").out == b'{"a":1}\n'


def test_no_such_key(cli: Any) -> None:
    assert cli("state", "get", "s", "k") == (3, b"", "error: no key 'k' in 's'\n")


def test_an_item(cli: Any) -> None:
    assert cli("state", "save", "s", "k", "{}", "--ttl", "60").code == 0
    item = json.loads(cli("state", "get", "s", "k", "--item").out)
    assert (item["key"], item["value"], item["content_type"]) == ("k", {}, "application/json")
    assert item["etag"]
    assert 50 < item["ttl"] <= 60
    assert item["expires_at"].endswith("+00:00")
    assert cli("state", "save", "s", "b", "--file", "-", stdin=b"\xff").code == 0
    assert json.loads(cli("state", "get", "s", "b", "--item").out)["value_base64"] == "/w=="


def test_conditions(cli: Any) -> None:
    assert cli("state", "save", "s", "k", "1", "--first-write").code == 0
    assert cli("state", "save", "s", "k", "2", "--first-write").code == 4
    etag = json.loads(cli("state", "get", "s", "k", "--item").out)["etag"]
    assert cli("state", "save", "s", "k", "2", "--etag", etag).code == 0
    assert cli("state", "save", "s", "k", "3", "--etag", etag).code == 4
    assert cli("state", "delete", "s", "k", "--etag", etag).code == 4
    assert cli("state", "get", "s", "k").out == b"2\n"
    assert cli("state", "delete", "s", "k").code == 0
    assert cli("state", "delete", "s", "k").code == 0


def test_list(cli: Any, client: CloudRuntimesClient) -> None:
    client.state.save_bulk("s", {"a1": 1, "a2": 2, "b\n": 3, "ü": 4})
    assert cli("state", "list", "s", "--prefix", "a").lines == [b"a1", b"a2"]
    assert cli("state", "list", "s", "--limit", "1", "--after", "a1").lines == [b"a2"]
    assert [json.loads(line) for line in cli("state", "list", "s", "--json").lines] == ["a1", "a2", "b\n", "ü"]


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("1", "--file", "x"),
        ("--file", "no-such-file"),
        ("1", "--text", "--content-type", "text/plain"),
        ("1", "--etag", "x", "--first-write"),
        ("1", "--ttl", "0"),
        ("nonsense", "--content-type", "application/json"),
        ("1", "--content-type", "nonsense"),
        ("\udcff",),
    ],
)
def test_wrong_usage(cli: Any, argv: tuple[str, ...]) -> None:
    result = cli("state", "save", "s", "k", *argv)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


def test_a_name_that_is_not_declared(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "runtimes.toml"
    path.write_text('[capa]\nstrict = true\n[state.orders]\ncomponent = "sqlite"\n')
    result = cli("--config", str(path), "state", "get", "nonsense", "k")
    assert result.code == 2
    assert "[state.orders]" in result.err
