"""``state``, ``config``, ``file`` and ``sql``: what they read, write, list and refuse."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
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


def test_wrong_usage(cli: Any, subtests: pytest.Subtests) -> None:
    for argv in (
        (),
        ("1", "--file", "x"),
        ("--file", "no-such-file"),
        ("1", "--text", "--content-type", "text/plain"),
        ("1", "--etag", "x", "--first-write"),
        ("1", "--ttl", "0"),
        ("nonsense", "--content-type", "application/json"),
        ("1", "--content-type", "nonsense"),
        ("\udcff",),
    ):
        with subtests.test(argv=argv):
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


# -- ``config get|set|delete|watch``


def test_set_and_get(cli: Any, client: CloudRuntimesClient) -> None:
    assert cli("config", "set", "app", "db.host", "näme\n2") == (0, b"", "")
    assert client.configuration.get_configuration("app") == {"db.host": "näme\n2"}
    assert cli("config", "get", "app", "db.host") == (0, "näme\n2\n".encode(), "")
    assert cli("config", "set", "app", "empty", "").code == 0
    assert cli("config", "get", "app", "empty").out == b"\n"
    assert json.loads(cli("config", "get", "app").out) == {"db.host": "näme\n2", "empty": ""}
    assert json.loads(cli("config", "get", "app", "db.host", "empty").out) == {"db.host": "näme\n2", "empty": ""}


def test_an_item_from_stdin(cli: Any, client: CloudRuntimesClient) -> None:
    assert cli("config", "set", "app", "k", "-", stdin="grüße\n".encode()).code == 0
    assert client.configuration.get_configuration("app") == {"k": "grüße\n"}
    refused = cli("config", "set", "app", "k", "-", stdin=b"\xff")
    assert (refused.code, refused.out) == (2, b"")
    assert "UTF-8" in refused.err


def test_no_such_item(cli: Any) -> None:
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


# -- ``file put|get|ls|rm|stat|url``


def test_put_and_get(cli: Any, client: CloudRuntimesClient, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789" * 300_000)
    assert cli("file", "put", "s", "d/a", str(source), "--content-type", "text/x", "--metadata", "k=v=w") == (
        0,
        b"",
        "",
    )
    info = client.file.stat_file("s", "d/a")
    assert (info.size, info.content_type, info.metadata) == (3_000_000, "text/x", {"k": "v=w"})
    assert cli("file", "get", "s", "d/a").out == source.read_bytes()
    assert cli("file", "get", "s", "d/a", "--start", "8", "--length", "4").out == b"8901"
    assert cli("file", "get", "s", "d/a", str(tmp_path / "copy")) == (0, b"", "")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert cli("file", "put", "s", "in", stdin=b"\xff\0").code == 0
    assert cli("file", "get", "s", "in").out == b"\xff\0"


def test_only_create(cli: Any) -> None:
    assert cli("file", "put", "s", "a", "--no-overwrite", stdin=b"1").code == 0
    result = cli("file", "put", "s", "a", "--no-overwrite", stdin=b"2")
    assert (result.code, result.err.count("\n")) == (4, 1)
    assert cli("file", "get", "s", "a").out == b"1"


def test_list_of_files(cli: Any, client: CloudRuntimesClient) -> None:
    for name in ("a", "d/b", "d/c", "ü"):
        client.file.put_file("s", name, b"12")
    assert cli("file", "ls", "s").out == "a\nd/b\nd/c\nü\n".encode()
    assert cli("file", "ls", "s", "--level").out == "a\nd/\nü\n".encode()
    assert cli("file", "ls", "s", "d/", "--limit", "1").lines == [b"d/b"]
    assert cli("file", "ls", "s", "--limit", "2", "--after", "a").lines == [b"d/b", b"d/c"]
    (line,) = cli("file", "ls", "s", "a", "--long").lines
    size, time, name = line.split()
    assert (size, name, time[-1:]) == (b"2", b"a", b"Z")
    assert [json.loads(line)["name"] for line in cli("file", "ls", "s", "--json").lines] == ["a", "d/b", "d/c", "ü"]
    assert cli("file", "ls", "empty") == (0, b"", "")


def test_more_than_a_page(cli: Any, client: CloudRuntimesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_runtimes.cli._file._PAGE", 2)
    for number in range(5):
        client.file.put_file("s", f"{number}", b"")
    assert cli("file", "ls", "s").lines == [b"0", b"1", b"2", b"3", b"4"]
    assert cli("file", "ls", "s", "--limit", "3").lines == [b"0", b"1", b"2"]


def test_stat_and_remove(cli: Any, client: CloudRuntimesClient) -> None:
    client.file.put_file("s", "a", b"12", content_type="text/x")
    info = json.loads(cli("file", "stat", "s", "a").out)
    assert (info["name"], info["size"], info["content_type"], info["metadata"]) == ("a", 2, "text/x", {})
    assert info["etag"]
    assert info["modified"].endswith("+00:00")
    assert cli("file", "rm", "s", "a", "absent") == (0, b"", "")
    for command in ("stat", "get"):
        result = cli("file", command, "s", "a")
        assert (result.code, result.out) == (3, b"")
        assert result.err.startswith("error: there is no file 'a'")


def test_wrong_usage_of_file(cli: Any, subtests: pytest.Subtests) -> None:
    for argv in (
        ("put", "s", "../a"),
        ("put", "s", "a", "no-such-file"),
        ("put", "s", "a", "--metadata", "x"),
        ("get", "s", "a", "--start", "-1"),
        ("ls", "s", "--limit", "0"),
        ("rm", "s", ""),
        ("rm", "s"),
    ):
        with subtests.test(argv=argv):
            result = cli("file", *argv)
            assert result.code == 2
            assert result.err.startswith("error: ")
            assert result.err.count("\n") == 1


def test_url(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    # signing asks nobody
    lines = [
        'url = "s3://bucket/below"',
        'region = "us-east-1"',
        'access_key_id = "key"',
        'secret_access_key = "secret"',
    ]
    (tmp_path / "buckets.toml").write_text("\n".join(['[file.s]\ncomponent = "objectstore"', *lines]))
    for more, seconds in (((), "900"), (("--expires", "60", "--method", "PUT"), "60")):
        result = cli("--config", "buckets.toml", "file", "url", "s", "a b", *more)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith(b"https://s3.us-east-1.amazonaws.com/bucket/below/a%20b?")
        assert f"X-Amz-Expires={seconds}&".encode() in result.out
    assert cli("--config", "buckets.toml", "file", "url", "s", "f", "--expires", "0").code == 2
    refused = cli("file", "url", "s", "f")
    assert (refused.code, "url" in refused.err) == (1, True)


# -- ``cloud-runtimes sql``


@pytest.fixture
def store(client: CloudRuntimesClient) -> str:
    """A table of three rows."""
    client.database.create_table("bank", "account", {"id": int, "owner": str, "data": bytes})
    for number, owner, data in ((1, 'Ann "A", jr', b"\xff"), (2, None, None), (3, "\x1b[31m" + "x" * 80, b"")):
        client.database.insert("bank", "account", {"id": number, "owner": owner, "data": data})
    return "bank"


def test_csv(cli: Any, store: str) -> None:
    result = cli("sql", store, "SELECT id, owner, data FROM account WHERE id < :n ORDER BY id", "--param", "n=3")
    assert result == (0, b'id,owner,data\n1,"Ann ""A"", jr",ff\n2,,\n', "")


def test_json(cli: Any, store: str) -> None:
    lines = cli("sql", store, "SELECT id, owner, data FROM account ORDER BY id", "--format", "json").lines
    assert json.loads(lines[0]) == {"id": 1, "owner": 'Ann "A", jr', "data": "ff"}
    assert json.loads(lines[1]) == {"id": 2, "owner": None, "data": None}


def test_a_table_holds_no_escape_sequence(cli: Any, store: str) -> None:
    out = cli("sql", store, "SELECT id, owner FROM account ORDER BY id", "--format", "table").out.decode()
    assert out.splitlines()[0].split() == ["id", "owner"]
    assert set(out.splitlines()[1]) == {"-", " "}
    assert out.splitlines()[3] == "2   NULL"
    assert "\x1b" not in out
    assert out.splitlines()[4].endswith("…")


def test_writing(cli: Any, store: str, client: CloudRuntimesClient) -> None:
    result = cli(
        "sql", store, "UPDATE account SET owner = :name WHERE id = :id", "--param", "name=Bob", "--param", "id=2"
    )
    assert result == (0, b"", "1 row affected\n")
    assert client.database.query(store, "SELECT owner FROM account WHERE id = 2", type=str) == ["Bob"]
    result = cli("sql", store, "-", stdin=b"DELETE FROM account WHERE id > 1 RETURNING id")
    assert result == (0, b"id\n2\n3\n", "")
    assert client.database.query(store, "SELECT count(*) FROM account", type=int) == [1]


def test_no_rows(cli: Any, store: str) -> None:
    for output in ("csv", "json", "table"):
        assert cli("sql", store, "SELECT id FROM account WHERE id = 9", "--format", output) == (0, b"", "")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("SELECT :a",), 2, "no value for :a"),
        (("SELECT 1", "--param", "a=1"), 2, "has no :a"),
        (("SELECT 1", "--param", "a"), 2, "give NAME=VALUE"),
        (("SELECT 1", "--format", "xml"), 2, "give table, csv, json"),
        (("SELECT 1; SELECT 2",), 2, "more than one statement"),
        (("SELEC 1",), 2, "syntax error"),
        (("SELECT * FROM nope",), 3, "no such table"),
        (("INSERT INTO u VALUES (1)",), 4, "unique value exists"),
    ],
)
def test_errors(cli: Any, client: CloudRuntimesClient, argv: tuple[str, ...], code: int, message: str) -> None:
    client.database.execute("bank", "CREATE TABLE u (id INTEGER PRIMARY KEY)")
    client.database.execute("bank", "INSERT INTO u VALUES (1)")
    result = cli("sql", "bank", *argv)
    assert result.code == code
    assert message in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
