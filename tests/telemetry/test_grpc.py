"""OTLP over gRPC, before grpcio's own server: statuses, sizes, TLS and settings. What fails is in test_sending.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_runtimes.errors import InvalidArgumentError, UnsupportedError
from cloud_runtimes.telemetry import _grpc
from tests.rpc.http_peers import Relay
from tests.support import PEM, Make
from tests.support.ports import reserved_port
from tests.support.waiting import until
from tests.telemetry.emitting import record
from tests.telemetry.grpc_receiver import GrpcReceiver, Refusal, retry_info


@pytest.fixture
def over(client: Make) -> Callable[..., Any]:
    """Make the telemetry of a client that sends to a receiver."""

    def make(receiver: Any, **settings: Any) -> Any:
        url = receiver if isinstance(receiver, str) else receiver.url
        return client(endpoint=url, protocol="grpc", home=":memory:", **settings).telemetry

    return make


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
    delay = _grpc._retry_after([("other", "x"), ("grpc-status-details-bin", details)])
    if seconds is ...:  # whatever it is, it is no error
        assert delay is None or 0 <= delay <= 3600
    else:
        assert delay == seconds
    assert _grpc._retry_after([("grpc-status-details-bin", "text")]) is None


def test_gzip(over: Callable[..., Any]) -> None:
    sizes = []
    for compression in ("gzip", "none"):
        with GrpcReceiver() as receiver, Relay(f"http://127.0.0.1:{receiver.port}") as relay:
            telemetry = over(relay.address, compression=compression)
            record(telemetry, 1000, same="value")
            assert telemetry.flush(30)
            assert len(receiver.spans()) == 1000
            sizes.append((len(relay.received), len(receiver.requests[0][2])))
    (squeezed, whole), (plain, _) = sizes
    assert squeezed < whole / 2 < plain


def test_zstd_is_of_http(client: Make) -> None:
    with pytest.raises(InvalidArgumentError, match='give "gzip"'):
        client(endpoint="http://127.0.0.1:4317", protocol="grpc", compression="zstd").telemetry.stats()


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
    with pytest.raises(UnsupportedError, match=r"pip install \"\.\[otlp-grpc\]\" in the checkout"):
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
