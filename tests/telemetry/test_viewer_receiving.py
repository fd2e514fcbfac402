"""The viewer as a receiver of OTLP: real clients, what is refused and with which words, what browsers may not do."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import Compression, OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from cloud_runtimes._core import extras, zstd
from cloud_runtimes._http.limits import MAX_BODY
from cloud_runtimes.dashboard import asgi as dashboard_asgi
from cloud_runtimes.dashboard import encodings, queries
from cloud_runtimes.dashboard.server import Viewer
from cloud_runtimes.errors import UnavailableError
from cloud_runtimes.rpc import asgi
from tests.support import Make
from tests.support.waiting import in_threads
from tests.telemetry.viewing import JSON, PROTOBUF, TRACE, ask, gauge, logs, metrics, send, spans, text, viewing

RESPONSES: dict[str, Any] = {
    "traces": ExportTraceServiceResponse,
    "logs": ExportLogsServiceResponse,
    "metrics": ExportMetricsServiceResponse,
}


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    with viewing(tmp_path / "seen") as instance:
        yield instance


def kept(viewer: Viewer) -> tuple[int, int, int]:
    """How many spans, log records and points are stored."""
    signals = ask(viewer, "/api/status").json()["signals"]
    return signals["traces"]["kept"], signals["logs"]["kept"], signals["metrics"]["kept"]


def as_protobuf(request: dict[str, Any]) -> bytes:
    """Return a request of spans in protobuf, made by another's library; all its ids are those of JSON."""
    message = ExportTraceServiceRequest()
    resource = request["resourceSpans"][0]
    given = [dict(span) for span in resource["scopeSpans"][0]["spans"]]
    for span in given:
        span.pop("traceId"), span.pop("spanId")
    whole = {"resourceSpans": [{"resource": resource["resource"], "scopeSpans": [{"spans": given}]}]}
    json_format.ParseDict(whole, message)
    for at, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        span.trace_id = bytes.fromhex(resource["scopeSpans"][0]["spans"][at]["traceId"])
        span.span_id = bytes.fromhex(resource["scopeSpans"][0]["spans"][at]["spanId"])
    return message.SerializeToString()


# -- clients ---------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_our_own_exporter(viewer: Viewer, client: Make, compression: str) -> None:
    telemetry = client(endpoint=viewer.address, compression=compression).telemetry
    with telemetry.tracer("lib", "1.2").span("outer", kind="server", attributes={"n": 2**60, "l": [1, "a"]}) as outer:
        with telemetry.tracer("lib", "1.2").span("inner") as inner:
            inner.add_event("seen", {"k": True})
            inner.set_status("error", "no luck")
        telemetry.logger("app").warning("careful", n=2)
    telemetry.meter("m").counter("orders", "1", "All of them").add(3, {"country": "fr"})
    telemetry.meter("m").histogram("size", bounds=[1, 10]).record(5)
    telemetry.meter("m").histogram("time", bounds="exponential").record(0.5)
    assert telemetry.flush(30)
    assert telemetry.stats().spans.exported == 2
    (row,) = ask(viewer, "/api/traces").json()["traces"]
    assert (row["name"], row["service"], row["spans"], row["errors"], row["rooted"]) == ("outer", "shop", 2, 1, True)
    trace = ask(viewer, f"/api/traces/{row['trace']}").json()
    first, second = trace["spans"]
    assert (first["span"], first["depth"], first["kind"], first["status"]) == (
        outer.context.span_id,
        0,
        "server",
        "unset",
    )
    assert first["attributes"] == {"n": str(2**60), "l": [1, "a"]}
    assert (second["parent"], second["depth"], second["message"]) == (first["span"], 1, "no luck")
    assert second["events"][0]["name"] == "seen"
    assert first["source"]["resource"]["service.name"] == "shop"
    assert (first["source"]["scope"], first["source"]["version"]) == ("lib", "1.2")
    (record,) = ask(viewer, f"/api/logs?trace={row['trace']}").json()["logs"]
    assert (record["body"], record["level"], record["span"], record["attributes"]) == (
        "careful",
        "WARN",
        first["span"],
        {"n": 2},
    )
    series = {each["name"]: each for each in ask(viewer, "/api/metrics").json()["series"]}
    assert (series["orders"]["kind"], series["orders"]["attributes"]) == ("counter", {"country": "fr"})
    assert series["orders"]["points"][-1]["value"] == 3.0
    assert (series["size"]["kind"], series["size"]["points"][-1]["count"]) == ("histogram", 1)
    assert (series["time"]["kind"], series["time"]["points"][-1]["value"]) == ("exponential histogram", 0.5)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_exporters_of_opentelemetry(viewer: Viewer, compression: Compression) -> None:
    resource = Resource.create({"service.name": "other"})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{viewer.address}/v1/traces", compression=compression))
    )
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{viewer.address}/v1/metrics", compression=compression))
    meters = MeterProvider([reader], resource)
    loggers = LoggerProvider(resource)
    loggers.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(f"{viewer.address}/v1/logs", compression=compression))
    )
    with tracers.get_tracer("theirs").start_as_current_span("span of theirs", attributes={"a": 1.5}):
        from opentelemetry._logs import SeverityNumber

        loggers.get_logger("theirs").emit(body={"k": [1, 2]}, severity_number=SeverityNumber.ERROR)
    meters.get_meter("theirs").create_up_down_counter("depth").add(-4)
    assert tracers.force_flush()
    assert meters.force_flush()
    for each in (tracers, meters, loggers):
        each.shutdown()
    (row,) = ask(viewer, "/api/traces?service=other").json()["traces"]
    assert row["name"] == "span of theirs"
    (record,) = ask(viewer, "/api/logs?severity=17").json()["logs"]
    assert (json.loads(record["body"]), record["trace"]) == ({"k": [1, 2]}, row["trace"])
    (series,) = ask(viewer, "/api/metrics?name=depth").json()["series"]
    assert (series["kind"], series["points"][-1]["value"]) == ("up-down counter", -4.0)


