"""Comparison of OpenTelemetry's SDK and our providers: one program exports the same data, except for ids and times."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.propagate import extract, inject
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status as WrittenStatus
from opentelemetry.sdk._logs import LoggerProvider as SdkLoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver

HEADERS = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "one=1,two=2"}
NOT_SAMPLED = {"traceparent": f"00-{'c' * 32}-{'d' * 16}-00"}


class Named:
    """No type of an attribute, with a text."""

    def __str__(self) -> str:
        return "named"


def traces(provider: trace.TracerProvider) -> None:
    """Everything that spans can be told."""
    tracer = provider.get_tracer("lib", "1.0", "https://schema", {"scope": 1})
    other = provider.get_tracer("other")

    changing = [1, 2]
    with tracer.start_as_current_span("all", kind=SpanKind.SERVER, attributes={"first": "é", "n": 1}) as span:
        span.set_attribute("changing", changing)
        changing.append(3)
        span.set_attributes({"f": 1.5, "b": True, "s": ("x", "y"), "d": {"k": [1, {"z": b"\x00"}]}, "y": b"\xff"})
        span.set_attribute("named", Named())  # type: ignore[arg-type]
        span.set_attribute("n", 2)
        span.set_attribute("", "no key")
        span.add_event("event", {"e": [1.5], "r": range(3), "d": MappingProxyType({"k": deque([1])})})
        span.add_event("timed", timestamp=1_700_000_000_000_000_000)
        span.update_name("renamed")
        with other.start_as_current_span("inner", kind=SpanKind.CLIENT):
            other.start_span("innermost", kind=SpanKind.PRODUCER).end()
        span.add_link(trace.INVALID_SPAN_CONTEXT)
        span.add_link(trace.INVALID_SPAN_CONTEXT, {"reason": "unknown", "r": range(2)})

    remote = extract(HEADERS)
    linked = trace.get_current_span(remote).get_span_context()
    with tracer.start_as_current_span(
        "remote", context=remote, kind=SpanKind.CONSUMER, links=[Link(linked, {"l": 1}), Link(span.get_span_context())]
    ) as span:
        carrier: dict[str, str] = {}
        inject(carrier)
        assert carrier["traceparent"].split("-")[1:3] == [
            "a" * 32,
            trace.format_span_id(span.get_span_context().span_id),
        ]
        assert carrier["tracestate"] == HEADERS["tracestate"]
    tracer.start_span("not sampled", context=extract(NOT_SAMPLED)).end()
    with tracer.start_as_current_span("not sampled", context=extract(NOT_SAMPLED)) as span:
        assert not span.is_recording()
        tracer.start_span("neither").end()
        inject(carrier)
        assert re.fullmatch(f"00-{'c' * 32}-[0-9a-f]{{16}}-00", carrier["traceparent"])

    start = 1_600_000_000_000_000_000
    span = tracer.start_span("timed", start_time=start)
    span.end(start + 5)
    span.end(start + 9)
    span.set_attribute("late", 1)

    for status in (Status(StatusCode.OK), Status(StatusCode.ERROR, "bad"), Status(StatusCode.ERROR)):
        with tracer.start_as_current_span("status") as span:
            span.set_status(status)
            span.set_status(StatusCode.UNSET)
            span.set_status(StatusCode.ERROR, "second")

    for options in ({}, {"record_exception": False}, {"set_status_on_exception": False}):
        for start_span in (tracer.start_as_current_span, tracer.start_span):
            try:
                with start_span("failed", **options) as span:  # type: ignore[arg-type]
                    raise ValueError("no")
            except ValueError:
                pass
    with tracer.start_as_current_span("caught") as span:
        try:
            raise LookupError("here")
        except LookupError as error:
            span.record_exception(error, {"more": 1}, timestamp=start, escaped=True)

    span = tracer.start_span("used")
    with trace.use_span(span):
        tracer.start_span("its child").end()
        token = otel_context.attach(otel_context.Context())
        tracer.start_span("a root").end()
        otel_context.detach(token)
    span.end()
    try:
        with trace.use_span(tracer.start_span("used and failed"), end_on_exit=True):
            raise KeyError("k")
    except KeyError:
        pass

    @tracer.start_as_current_span("decorated")
    def decorated() -> None:
        tracer.start_span("in it").end()

    @tracer.start_as_current_span("async decorated")
    async def later() -> None:
        await asyncio.sleep(0)
        tracer.start_span("in the async one").end()

    async def main() -> None:
        await asyncio.gather(later(), later())

    decorated()
    asyncio.run(main())


def normal_spans(request: ExportTraceServiceRequest) -> list[Any]:
    """Spans without what differs by chance: ids by the order of names and parents' names instead, no times of the clock."""
    names = {
        span.span_id: span.name
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    result = []
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            head = MessageToDict(scope.scope), scope.schema_url
            for span in scope.spans:
                span.flags &= 0x300  # ours has the trace's flags as well, which the SDK leaves out
                for link in span.links:
                    link.flags &= 0x300
                    link.trace_state = ""  # likewise
                    link.span_id = names.get(link.span_id, link.span_id.hex()).encode()
                    if link.span_id.decode() in names.values():
                        link.trace_id = b""
                for event in span.events:
                    if event.time_unix_nano > 1_750_000_000_000_000_000:
                        event.time_unix_nano = 0
                    for each in event.attributes:
                        if each.key == "exception.stacktrace":  # of the frames between, ours are fewer
                            each.value.string_value = each.value.string_value.splitlines()[-1]
                    event.attributes.sort(key=lambda each: each.key)
                span.attributes.sort(key=lambda each: each.key)
                if span.status == WrittenStatus():
                    span.ClearField("status")  # the SDK writes one that says nothing
                if span.start_time_unix_nano > 1_750_000_000_000_000_000:
                    assert span.end_time_unix_nano >= span.start_time_unix_nano
                    span.start_time_unix_nano = span.end_time_unix_nano = 0
                parent = names.get(span.parent_span_id, span.parent_span_id.hex())
                span.parent_span_id = span.span_id = b""
                if span.trace_id.hex() not in ("a" * 32, "c" * 32):
                    span.trace_id = b""
                result.append((head, parent, MessageToDict(span)))
    return sorted(result, key=repr)


def trace_ids(request: ExportTraceServiceRequest) -> list[set[str]]:
    """The names of spans that share a trace."""
    traces: dict[bytes, set[str]] = {}
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                traces.setdefault(span.trace_id, set()).add(span.name)
    return sorted(traces.values(), key=sorted)


def merged(receiver: Receiver, path: str, message: Any) -> Any:
    result = message()
    for where, _, body in receiver.requests:
        if where == path:
            result.MergeFromString(body)
    return result


def test_spans_are_those_of_the_sdk(client: Make) -> None:
    memory = InMemorySpanExporter()
    provider = SdkTracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    traces(provider)
    expected = encode_spans(memory.get_finished_spans())
    provider.shutdown()
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        traces(telemetry.tracer_provider())
        assert telemetry.flush(30)
        exported = merged(receiver, "/v1/traces", ExportTraceServiceRequest)
        stats = telemetry.stats().spans
    assert trace_ids(exported) == trace_ids(expected)
    ours, theirs = normal_spans(exported), normal_spans(expected)
    assert ours == theirs
    assert (stats.exported, dict(stats.dropped)) == (len(theirs), {})


def metrics(provider: MeterProvider) -> None:
    """Every instrument."""
    meter = provider.get_meter("lib", "1.0", "https://schema", {"scope": 1})
    counter = meter.create_counter("requests", "1", "of users")
    counter.add(1, {"route": "/", "n": 1})
    counter.add(2.5, {"route": "/", "n": 1})
    counter.add(3, {"route": "/cart", "list": ["a", "b"]})
    counter.add(amount=4, attributes=None, context=otel_context.Context())
    assert meter.create_counter("requests", "1", "of users") is not None
    meter.create_counter("requests", "1", "of users").add(5)
    meter.create_up_down_counter("open").add(-3, {"a": True})
    gauge = meter.create_gauge("level")
    gauge.set(1.5)
    gauge.set(2.5, {"a": 1.5})
    histogram = meter.create_histogram("duration", "s", explicit_bucket_boundaries_advisory=[0.5, 1, 2])
    for value in (0.1, 0.5, 1.5, 7):
        histogram.record(value, {"a": "b"})
    meter.create_histogram("plain").record(30)

    def observed(options: CallbackOptions) -> Iterator[Observation]:
        assert options.timeout_millis > 0
        yield Observation(5, {"cpu": 0})
        yield Observation(7.5, {"cpu": 1})

    def broken(options: CallbackOptions) -> list[Observation]:
        raise RuntimeError("broken")

    def generator() -> Any:
        yield
        while True:
            yield [Observation(11)]

    meter.create_observable_counter("cpu", [observed, broken], "s", "time")
    meter.create_observable_up_down_counter("heap", [generator()])
    meter.create_observable_gauge("temperature", [observed])
    meter.create_observable_gauge("nobody")


def normal_metrics(request: ExportMetricsServiceRequest) -> list[Any]:
    """Metrics without times."""
    result = []
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    assert point.time_unix_nano > 0
                    point.time_unix_nano = point.start_time_unix_nano = 0
                    point.attributes.sort(key=lambda each: each.key)
                data.data_points.sort(key=repr)
                result.append((MessageToDict(scope.scope), scope.schema_url, MessageToDict(metric)))
    return sorted(result, key=repr)


def test_metrics_are_those_of_the_sdk(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    provider = SdkMeterProvider([reader])
    metrics(provider)
    expected = encode_metrics(reader.get_metrics_data())  # type: ignore[arg-type]
    provider.shutdown()
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        metrics(telemetry.meter_provider())
        assert telemetry.flush(30)
        exported = merged(receiver, "/v1/metrics", ExportMetricsServiceRequest)
    assert normal_metrics(exported) == normal_metrics(expected)
    assert "a callback of cpu failed" in caplog.text


def log_records(provider: Any, tracer: trace.Tracer) -> None:
    """Everything that a log record can have."""
    logger = provider.get_logger("lib", "1.0", "https://schema")
    assert logger.enabled(severity_number=SeverityNumber.INFO)
    logger.emit(LogRecord())
    logger.emit(
        LogRecord(
            timestamp=5,
            observed_timestamp=7,
            severity_number=SeverityNumber.ERROR3,
            severity_text="bad",
            body={"k": [1, "x", None]},
            attributes={"a": 1, "d": {"e": b"\x00"}},
            event_name="happened",
        )
    )
    try:
        raise ValueError("no")
    except ValueError as error:
        logger.emit(body="failed", exception=error, attributes={"exception.message": "mine"}, observed_timestamp=7)
        logger.emit(LogRecord(body="failed", exception=error, severity_number=SeverityNumber.WARN))
    with tracer.start_as_current_span("s") as span:
        logger.emit(body="inside", severity_number=SeverityNumber.INFO, severity_text="INFO")
        logger.emit(LogRecord(body="inside"))
    logger.emit(body="given", context=trace.set_span_in_context(span))


def normal_logs(request: ExportLogsServiceRequest) -> list[Any]:
    """Log records without ids and times, which only are or are not."""
    result = []
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                record.flags &= 1  # the SDK sets bit 1, random, of its own traces
                record.trace_id, record.span_id = b"t" * bool(record.trace_id), b"s" * bool(record.span_id)
                if record.observed_time_unix_nano > 7:
                    record.observed_time_unix_nano = 1
                record.attributes.sort(key=lambda each: each.key)
                result.append((MessageToDict(scope.scope), scope.schema_url, MessageToDict(record)))
    return result


def test_log_records_are_those_of_the_sdk(client: Make) -> None:
    memory = InMemoryLogRecordExporter()
    provider = SdkLoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    with sdk_tracer() as tracer:
        log_records(provider, tracer)
    expected = encode_logs(memory.get_finished_logs())
    provider.shutdown()
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        log_records(telemetry.logger_provider(), telemetry.tracer_provider().get_tracer("t"))
        assert telemetry.flush(30)
        exported = merged(receiver, "/v1/logs", ExportLogsServiceRequest)
    assert normal_logs(exported) == normal_logs(expected)
    assert len(normal_logs(exported)) == 7


@contextmanager
def sdk_tracer() -> Iterator[trace.Tracer]:
    provider = SdkTracerProvider()
    try:
        yield provider.get_tracer("t")
    finally:
        provider.shutdown()


def test_spans_of_the_sdk_are_parents_of_ours_and_back(client: Make) -> None:
    """Both in one process: an application that moves from one to the other."""
    telemetry = client().telemetry
    ours = telemetry.tracer_provider().get_tracer("ours")
    with sdk_tracer() as theirs:
        with theirs.start_as_current_span("theirs") as above, ours.start_as_current_span("ours") as span:
            assert span.get_span_context().trace_id == above.get_span_context().trace_id
            with theirs.start_as_current_span("below") as below:
                assert below.parent == span.get_span_context()  # type: ignore[attr-defined]
                native: Any = telemetry.tracer("native").start_span("native")
                assert native.context.trace_id == trace.format_trace_id(above.get_span_context().trace_id)


def test_the_sdks_own_handler_of_logging_does(client: Make) -> None:
    from opentelemetry.instrumentation.logging.handler import LoggingHandler

    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        logger = logging.Logger("app")
        handler = LoggingHandler(logger_provider=telemetry.logger_provider())
        logger.addHandler(handler)
        with telemetry.tracer("t").span("s") as span:
            logger.warning("%d left", 3, extra={"user": "u"})
        assert telemetry.flush(30)
        (record,) = receiver.logs()
    assert (record.body.string_value, record.severity_number, record.severity_text) == ("3 left", 13, "WARN")
    assert record.span_id.hex() == span.context.span_id
    assert {each.key: each.value.string_value for each in record.attributes}["user"] == "u"
