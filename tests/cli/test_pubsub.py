"""``publish``, ``subscribe`` and ``schedule`` in this process."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import NotFoundError
from cloud_runtimes.schedule import RpcTarget, TopicTarget


def taken(cli: Any, count: int, *argv: str) -> list[bytes]:
    """Take so many events, after which there is none."""
    lines: list[bytes] = cli("subscribe", "bus", "t", "--data-only", "--count", str(count), *argv).lines
    assert cli("subscribe", "bus", "t", "--data-only", "--idle", "0.2", *argv).out == b""
    return lines


def test_an_event_in_place_of_a_file(cli: Any) -> None:
    result = cli("publish", "bus", "t", '{"id": 1}')
    assert result.code == 2
    assert """as in: echo '{"id": 1}' | cloud-runtimes publish""" in result.err


def test_lines_arrive_as_they_were_written(cli: Any, tmp_path: Path) -> None:
    lines = [b'{"a": 1.50, "n": 12345678901234567890123}', b'"text"', b"null", b"[1,\t2]"]
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n" + b"\r\n  \n".join(lines))
    result = cli("publish", "bus", "t", str(path))
    assert (result.code, result.out) == (0, b"")
    assert re.fullmatch(r"4 events in [\d.]+ s, [\d,]+ events/s, 0 failed\n", result.err)
    result = cli("subscribe", "bus", "t", "--data-only", "--count", "4")
    assert (result.code, result.lines, result.err) == (0, lines, "")


def test_keys_and_attributes(cli: Any) -> None:
    result = cli(
        *("publish", "bus", "t", "-", "--key", "order.id", "--attribute", "type=made", "--attribute", "tenant=a=b"),
        stdin=b'{"order":{"id":"x"}}\n{"order":{"id":7}}\n',
    )
    assert result.code == 0
    first, second = map(json.loads, cli("subscribe", "bus", "t", "--count", "2").lines)
    assert (first["partitionkey"], second["partitionkey"]) == ("x", "7")
    assert (first["type"], first["tenant"], first["source"]) == ("made", "a=b", "cloud-runtimes")
    assert first["data"] == {"order": {"id": "x"}}


def test_raw_lines(cli: Any) -> None:
    assert cli("publish", "bus", "t", "--raw-lines", stdin="ü {\n".encode()).code == 0
    (event,) = map(json.loads, cli("subscribe", "bus", "t", "--count", "1").lines)
    assert (event["data"], event["datacontenttype"]) == ("ü {", "text/plain")
    result = cli("publish", "bus", "t", "--raw-lines", stdin=b"a\n\xff\n")
    assert result.code == 1
    assert "stdin, line 2: not UTF-8" in result.err


def test_a_bad_line_ends_it(cli: Any, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for bad, argv, problem in (
        (b"{", (), "not JSON"),
        (b"\xef\xbb\xbf1", (), "not JSON"),
        (b"NaN", (), "not JSON"),
        (b'{"b":1}', ("--key", "a"), "no field 'a'"),
        (b'{"a":{"b":1}}', ("--key", "a"), "no text"),
        (b'{"a":true}', ("--key", "a"), "no text"),
        (b"[1]", ("--key", "a"), "no field 'a'"),
    ):
        with subtests.test(bad=bad, argv=argv):
            path = tmp_path / "events.ndjson"
            path.write_bytes(b'{"a":1}\n\n' + bad + b'\n{"a":2}\n')
            result = cli("publish", "bus", "t", str(path), *argv)
            assert result.code == 1
            assert f"error: {path}, line 3: " in result.err
            assert problem in result.err
            assert "1 event in" in result.err
            assert taken(cli, 1) == [b'{"a":1}']


def test_an_event_that_is_too_large(cli: Any, tmp_path: Path) -> None:
    config = tmp_path / "runtimes.toml"
    config.write_text('[pubsub.bus]\ncomponent = "sqlite"\nmax_value_bytes = 10\n')
    result = cli("--config", str(config), "publish", "bus", "t", stdin=b'1\n"0123456789"\n')
    assert result.code == 1
    assert "stdin, line 2: " in result.err


def test_wrong_usage(cli: Any, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for argv in (
        ("publish", "bus", "t", "no-such-file"),
        ("publish", "bus", "t", "--key", "a", "--raw-lines"),
        ("publish", "bus", "t", "--attribute", "nonsense"),
        ("publish", "bus", "t", "--attribute", "id=1"),
        ("publish", "bus", "t", "--batch-events", "0"),
        ("publish", "bus", "\n"),
        ("--config", "runtimes.toml", "publish", "nonsense", "t"),
        ("subscribe", "bus", "t", "--start", "nonsense"),
        ("subscribe", "bus", "t", "--start", "2025-01-15T09:30:12"),
        ("subscribe", "bus", "t", "--start", "3025-01-15T09:30:12Z"),
        ("subscribe", "bus", "t", "--count", "0"),
        ("--config", "runtimes.toml", "subscribe", "nonsense", "t"),
    ):
        with subtests.test(argv=argv):
            (tmp_path / "runtimes.toml").write_text('[capa]\nstrict = true\n[pubsub.bus]\ncomponent = "sqlite"\n')
            result = cli(*argv, stdin=b"1\n")
            assert result.code == 2
            assert result.err.startswith("error: ")
            assert result.err.count("\n") == 1


def test_count_takes_no_more_than_that(cli: Any, client: CloudRuntimesClient) -> None:
    client.pubsub.publish_bulk("bus", "t", list(range(5)))
    assert cli("subscribe", "bus", "t", "--data-only", "--count", "3", "--batch", "2").lines == [b"0", b"1", b"2"]
    assert taken(cli, 2) == [b"3", b"4"]


def test_without_ack_they_come_again(cli: Any, client: CloudRuntimesClient) -> None:
    client.pubsub.publish_bulk("bus", "t", [1, 2])
    for _ in range(2):
        assert cli("subscribe", "bus", "t", "--data-only", "--count", "2", "--no-ack").lines == [b"1", b"2"]
    assert cli("subscribe", "bus", "t", "--data-only", "--count", "2").lines == [b"1", b"2"]
    assert cli("subscribe", "bus", "t", "--idle", "0.1") == (0, b"", "")


def test_groups_and_their_start(cli: Any, client: CloudRuntimesClient) -> None:
    client.pubsub.publish("bus", "t", 1)
    assert cli("subscribe", "bus", "t", "--group", "late", "--start", "latest", "--idle", "0.1").out == b""
    assert taken(cli, 1, "--group", "early") == [b"1"]
    assert cli("--app-id", "other", "subscribe", "bus", "t", "--count", "1", "--data-only").out == b"1\n"
    time.sleep(0.01)
    now = datetime.now(UTC).astimezone(timezone(timedelta(hours=2))).isoformat()
    client.pubsub.publish("bus", "t", 2)
    for start, expected in ((now, [b"2"]), ("2025-01-15T09:30:12Z", [b"1", b"2"])):
        assert taken(cli, len(expected), "--group", start, "--start", start) == expected


def test_data_is_always_one_line_of_json(cli: Any, client: CloudRuntimesClient) -> None:
    publish = client.pubsub.publish
    publish("bus", "t", b'{"a":\r\n"x"}', content_type="application/json")
    publish("bus", "t", "a\nb", content_type="text/plain")
    publish("bus", "t", b"\xff")
    publish("bus", "t", {"a": 1}, content_type="application/msgpack")
    publish("bus", "t", b"\xff", content_type="text/plain")
    for argv in (("--data-only",), ()):
        lines = cli("subscribe", "bus", "t", "--count", "5", "--group", f"g{len(argv)}", *argv).lines
        events = [json.loads(line) for line in lines]
        assert len(events) == 5
        if argv:
            assert lines[0] == b'{"a":  "x"}'
            assert events[1:] == ["a\nb", "/w==", {"a": 1}, "/w=="]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("size", [None, 1000])
def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    from cloud_runtimes.cli._streams import progress

    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress(size) as advance:
        advance(1234, 500)
    assert "1,234 events" in terminal.getvalue()


# -- ``schedule add|list|rm|history|run``


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


def test_what_is_no_job(cli: Any, subtests: pytest.Subtests) -> None:
    for argv, message in (
        (("add", "j"), "schedule="),
        (("add", "j", "--schedule", "x"), "schedule 'x'"),
        (("add", "j", "--due", "x"), "due_time 'x'"),
        (("add", "a/b", "--due", "1s"), "name"),
        (("add", "j", "--due", "1s", "--rpc", "s/m", "--topic", "b/t"), "not both"),
        (("add", "j", "--due", "1s", "--topic", "b"), "topic"),
        (("add", "j", "--due", "1s", "--misfire", "never"), "misfire"),
    ):
        with subtests.test(argv=argv, message=message):
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