def test_both_encodings_and_their_answers(viewer: Viewer) -> None:
    one, two = spans({"spanId": "1" * 16}), spans({"spanId": "2" * 16})
    reply = send(viewer, "traces", one)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/json", b"{}")
    reply = ask(viewer, "/v1/traces", as_protobuf(two), PROTOBUF)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/x-protobuf", b"")
    trace = ask(viewer, f"/api/traces/{TRACE}").json()
    first, second = ({k: v for k, v in span.items() if k not in ("span", "source")} for span in trace["spans"])
    assert first == second
    for headers in ({"content-type": "Application/JSON; charset=utf-8"}, JSON | {"content-encoding": "identity"}):
        assert ask(viewer, "/v1/traces", json.dumps(one).encode(), headers).status == 200
    for headers in (PROTOBUF, JSON):
        assert ask(viewer, "/v1/logs", b"" if headers is PROTOBUF else b"{}", headers).status == 200
    assert kept(viewer) == (2, 0, 0)


def test_gzip_of_several_members(viewer: Viewer) -> None:
    body = json.dumps(spans({})).encode()
    zipped = gzip.compress(body[:50]) + gzip.compress(body[50:])
    assert ask(viewer, "/v1/traces", zipped, JSON | {"content-encoding": "gzip"}).status == 200
    assert kept(viewer) == (1, 0, 0)


def test_many_at_once(viewer: Viewer) -> None:
    failures: list[Any] = []

    def run(number: int) -> None:
        for each in range(20):
            trace = f"{number * 100 + each + 1:032x}"
            reply = send(viewer, "traces", spans({"traceId": trace}, {"traceId": trace}))
            reply = reply if reply.status != 200 else send(viewer, "logs", logs(text(f"{number} {each}")))
            if reply.status != 200 or ask(viewer, "/api/traces?name=work").status != 200:
                failures.append(reply)

    in_threads(*[threading.Thread(target=run, args=(number,)) for number in range(6)])
    assert not failures
    assert kept(viewer) == (240, 120, 0)


# -- what is refused -------------------------------------------------------


def said(signal: str, kind: dict[str, str], body: bytes) -> tuple[int, str]:
    """Return what a response says was rejected, read by another's library."""
    message = RESPONSES[signal]()
    if kind is JSON:
        json_format.Parse(body, message)
    else:
        message.ParseFromString(body)
    partial = message.partial_success
    (number,) = (value for field, value in partial.ListFields() if field.name != "error_message")
    return number, partial.error_message


