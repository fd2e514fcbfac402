"""OTLP over gRPC, before grpcio's own server: what is sent again, what is dropped, counters exact, flush in time, forks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes.errors import InvalidArgumentError, UnsupportedError
from cloud_runtimes.telemetry import _grpc
from tests.support import PEM
from tests.support.ports import reserved_port
from tests.support.waiting import until
from tests.telemetry import grpc_receiver
from tests.telemetry.emitting import exact_at_any_time, record
from tests.telemetry.grpc_receiver import GrpcReceiver, Refusal

Make = Callable[..., CloudRuntimesClient]


@pytest.fixture
def over(client: Make) -> Callable[..., Any]:
    """Make the telemetry of a client that sends to a receiver."""

    def make(receiver: Any, **settings: Any) -> Any:
        url = receiver if isinstance(receiver, str) else receiver.url
        return client(endpoint=url, protocol="grpc", home=":memory:", **settings).telemetry

    return make


def retry_info(seconds: int, nanos: int = 0) -> bytes:
    """A ``google.rpc.Status`` with two details, of which the second is a ``RetryInfo``; written by protobuf's own classes where there are any."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes((number << 3 | 2, len(content))) + content

    delay = Duration(seconds=seconds, nanos=nanos).SerializeToString()
    other = AnyMessage(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"\x12\x01x")
    info = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=field(1, delay))
    return b"\x08\x0e" + field(2, b"busy") + field(3, other.SerializeToString()) + field(3, info.SerializeToString())


def test_all_signals_arrive(over: Callable[..., Any]) -> None:
    with GrpcReceiver() as receiver:
        telemetry = over(receiver, headers="x-key=a%20b,Other=1")
        with telemetry.tracer("lib", "1.2").span("work", attributes={"k": 1}):
            telemetry.logger("app").info("hello", n=2)
        telemetry.meter("m").counter("c").add(3)
        assert telemetry.flush(30)
        assert [span.name for span in receiver.spans()] == ["work"]
        assert [log.body.string_value for log in receiver.logs()] == ["hello"]
        assert [metric.sum.data_points[0].as_int for metric in receiver.metrics()] == [3]
        _, metadata, _ = receiver.requests[0]
        assert (metadata["x-key"], metadata["other"]) == ("a b", "1")
        assert metadata["user-agent"].startswith("cloud-runtimes-python/")
        stats = telemetry.stats()
        assert (stats.spans.exported, stats.logs.exported, stats.metrics.exported) == (1, 1, 1)


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "DATA_LOSS"]
)
def test_what_is_sent_again(over: Callable[..., Any], code: str) -> None:
    def answer(number: int) -> bytes:
        if number < 2:
            raise Refusal(code, retry_info(0))
        return b""

    with GrpcReceiver(answer) as receiver:
        telemetry = over(receiver)
        record(telemetry, 3)
        assert telemetry.flush(30)
        assert [body for _, _, body in receiver.requests] == [receiver.requests[0][2]] * 3
        assert telemetry.stats().spans.exported == 3


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "INTERNAL", "UNKNOWN"]
)
def test_what_is_refused_for_good(over: Callable[..., Any], code: str) -> None:
    def answer(number: int) -> bytes:
        if number == 0:
            raise Refusal(code, retry_info(0))
        return b""

    with GrpcReceiver(answer) as receiver:
        telemetry = over(receiver)
        record(telemetry, 3)
        assert not telemetry.flush(30)
        record(telemetry, 2)
        assert telemetry.flush(30)
        stats = telemetry.stats().spans
        assert (stats.exported, dict(stats.dropped), len(receiver.requests)) == (2, {"rejected": 3}, 2)


