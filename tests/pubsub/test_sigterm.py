"""SIGTERM of a process that has a publisher and runs nothing of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError

PROGRAM = """
import os, signal, sys, time
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="child")
options = {"linger": 60.0, "batch_events": 100_000}
publisher = client.pubsub.publisher("bus", "t", flush_on_sigterm=FLUSHES, **options)
for number in range(1000):
    publisher.send(number)
BEFORE
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def run(tmp_path: Path, flushes: bool, before: str = "") -> tuple[int, int]:
    """Run the program; return its status and how many of its events there are."""
    home = tmp_path / "home"
    program = PROGRAM.replace("FLUSHES", str(flushes)).replace("BEFORE", before)
    env = {**os.environ, "CLOUD_RUNTIMES_HOME": str(home)}
    status = subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, timeout=120).returncode
    received: list[object] = []
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": str(home)}}) as client:
        client.pubsub.publish("bus", "t", "the end")
        with client.pubsub.subscribe("bus", "t") as events:
            for event in events:
                event.ack()
                if event.data == "the end":
                    break
                received.append(event.data)
    return status, len(received)


@pytest.mark.promise("E3")
@pytest.mark.process
def test_the_buffer_goes_out_where_it_is_asked_for(tmp_path: Path) -> None:
    assert run(tmp_path, flushes=True) == (-signal.SIGTERM, 1000)


@pytest.mark.process
def test_a_handler_that_was_there_before_comes_behind_it(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\npublisher.close()\n"
    before += "with client.pubsub.publisher('bus', 't', flush_on_sigterm=True, **options) as publisher:\n"
    before += "    publisher.send(1)\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)"
    assert run(tmp_path, flushes=False, before=before) == (7, 1001)


@pytest.mark.process
def test_else_nothing_of_the_signal_changes(tmp_path: Path) -> None:
    assert run(tmp_path, flushes=False) == (-signal.SIGTERM, 0)


def test_another_thread_cannot_ask_for_it_first() -> None:
    before = signal.getsignal(signal.SIGTERM)
    errors: list[Exception] = []
    with CloudRuntimesClient(app_id="app", config={"capa": {"home": ":memory:"}}) as client:

        def ask() -> None:
            try:
                client.pubsub.publisher("bus", "t", flush_on_sigterm=True)
            except InvalidArgumentError as error:
                errors.append(error)

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        finally:
            signal.signal(signal.SIGTERM, before)
    (error,) = errors
    assert "flush_on_sigterm needs the main thread" in str(error)