@pytest.mark.parametrize(
    "bad",
    [
        {"traceId": ""},
        {"traceId": "0" * 32},
        {"traceId": "ab"},
        {"spanId": ""},
        {"spanId": "0" * 16},
        {"spanId": "a" * 32},
    ],
)
@pytest.mark.parametrize("kind", [JSON, PROTOBUF], ids=["json", "protobuf"])
def test_spans_without_ids_are_rejected_and_the_others_kept(
    viewer: Viewer, bad: dict[str, str], kind: dict[str, str]
) -> None:
    request = spans(bad, {}, bad)
    body = json.dumps(request).encode() if kind is JSON else as_protobuf(request)
    reply = ask(viewer, "/v1/traces", body, kind)
    assert reply.status == 200
    assert said("traces", kind, reply.body) == (2, "a span needs a trace id and a span id that are not zero")
    counters = ask(viewer, "/api/status").json()["signals"]["traces"]
    assert counters == {"received": 3, "kept": 1, "rejected": 2, "repeated": 0, "evicted": 0}


def test_records_and_points_that_are_none_are_rejected(viewer: Viewer) -> None:
    reply = send(viewer, "logs", logs(text("good"), {"traceId": "ab"}, {"spanId": "ab"}))
    assert said("logs", JSON, reply.body)[0] == 2
    no_value = {"name": "n", "gauge": {"dataPoints": [{}]}}
    reply = send(viewer, "metrics", metrics(gauge("good", 1), gauge("", 1, 2), no_value))
    assert said("metrics", JSON, reply.body)[0] == 3
    assert kept(viewer) == (0, 1, 1)


def status(kind: dict[str, str], body: bytes) -> tuple[int, str]:
    """Read a ``google.rpc.Status``."""
    if kind is JSON:
        return json.loads(body)["code"], json.loads(body)["message"]
    assert body[0] == 0x08
    assert body[2] == 0x12
    return body[1], body[body.index(b"\x12") + 2 :].decode("utf-8", "replace")


@pytest.mark.parametrize("kind", [JSON, PROTOBUF], ids=["json", "protobuf"])
@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
def test_garbage_is_a_status_in_the_encoding_of_the_request(viewer: Viewer, signal: str, kind: dict[str, str]) -> None:
    reply = ask(viewer, f"/v1/{signal}", b"\x0agarbage", kind)
    assert (reply.status, reply.headers["content-type"]) == (400, kind["content-type"])
    code, message = status(kind, reply.body)
    assert code == 3  # INVALID_ARGUMENT
    assert message
    assert "Traceback" not in message
    assert kept(viewer) == (0, 0, 0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no gzip", "no gzip"),
        (gzip.compress(b"{}", mtime=0)[:-3], "cut off"),
        (gzip.compress(b"{}", mtime=0) + b"rest", "no gzip"),
        (b"", "cut off"),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "not JSON"),
    ],
)
def test_gzip_that_is_none(viewer: Viewer, body: bytes, reason: str) -> None:
    reply = ask(viewer, "/v1/logs", body, JSON | {"content-encoding": "gzip"})
    assert reply.status == 400
    assert reason in reply.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/grpc"},
        JSON | {"content-encoding": "br"},
        JSON | {"content-encoding": "gzip, gzip"},
    ],
)
def test_other_types_are_415(viewer: Viewer, headers: dict[str, str]) -> None:
    reply = ask(viewer, "/v1/traces", json.dumps(spans({})).encode(), headers)
    assert reply.status == 415
    assert reply.json()["code"] == 3
    assert reply.headers["connection"] == "close"
    assert kept(viewer) == (0, 0, 0)