def test_an_exhausted_endpoint_says_whether_it_recovers(over: Callable[..., Any]) -> None:
    details = iter([None, b"\xff", retry_info(0), None])

    def answer(number: int) -> bytes:
        if number < 3:
            raise Refusal("RESOURCE_EXHAUSTED", next(details))
        return b""

    with GrpcReceiver(answer) as receiver:
        telemetry = over(receiver)
        for good in (False, False, True):  # without a RetryInfo, with details that are none, with one
            record(telemetry, 1)
            assert telemetry.flush(30) is good
        stats = telemetry.stats().spans
        assert (stats.exported, dict(stats.dropped), len(receiver.requests)) == (1, {"rejected": 2}, 4)


def test_retry_info_is_honoured(over: Callable[..., Any]) -> None:
    def answer(number: int) -> bytes:
        if number == 0:
            raise Refusal("UNAVAILABLE", retry_info(1, 200_000_000))
        return b""

    with GrpcReceiver(answer) as receiver:
        telemetry = over(receiver)
        record(telemetry, 1)
        began = time.monotonic()
        assert telemetry.flush(30)
        assert time.monotonic() - began >= 1.2


def test_given_up_after_retry_timeout(over: Callable[..., Any]) -> None:
    def answer(number: int) -> bytes:
        raise Refusal("UNAVAILABLE", retry_info(3000))

    with GrpcReceiver(answer) as receiver:
        telemetry = over(receiver)
        record(telemetry, 4)
        assert not telemetry.flush(30)
        assert dict(telemetry.stats().spans.dropped) == {"unreachable": 4}


@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        (retry_info(0), 0.0),
        (retry_info(2, 500_000_000), 2.5),
        (retry_info(10**9), 3600.0),
        (retry_info(-5), 0.0),
        (retry_info(0, -5), 0.0),
        (b"", None),
        (b"\x1a", None),
        (b"\x18\x01", None),
        (b"\x1a\x02\x08\x01", None),
        (retry_info(1)[:-3], None),
        pytest.param(os.urandom(64), ..., id="random"),
    ],
)
def test_details_of_a_status(details: bytes, seconds: Any) -> None:
    found = _grpc._retry_after([("other", "x"), ("grpc-status-details-bin", details)])
    if seconds is ...:  # whatever it is, it is no error
        assert found is None or 0 <= found <= 3600
    else:
        assert found == seconds
    assert _grpc._retry_after([("grpc-status-details-bin", "text")]) is None


def test_partial_success_is_counted(over: Callable[..., Any]) -> None:
    answer = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="no"))
    with GrpcReceiver(lambda number: answer.SerializeToString()) as receiver:
        telemetry = over(receiver)
        record(telemetry, 5)
        assert not telemetry.flush(30)
        stats = telemetry.stats().spans
        assert (stats.exported, dict(stats.dropped), len(receiver.requests)) == (3, {"rejected": 2}, 1)


def test_gzip(over: Callable[..., Any]) -> None:
    sizes = []
    for compression in ("gzip", "none"):
        with GrpcReceiver() as receiver, Relay(receiver.port) as relay:
            telemetry = over(relay.url, compression=compression)
            record(telemetry, 1000, same="value")
            assert telemetry.flush(30)
            assert len(receiver.spans()) == 1000
            sizes.append((relay.bytes, len(receiver.requests[0][2])))
    (squeezed, whole), (plain, _) = sizes
    assert squeezed < whole / 2 < plain


def test_messages_are_small_enough_for_servers(over: Callable[..., Any]) -> None:
    with GrpcReceiver() as receiver:  # takes 4 MiB
        telemetry = over(receiver, buffer_bytes=64 << 20, resource="big=" + "x" * 100_000)
        record(telemetry, 20_000, text="x" * 600)
        logger = telemetry.logger("l")
        for _ in range(5_000):
            logger.info("x" * 1000)
        counter = telemetry.meter("m").counter("c")
        histogram = telemetry.meter("m").histogram("h")
        for number in range(1500):
            counter.add(1, {"which": f"{number}" + "y" * 1000})
            histogram.record(1, {"which": f"{number}" + "y" * 1000})
        assert telemetry.flush(120)
        assert (len(receiver.spans()), len(receiver.logs())) == (20_000, 5_000)
        assert sum(len(m.sum.data_points) + len(m.histogram.data_points) for m in receiver.metrics()) == 3000
        assert max(len(body) for _, _, body in receiver.requests) <= 3 << 20
        assert not telemetry.stats().metrics.dropped


