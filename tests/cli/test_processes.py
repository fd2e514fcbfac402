"""The command line as others start it: pipes, signals, a reader that goes away."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient

pytestmark = pytest.mark.process

CLI = [sys.executable, "-m", "cloud_runtimes"]


@contextmanager
def _started(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*CLI, *argv], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def test_through_pipes(home: Path) -> None:
    lines = b"".join(b'{"n":%d}\n' % number for number in range(5000))
    published = subprocess.run([*CLI, "publish", "bus", "t"], input=lines, capture_output=True, timeout=60)
    assert published.returncode == 0
    assert b"5,000 events" in published.stderr
    command = [*CLI, "subscribe", "bus", "t", "--data-only", "--count", "5000"]
    taken = subprocess.run(command, capture_output=True, timeout=60)
    assert (taken.returncode, taken.stdout, taken.stderr) == (0, lines, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_subscription(client: CloudRuntimesClient, number: int, code: int) -> None:
    client.pubsub.publish("bus", "t", 1)
    with _started("subscribe", "bus", "t", "--data-only") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, b"", b"")
    with client.pubsub.subscribe("bus", "t", group="cloud-runtimes") as events:
        assert events.receive(timeout=0.2) is None  # its answer had landed


def test_a_signal_ends_a_publish_and_what_was_read_is_delivered(client: CloudRuntimesClient) -> None:
    with _started("publish", "bus", "t") as process:
        assert process.stdin is not None
        process.stdin.write(b"1\n")
        process.stdin.flush()
        with client.pubsub.subscribe("bus", "t") as events:
            assert events.receive(timeout=60) is not None
        time.sleep(0.2)  # until it reads again: a read that has not begun is not interrupted
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"1 event in" in err


def test_a_reader_that_goes_away_is_no_error(client: CloudRuntimesClient) -> None:
    client.pubsub.publish("bus", "t", 1)
    with _started("subscribe", "bus", "t", "--data-only") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.stdout.close()
        client.pubsub.publish("bus", "t", 2)
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
    with client.pubsub.subscribe("bus", "t", group="cloud-runtimes") as events:
        event = events.receive(timeout=60)
        assert event is not None
        assert event.data == 2  # not acknowledged: nobody has seen it
