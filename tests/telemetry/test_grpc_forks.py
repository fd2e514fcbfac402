"""OTLP over gRPC in forked children: each has channels of its own, and a fork waits for what is under way, though not for ever."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.waiting import until

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]


class Elsewhere:
    """A receiver in a process of its own: one with grpcio's server in it is no parent to fork."""

    def __init__(self, folder: Path, delay: float) -> None:
        folder.mkdir()
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.telemetry.grpc_receiver", folder, str(delay)], stdin=subprocess.PIPE, cwd=ROOT
        )
        until((folder / "port").exists)
        self.url = f"http://127.0.0.1:{(folder / 'port').read_text()}"

    def names(self) -> list[str]:
        return sorted(
            span.name
            for file in self._folder.glob("*.request")
            for resource in ExportTraceServiceRequest.FromString(file.read_bytes()).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def run(folder: Path, program: str, *arguments: str) -> None:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


PROGRAM = """
import logging, os, sys, time
logging.basicConfig()
from cloud_runtimes import CloudRuntimesClient

url, mode = sys.argv[1:]
table = {"endpoint": url, "protocol": "grpc", "trace_delay": 0.001 if mode == "busy" else 5, "flush_on_sigterm": False}
client = CloudRuntimesClient(config={"capa": {"home": ":memory:"}, "telemetry": table})
tracer = client.telemetry.tracer("t")
tracer.start_span("before").end()
if mode == "idle":
    assert client.telemetry.flush(60)
children = []
for number in range(5):
    if mode == "busy":
        tracer.start_span(f"parent-{number}").end()
        time.sleep(0.03)  # somewhere in a call, which takes the endpoint a while
    child = os.fork()
    if child == 0:
        for n in range(10):
            tracer.start_span(f"child-{number}-{n}").end()
        good = client.telemetry.flush(60)
        stats = client.telemetry.stats().spans
        if not good or stats.exported != 10:
            print(number, good, stats, file=sys.stderr, flush=True)
            os._exit(3)
        if number % 2:
            sys.exit()  # the whole way out
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
tracer.start_span("after").end()
assert client.telemetry.flush(60)
assert codes == [0] * 5, codes
client.close()
"""


@pytest.mark.parametrize("mode", ["unused", "idle", "busy"])
def test_forked_children_send_by_channels_of_their_own(tmp_path: Path, mode: str) -> None:
    with closing(Elsewhere(tmp_path / "received", 0.1 if mode == "busy" else 0.0)) as endpoint:
        run(tmp_path, PROGRAM, endpoint.url, mode)
        expected = [f"child-{number}-{n}" for number in range(5) for n in range(10)] + ["after", "before"]
        if mode == "busy":
            expected += [f"parent-{number}" for number in range(5)]
        assert endpoint.names() == sorted(expected)


def test_a_fork_does_not_wait_for_a_slow_endpoint(tmp_path: Path) -> None:
    """The call under way is broken and made again; the endpoint may have the batch twice."""
    program = """
import os, sys, time
from cloud_runtimes import CloudRuntimesClient

table = {"endpoint": sys.argv[1], "protocol": "grpc", "trace_delay": 0.001, "flush_on_sigterm": False, "timeout": 60}
client = CloudRuntimesClient(config={"capa": {"home": ":memory:"}, "telemetry": table})
client.telemetry.tracer("t").start_span("s").end()
channels = client.telemetry._exporters["traces"]._channels
while not channels:
    time.sleep(0.01)
time.sleep(0.5)
began = time.monotonic()
child = os.fork()
if child == 0:
    os._exit(0)
took = time.monotonic() - began
os.waitpid(child, 0)
assert took < 7, took
assert client.telemetry.flush(60)
assert client.telemetry.stats().spans.exported == 1
client.close()
"""
    with closing(Elsewhere(tmp_path / "received", 8.0)) as endpoint:
        run(tmp_path, program, endpoint.url)
        assert set(endpoint.names()) == {"s"}


def test_a_fork_waits_for_a_slow_import(tmp_path: Path) -> None:
    """A child that inherited half of a module could not use it."""
    program = """
import os, sys, time
from cloud_runtimes import CloudRuntimesClient

importing = []

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc._cython":
            importing.append(name)
            time.sleep(2)
        return None

sys.meta_path.insert(0, Slow())
table = {"endpoint": sys.argv[1], "protocol": "grpc", "trace_delay": 0.001, "flush_on_sigterm": False}
client = CloudRuntimesClient(config={"capa": {"home": ":memory:"}, "telemetry": table})
client.telemetry.tracer("t").start_span("parent").end()
while not importing:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    client.telemetry.tracer("t").start_span("child").end()
    os._exit(0 if client.telemetry.flush(60) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.telemetry.flush(60)
client.close()
"""
    with closing(Elsewhere(tmp_path / "received", 0.0)) as endpoint:
        run(tmp_path, program, endpoint.url)
        assert endpoint.names() == ["child", "parent"]
