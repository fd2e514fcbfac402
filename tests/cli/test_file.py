"""``file put|get|ls|rm|stat|url``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient


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


def test_list(cli: Any, client: CloudRuntimesClient) -> None:
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
    found = json.loads(cli("file", "stat", "s", "a").out)
    assert (found["name"], found["size"], found["content_type"], found["metadata"]) == ("a", 2, "text/x", {})
    assert found["etag"]
    assert found["modified"].endswith("+00:00")
    assert cli("file", "rm", "s", "a", "absent") == (0, b"", "")
    for command in ("stat", "get"):
        result = cli("file", command, "s", "a")
        assert (result.code, result.out) == (3, b"")
        assert result.err.startswith("error: there is no file 'a'")


@pytest.mark.parametrize(
    "argv",
    [
        ("put", "s", "../a"),
        ("put", "s", "a", "no-such-file"),
        ("put", "s", "a", "--metadata", "x"),
        ("get", "s", "a", "--start", "-1"),
        ("ls", "s", "--limit", "0"),
        ("rm", "s", ""),
        ("rm", "s"),
    ],
)
def test_wrong_usage(cli: Any, argv: tuple[str, ...]) -> None:
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