def test_bodies_are_bounded_also_when_unpacked(viewer: Viewer) -> None:
    reply = ask(viewer, "/v1/logs", b" " * (MAX_BODY + 1), JSON)
    assert (reply.status, reply.json()["code"]) == (413, 8)
    bomb = gzip.compress(bytes(MAX_BODY + 1), 9)
    assert len(bomb) < 100_000
    reply = ask(viewer, "/v1/logs", bomb, JSON | {"content-encoding": "gzip"})
    assert reply.status == 413
    assert "when unpacked" in reply.json()["message"]
    two = gzip.compress(bytes(MAX_BODY // 2 + 1), 9) * 2
    assert ask(viewer, "/v1/logs", two, JSON | {"content-encoding": "gzip"}).status == 413
    assert ask(viewer, "/v1/logs", b"{}" + b" " * (MAX_BODY - 2), JSON).status == 200


def test_zstd_is_checked_and_bounded(viewer: Viewer) -> None:
    module, headers = zstd.load("test"), JSON | {"content-encoding": "zstd"}
    packed = zstd.compress(module, b"{}")
    assert ask(viewer, "/v1/logs", packed, headers).status == 200
    assert ask(viewer, "/v1/logs", packed[:2] + b"x" + packed[3:], headers).status == 400
    assert ask(viewer, "/v1/logs", packed[:-1], headers).status == 400
    largest = zstd.compress(module, b"{}" + b" " * (MAX_BODY - 2))
    assert ask(viewer, "/v1/logs", largest, headers).status == 200
    reply = ask(viewer, "/v1/logs", zstd.compress(module, bytes(MAX_BODY + 1)), headers)
    assert reply.status == 413
    assert "when unpacked" in reply.json()["message"]


def test_zstd_that_is_not_installed(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda *modules: False)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    reply = ask(viewer, "/v1/logs", b"", JSON | {"content-encoding": "zstd"})
    assert reply.status == 415
    assert '".[zstd]"' in reply.json()["message"]


def test_members_of_gzip_are_bounded(viewer: Viewer) -> None:
    """Each member but the last is followed by others, so a body of many empty ones must not be copied for each."""
    empty = gzip.compress(b"", mtime=0)
    body = gzip.compress(b"{}") + empty * 1_023
    assert ask(viewer, "/v1/logs", body, JSON | {"content-encoding": "gzip"}).status == 200
    reply = ask(viewer, "/v1/logs", empty * (MAX_BODY // len(empty)), JSON | {"content-encoding": "gzip"})
    assert (reply.status, reply.json()["message"]) == (413, "the body has more than 1,024 members of gzip")
    large = gzip.compress(bytes(MAX_BODY // 2), 0) + empty * 1_000 + gzip.compress(bytes(MAX_BODY // 2), 0)
    assert len(encodings.UNPACK["gzip"](large)) == MAX_BODY


def test_who_announces_and_sends_nothing_holds_up_nobody(viewer: Viewer) -> None:
    port = int(viewer.address.rpartition(":")[2])
    head = b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(8):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            silent.sendall(head % MAX_BODY)
        for _ in range(20):
            assert ask(viewer, "/v1/logs", b"{}", JSON).status == 200


def test_a_body_that_comes_too_slowly(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "HEAD_TIME", 0.2)
    port = int(viewer.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_too_much_at_once_is_503_and_told_to_come_again(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard_asgi, "MAX_WAITING", 1_000)
    monkeypatch.setattr(dashboard_asgi, "HEAD_TIME", 0.2)  # for the rest of a body, of which there is none
    reply = ask(viewer, "/v1/logs", b"{}" + b" " * 1_000, JSON)
    assert (reply.status, reply.headers["retry-after"], reply.json()["code"]) == (503, "1", 14)
    assert ask(viewer, "/v1/logs", b"{}", JSON).status == 200


def test_a_store_that_fails_is_503_and_clients_come_again(
    viewer: Viewer, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        monkeypatch.undo()
        raise UnavailableError("the disk is away")

    monkeypatch.setattr(viewer.store, "add", fail)
    telemetry = client(endpoint=viewer.address).telemetry
    telemetry.tracer("t").start_span("s").end()
    assert telemetry.flush(30)
    assert telemetry.stats().spans.exported == 1
    assert kept(viewer) == (1, 0, 0)


def test_an_error_of_ours_is_500_and_logged(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(queries, "status", fail)
    with caplog.at_level(logging.ERROR):
        reply = ask(viewer, "/api/status")
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/traces", 405),
        ("OPTIONS", "/v1/traces", 405),
        ("PUT", "/v1/logs", 405),
        ("POST", "/", 405),
        ("DELETE", "/api/traces", 405),
        ("POST", "/v1/profiles", 405),
        ("GET", "/nothing", 404),
        ("GET", "/style.css/../../server.py", 404),
        ("GET", "/%2e%2e/server.py", 404),
        ("GET", "/api/traces/zz", 404),
        ("GET", f"/api/traces/{TRACE}", 404),
        ("GET", "/api/traces?limit=x", 400),
        ("GET", "/api/traces?min=-1", 400),
        ("GET", "/api/traces?min=nan", 400),
        ("GET", "/api/logs?severity=1e3", 400),
        ("HEAD", "/", 200),
        ("HEAD", "/app.js", 200),
        ("GET", "/api/logs?trace=zz&limit=0", 200),
    ],
)
def test_methods_and_paths(viewer: Viewer, method: str, path: str, expected: int) -> None:
    reply = ask(viewer, path, None, {}, method)
    assert reply.status == expected
    if method == "HEAD":
        assert reply.body == b""
        assert int(reply.headers["content-length"]) > 0
    if expected == 405:
        assert reply.headers["allow"] in ("GET", "POST")


# -- browsers --------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:4318",
        "localhost:1",
        "[::1]:4318",
        "app.localhost",
        "host.docker.internal:4318",
        "viewer",
    ],
)
def test_hosts_that_nobody_can_register_are_answered(viewer: Viewer, host: str) -> None:
    assert ask(viewer, "/api/status", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:4318", "a.nip.io", "[::1", "", "a b.c"]
)
@pytest.mark.parametrize("path", ["/", "/api/status", "/v1/traces"])
def test_dns_rebinding_is_refused(viewer: Viewer, host: str, path: str) -> None:
    body = json.dumps(spans({})).encode() if path == "/v1/traces" else None
    assert ask(viewer, path, body, JSON | {"host": host}).status in (400, 421)
    assert kept(viewer) == (0, 0, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://127.0.0.1:{port}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/status", "/app.js", "/v1/traces"])
def test_other_origins_are_refused(viewer: Viewer, headers: dict[str, str], path: str) -> None:
    port = viewer.address.rpartition(":")[2]
    given = {name: value.replace("{port}", port) for name, value in headers.items()}
    body = json.dumps(spans({})).encode() if path == "/v1/traces" else None
    reply = ask(viewer, path, body, JSON | given)
    assert reply.status == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert kept(viewer) == (0, 0, 0)


def test_its_own_page_and_links_to_it_are_answered(viewer: Viewer) -> None:
    own = {"origin": viewer.address, "sec-fetch-site": "same-origin"}
    assert ask(viewer, "/api/status", headers=own).status == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(viewer, "/", headers=link).status == 200
    assert ask(viewer, "/api/status", headers=link).status == 403


def test_every_answer_has_the_headers_that_keep_browsers_honest(viewer: Viewer) -> None:
    for path in ("/", "/app.js", "/views.js", "/style.css", "/icon.svg", "/api/status", "/nothing"):
        headers = ask(viewer, path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]


def test_the_page_names_nothing_from_elsewhere(viewer: Viewer) -> None:
    page = Path(dashboard_asgi.__file__).parent / "page"
    for file in page.iterdir():
        content = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in content
        assert "https:" not in content
        assert "innerHTML" not in content


# -- ends ------------------------------------------------------------------


def test_a_port_that_is_taken(viewer: Viewer, tmp_path: Path) -> None:
    port = int(viewer.address.rpartition(":")[2])
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} cannot be listened on.*give another --port"):
        with Viewer(str(tmp_path / "other"), port=port):
            pass
    assert not (tmp_path / "other").exists()


def test_a_home_that_is_in_use(viewer: Viewer, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"another process receives telemetry into .*telemetry\.db"):
        with viewing(tmp_path / "seen"):
            pass
    assert ask(viewer, "/api/status").status == 200


def test_what_was_received_is_there_after_a_restart(tmp_path: Path) -> None:
    with viewing(tmp_path / "home") as first:
        assert send(first, "traces", spans({}, {})).status == 200
    with viewing(tmp_path / "home") as second:
        assert kept(second) == (2, 0, 0)
        assert ask(second, f"/api/traces/{TRACE}").json()["duration"] == 1_000_000
    assert (tmp_path / "home" / "telemetry.db").stat().st_mode & 0o077 == 0


def test_in_memory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with viewing(":memory:") as viewer:
        assert send(viewer, "traces", spans({})).status == 200
        assert kept(viewer) == (1, 0, 0)
    assert list(tmp_path.iterdir()) == []