def test_a_slow_endpoint_gets_it_again(over: Callable[..., Any]) -> None:
    with GrpcReceiver() as receiver:
        receiver.delay = 2.0
        telemetry = over(receiver, timeout=0.3)
        record(telemetry, 2)
        assert telemetry.flush(0.5) is False
        until(lambda: len(receiver.requests) >= 2)
        receiver.delay = 0.0
        assert telemetry.flush(30)
        assert telemetry.stats().spans.exported == 2


def test_an_endpoint_that_comes_later(over: Callable[..., Any]) -> None:
    with reserved_port() as port:
        telemetry = over(f"http://127.0.0.1:{port}")
        record(telemetry, 3)
        assert telemetry.flush(0.5) is False
        with GrpcReceiver(port=port) as receiver:
            assert telemetry.flush(60)
            assert len(receiver.spans()) == 3


def refused() -> tuple[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}", None


def black_hole() -> tuple[str, Any]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


@pytest.mark.parametrize("endpoint", [refused, black_hole])
def test_flush_and_close_keep_their_word(client: Make, endpoint: Callable[[], tuple[str, Any]]) -> None:
    url, listener = endpoint()
    made = client(endpoint=url, protocol="grpc")
    telemetry = made.telemetry
    record(telemetry, 10)
    began = time.monotonic()
    assert telemetry.flush(0.5) is False
    flushed = time.monotonic()
    made.close(timeout=0.3)
    closed = time.monotonic()
    # a machine with other things to do gets a few seconds; what is meant is: not the 10 s of an attempt
    assert 0.5 <= flushed - began < 5
    assert closed - flushed < 5
    until(lambda: not telemetry.stats().spans.buffered)
    stats = telemetry.stats().spans
    assert (stats.recorded, stats.exported, sum(stats.dropped.values()), stats.buffered) == (10, 0, 10, 0)
    if listener:
        listener.close()


def test_counters_are_exact_at_any_time(over: Callable[..., Any], rounds: Callable[[int, int], int]) -> None:
    def answer(number: int) -> bytes:
        if number % 7 == 1:
            raise Refusal("UNAVAILABLE", retry_info(0))
        if number % 7 == 3:
            raise Refusal("INVALID_ARGUMENT")
        return b""

    with GrpcReceiver(answer) as receiver:
        telemetry = over(receiver, trace_delay=0.001, buffer_bytes=50_000)
        exact_at_any_time(telemetry, rounds(2_000, 100_000))


# -- TLS ----------------------------------------------------------------------


def test_tls_by_scheme(over: Callable[..., Any], tmp_path: Path) -> None:
    pem = PEM.read_bytes()
    at = pem.index(b"-----BEGIN CERTIFICATE-----")
    certificate = tmp_path / "ca.pem"
    certificate.write_bytes(pem[at:])
    credentials = grpc.ssl_server_credentials([(pem[:at], pem[at:])])
    with GrpcReceiver(credentials=credentials) as receiver:
        telemetry = over(receiver, certificate=str(certificate))
        record(telemetry, 1)
        assert telemetry.flush(30)
        stranger = over(receiver)  # does not know who signed it
        record(stranger, 1)
        assert stranger.flush(1) is False
        plain = over(receiver.url.replace("https", "http"))
        record(plain, 1)
        assert plain.flush(1) is False
        assert len(receiver.spans()) == 1


# -- settings -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["localhost:4317", "ftp://x", "http://", "http://x:port", "http://x/v1/traces", "http://x?a=b"]
)
def test_wrong_endpoints(client: Make, url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="without a path"):
        client(endpoint=url, protocol="grpc").telemetry  # noqa: B018


