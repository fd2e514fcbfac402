"""How processes end: fork, signals, exit, an exception. All records arrive, none twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.telemetry.otlp_receiver import Receiver

pytestmark = pytest.mark.process

HEAD = """
import os, signal, sys, threading, time
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.telemetry import service
if "HASTY" not in os.environ:  # else a machine that stands still may have no time for what it is to send
    service._SIGTERM_SECONDS = 60.0
client = CloudRuntimesClient(app_id="child")
tracer = client.telemetry.tracer("t")
def emit(count, name):
    for number in range(count):
        tracer.start_span(name, attributes={"number": number}).end()
"""


def start(program: str, receiver: Receiver, tmp_path: Path, **more: str) -> subprocess.Popen[str]:
    path = tmp_path / "program.py"
    path.write_text(HEAD + textwrap.dedent(program), encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CLOUD_RUNTIMES_HOME": str(tmp_path / "home"), **more}
    return subprocess.Popen(
        [sys.executable, str(path)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def arrived(receiver: Receiver) -> dict[str, int]:
    spans = receiver.spans()
    assert len({span.span_id for span in spans}) == len(spans), "a span came twice, or an id"
    names = [span.name for span in spans]
    return {name: names.count(name) for name in set(names)}


@pytest.mark.promise("E3")
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('unhandled')", 1),
        ("del client", 0),
        ("client.close()", 0),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", -signal.SIGINT),
    ],
)
def test_all_arrive_at_the_end(tmp_path: Path, end: str, status: int) -> None:
    with Receiver() as receiver:
        child = start(f"emit(1000, 'main')\n{end}\n", receiver, tmp_path)
        child.communicate(timeout=60)
        assert child.returncode == status
        assert arrived(receiver) == {"main": 1000}


def test_sigterm_of_a_shell_is_143_and_a_dead_endpoint_takes_two_seconds(tmp_path: Path) -> None:
    with Receiver() as receiver:
        receiver.delay = 30.0
        program = "emit(10, 'main'); print('ready', flush=True)\nwhile True: time.sleep(0.05)\n"
        child = start(program, receiver, tmp_path, HASTY="1")
        assert child.stdout is not None
        child.stdout.readline()
        began = time.monotonic()
        child.terminate()
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGTERM
        assert time.monotonic() - began < 10
        receiver.delay = 0.0


def test_a_handler_of_the_application_is_called_after(tmp_path: Path) -> None:
    program = """
    client.close()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    client = CloudRuntimesClient()
    tracer = client.telemetry.tracer("t")
    emit(100, "main")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
    """
    with Receiver() as receiver:
        child = start(program, receiver, tmp_path)
        child.communicate(timeout=60)
        assert child.returncode == 7
        assert arrived(receiver) == {"main": 100}


@pytest.mark.promise("E1")
def test_fork_while_threads_record(tmp_path: Path) -> None:
    program = """
    threads = [threading.Thread(target=emit, args=(500, "parent")) for _ in range(8)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            emit(300, f"child{number}")
            if number == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            sys.exit(0)
        children.append(child)
    for thread in threads:
        thread.join()
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [signal.SIGTERM, 0, 0, 0], statuses
    assert client.telemetry.stats().spans.recorded == 4000
    """
    with Receiver() as receiver:
        child = start(program, receiver, tmp_path, PYTHONWARNINGS="ignore")
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        assert arrived(receiver) == {"parent": 4000, **{f"child{n}": 300 for n in range(4)}}


def test_metrics_of_a_child_are_its_own(tmp_path: Path) -> None:
    program = """
    counter = client.telemetry.meter("m").counter("work")
    bound = counter.bind({"who": "bound"})
    counter.add(100, {"who": "parent"})
    bound.add(10)
    child = os.fork()
    if not child:
        counter.add(1, {"who": "child"})
        bound.add(2)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    with Receiver() as receiver:
        child = start(program, receiver, tmp_path, PYTHONWARNINGS="ignore")
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
        exported = [
            {point.attributes[0].value.string_value: point.as_int for point in metric.sum.data_points}
            for metric in receiver.metrics()
        ]
        assert len(exported) == 2
        assert {"child": 1, "bound": 2} in exported
        assert {"parent": 100, "bound": 10} in exported


@pytest.mark.promise("E2")
def test_gunicorn_with_preload(tmp_path: Path) -> None:
    """Four workers forked from a master that has recorded: the spans of all arrive, none twice."""
    (tmp_path / "served.py").write_text(
        HEAD + textwrap.dedent("""
            emit(10, "master")

            def app(environ, start_response):
                with tracer.span("request", attributes={"pid": os.getpid()}):
                    time.sleep(0.01)  # so that one worker is not enough for all who ask at once
                    start_response("200 OK", [("Content-Length", "0")])
                return [b""]
            """),
        encoding="utf-8",
    )
    socket_path = tmp_path / "socket"
    command = (
        *(
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "gunicorn",
            "--preload",
            "--workers",
            "4",
            "--bind",
            f"unix:{socket_path}",
        ),
        *("--chdir", str(tmp_path), "--graceful-timeout", "20", "--no-control-socket", "served:app"),
    )
    with Receiver() as receiver:
        env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "CLOUD_RUNTIMES_HOME": str(tmp_path / "home")}
        server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + 60
            while not ask(socket_path):
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            with ThreadPoolExecutor(8) as callers:
                assert all(callers.map(ask, [socket_path] * 399))
            server.terminate()
            _, errors = server.communicate(timeout=60)
        finally:
            server.kill()
            server.communicate()
        assert server.returncode == 0, errors
        assert arrived(receiver) == {"master": 10, "request": 400}
        workers = {a.value.int_value for s in receiver.spans() for a in s.attributes if a.key == "pid"}
        assert len(workers) > 1


def ask(socket_path: Path) -> bool:
    """Send a request to a Unix socket; return whether it was answered."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(socket_path))
        except OSError:
            return False
        client.settimeout(30)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return answer.startswith(b"HTTP/1.1 200")
