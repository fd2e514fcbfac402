"""``telemetry serve`` as others start it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient
from tests.cli.conftest import Run
from tests.telemetry.otlp_receiver import Receiver

CLI = [sys.executable, "-W", "error", "-m", "cloud_runtimes"]


@contextmanager
def _serving(*argv: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*CLI, *argv], stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            match = re.fullmatch(r"(http://\S+) for a browser, OTEL_EXPORTER_OTLP_ENDPOINT=(\S+) for clients\n", line)
            assert match, line + (process.communicate(timeout=60)[1].decode() if process.poll() else "")
            assert match[1] == match[2]
            yield process, match[1]
        finally:
            process.kill()


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_serves_until_a_signal(home: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with _serving("telemetry", "serve", "--port", "0") as (process, url):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)  # what the line says
        with CloudRuntimesClient(app_id="shop") as client:
            client.telemetry.tracer("t").start_span("seen").end()
            assert client.telemetry.flush(60)
            assert client.telemetry.stats().spans.exported == 1
        with urllib.request.urlopen(f"{url}/api/traces", timeout=60) as reply:
            assert b'"seen"' in reply.read()
        with urllib.request.urlopen(url, timeout=60) as reply:
            assert b"<title>Cloud Runtimes</title>" in reply.read()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert (home / "telemetry.db").exists()
    assert not (home / "telemetry.db-wal").exists()  # closed, not left


@pytest.mark.process
def test_a_client_that_stays_connected_does_not_hold_it(home: Path) -> None:
    with _serving("telemetry", "serve", "--port", "0") as (process, url):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as connection:
            connection.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143


@pytest.mark.process
def test_the_home_of_the_configuration_and_of_the_option(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text(f"[capa]\nhome = {str(tmp_path / 'other')!r}\n")
    with _serving("--config", str(config), "telemetry", "serve", "--port", "0"):
        assert (tmp_path / "other" / "telemetry.db").exists()
    with _serving("telemetry", "serve", "--port", "0", "--home", str(tmp_path / "third"), "--max-bytes", "2000000"):
        assert (tmp_path / "third" / "telemetry.db").exists()
    assert not home.exists()


def test_a_port_that_is_taken(cli: Any, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli("telemetry", "serve", "--port", port)
    assert (result.code, result.out) == (5, b"")
    assert result.err.startswith(f"error: 127.0.0.1:{port} cannot be listened on: Address already in use: give another")
    assert not home.exists()


def test_a_home_that_is_in_use(cli: Any, home: Path) -> None:
    from cloud_runtimes.dashboard.server import Viewer

    with Viewer(str(home), port=0):
        result = cli("telemetry", "serve", "--port", "0")
    assert result.code == 5
    assert "another process receives telemetry into" in result.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--port", "70000"), "--port"),
        (("--port", "x"), "--port"),
        (("--max-bytes", "5"), "--max-bytes"),
        (("--host", "a b"), "host 'a b'"),
        (("--host", ""), "host ''"),
        (("more",), "argument"),
    ],
)
def test_wrong_usage(cli: Any, home: Path, argv: tuple[str, ...], said: str) -> None:
    result = cli("telemetry", "serve", *argv)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not home.exists()


def test_an_address_that_is_not_of_this_machine(cli: Any, home: Path) -> None:
    result = cli("telemetry", "serve", "--host", "192.0.2.1", "--port", "0")
    assert result.code == 5
    assert "192.0.2.1:0 cannot be listened on" in result.err


def test_what_waits_for_a_collector(cli: Run, home: Path, tmp_path: Path) -> None:
    with Receiver() as receiver:
        url = receiver.url
    table = {"endpoint": url, "spool": True, "flush_on_sigterm": False}
    config = tmp_path / "spool.toml"
    config.write_text(f'[telemetry]\nendpoint = "{url}"\nspool = true\n', encoding="utf-8")

    def left(count: int) -> None:
        """Record spans while the collector is away."""
        with CloudRuntimesClient(config={"telemetry": table}) as client:
            for _ in range(count):
                client.telemetry.tracer("t").start_span("s").end()

    def status(*more: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in cli("spool", "status", *more).lines]

    left(10)
    for more in ((), ("--config", str(config))):
        (shown,) = status(*more)
        assert (shown["pubsub"], shown["in"], shown["events"]) == ("traces", "the spool of telemetry", 10)
        assert shown["configured"] is bool(more)
    with Receiver(port=receiver.port) as receiver:
        assert cli("spool", "flush", "--config", str(config)).code == 0
        assert len(receiver.spans()) == 10
    left(5)
    assert cli("spool", "drop", "traces", "--yes").code == 0
    assert not status("--config", str(config))