@pytest.mark.parametrize("headers", ["a b=1", "x-bin=1", "grpc-timeout=1", "x=a%0Ab", "x=%C3%A9"])
def test_headers_that_cannot_be_metadata(client: Make, headers: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be metadata") as caught:
        client(endpoint="http://x", protocol="grpc", headers=headers).telemetry  # noqa: B018
    assert "é" not in str(caught.value)


def test_the_environment_chooses(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with GrpcReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url + "/")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf")
        telemetry = client().telemetry
        record(telemetry, 1)
        assert telemetry.flush(30)
        assert len(receiver.spans()) == 1
        assert [type(telemetry._exporters[signal]).__name__ for signal in ("traces", "logs", "metrics")] == [
            "GrpcExporter",
            "HttpExporter",
            "GrpcExporter",
        ]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json")
    with pytest.raises(InvalidArgumentError, match="LOGS_PROTOCOL"):
        client().telemetry  # noqa: B018


def test_without_grpcio_it_is_refused(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UnsupportedError, match=r"cloud-runtimes-python\[otlp-grpc\]"):
        client(endpoint="http://x", protocol="grpc").telemetry  # noqa: B018


@pytest.mark.process
def test_grpcio_is_imported_by_the_first_batch(tmp_path: Path) -> None:
    program = """
import sys
from cloud_runtimes import CloudRuntimesClient
table = {"endpoint": "http://127.0.0.1:9", "protocol": "grpc", "retry_timeout": 0.1}
with CloudRuntimesClient(config={"capa": {"home": ":memory:"}, "telemetry": table}) as client:
    span = client.telemetry.tracer("t").start_span("s")
    assert "grpc" not in sys.modules
    span.end()
    client.telemetry.flush(10)
    assert "grpc" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0
    assert done.stderr.count("\n") == done.stderr.count("telemetry: traces cannot be sent: ") == 1


# -- forks --------------------------------------------------------------------


class Elsewhere:
    """A receiver in a process of its own: one with grpcio's server in it is no parent to fork."""

    def __init__(self, folder: Path, delay: float) -> None:
        folder.mkdir()
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, grpc_receiver.__file__, folder, str(delay)], stdin=subprocess.PIPE
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


@pytest.mark.process
@pytest.mark.parametrize("mode", ["unused", "idle", "busy"])
def test_forked_children_send_by_channels_of_their_own(tmp_path: Path, mode: str) -> None:
    endpoint = Elsewhere(tmp_path / "received", 0.1 if mode == "busy" else 0.0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, endpoint.url, mode],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        expected = [f"child-{number}-{n}" for number in range(5) for n in range(10)] + ["after", "before"]
        if mode == "busy":
            expected += [f"parent-{number}" for number in range(5)]
        assert endpoint.names() == sorted(expected)
    finally:
        endpoint.close()


@pytest.mark.process
def test_a_fork_does_not_wait_for_a_slow_endpoint(tmp_path: Path) -> None:
    """The call under way is broken and made again; the endpoint may have the batch twice."""
    endpoint = Elsewhere(tmp_path / "received", 8.0)
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
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, endpoint.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert set(endpoint.names()) == {"s"}
    finally:
        endpoint.close()


@pytest.mark.process
def test_a_fork_waits_for_a_slow_import(tmp_path: Path) -> None:
    """A child that inherited half of a module could not use it."""
    endpoint = Elsewhere(tmp_path / "received", 0.0)
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
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, endpoint.url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert endpoint.names() == ["child", "parent"]
    finally:
        endpoint.close()


class Relay:
    """Passes bytes on to a port, and counts those of the client."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []

    def _pass(self, source: socket.socket, target: socket.socket, *, count: bool) -> None:
        try:
            while data := source.recv(65536):
                if count:
                    self.bytes += len(data)
                target.sendall(data)
        except OSError:
            pass

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [near, far]
            for source, target, count in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass, args=(source, target), kwargs={"count": count}, daemon=True).start()

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            each.close()
