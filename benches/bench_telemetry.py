"""Telemetry beside OpenTelemetry's SDK, ddtrace and prometheus_client (extra ``[bench]``).

``python -m benches.bench_telemetry`` measures ratios: slices of all callers, interleaved and in turning order, in CPU time of the calling thread; a ratio is the median of those of each round.

Ours is a client of its own with the default exporter, files: recorded, encoded, and written by the sender's thread (whose time is not the caller's; ``whole`` counts that of the process). The SDK has its batch processor before an exporter that does nothing, so its spans are recorded and not yet encoded; its encoder is timed apart.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cloud_runtimes import CloudRuntimesClient, native_status

ATTRIBUTES = {
    "http.request.method": "GET",
    "http.route": "/cart/{id}",
    "http.status": 200,
    "peer": "db",
    "cached": True,
}
Calls = dict[str, dict[str, Callable[[], Any]]]


def _spans(tracer: Any) -> Callable[[], None]:
    def call() -> None:
        with tracer.span("GET /cart/{id}") as span:
            span.set_attribute("http.request.method", "GET")
            span.set_attribute("http.route", "/cart/{id}")
            span.set_attribute("http.status", 200)
            span.set_attribute("peer", "db")
            span.set_attribute("cached", True)

    return call


def _api_spans(tracer: Any) -> Callable[[], None]:
    def call() -> None:
        with tracer.start_as_current_span("GET /cart/{id}") as span:
            span.set_attribute("http.request.method", "GET")
            span.set_attribute("http.route", "/cart/{id}")
            span.set_attribute("http.status", 200)
            span.set_attribute("peer", "db")
            span.set_attribute("cached", True)

    return call


def ours(calls: Calls, telemetry: Any) -> None:
    """Our calls."""
    tracer, logger, meter = telemetry.tracer("bench"), telemetry.logger("bench"), telemetry.meter("bench")
    counter, histogram = meter.counter("c"), meter.histogram("h")
    bound = counter.bind({"method": "GET", "route": "/cart", "status": 200})
    standard = logging.Logger("ours")
    standard.addHandler(telemetry.logging_handler())
    calls["span, 5 attributes"]["ours"] = _spans(tracer)
    calls["counter.add, literal of 3"]["ours"] = lambda: counter.add(
        1, {"method": "GET", "route": "/cart", "status": 200}
    )
    calls["histogram.record, literal of 3"]["ours"] = lambda: histogram.record(
        12.5, {"method": "GET", "route": "/cart", "status": 200}
    )
    calls["bound counter"]["ours"] = lambda: bound.add(1)
    calls["log record, 3 attributes"]["ours"] = lambda: logger.info("user logged in", user="bob", n=12, ok=True)
    calls["log record through logging"]["ours"] = lambda: standard.info("user %s logged in", "bob")


def drop_in(telemetry: Any) -> Calls:
    """Spans through OpenTelemetry's API, and what the shared context costs native ones. From here on the current span lives in OpenTelemetry's context."""
    calls: Calls = {"span of OpenTelemetry's API, 5 attributes": {}}
    sdk: Calls = defaultdict(dict)
    opentelemetry(sdk)
    tracer = telemetry.tracer_provider().get_tracer("bench")
    (row,) = calls.values()
    row["ours"] = _api_spans(tracer)
    row["ours, native in the same context"] = _spans(telemetry.tracer("bench"))
    row["opentelemetry-sdk"] = sdk["span, 5 attributes"]["opentelemetry-sdk"]
    return calls


def opentelemetry(calls: Calls) -> None:
    """OpenTelemetry's SDK, exporters that do nothing."""
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Spans(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    class Logs(LogRecordExporter):
        def export(self, batch: Any) -> Any:
            return LogRecordExportResult.SUCCESS

        def shutdown(self) -> None:
            pass

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Spans()))
    span = _api_spans(provider.get_tracer("bench"))

    meter = MeterProvider([InMemoryMetricReader()]).get_meter("bench")
    counter, histogram = meter.create_counter("c"), meter.create_histogram("h")
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(Logs()))
    standard = logging.Logger("otel")
    standard.addHandler(LoggingHandler(logger_provider=logs))
    calls["span, 5 attributes"]["opentelemetry-sdk"] = span
    calls["counter.add, literal of 3"]["opentelemetry-sdk"] = lambda: counter.add(
        1, {"method": "GET", "route": "/cart", "status": 200}
    )
    calls["histogram.record, literal of 3"]["opentelemetry-sdk"] = lambda: histogram.record(
        12.5, {"method": "GET", "route": "/cart", "status": 200}
    )
    calls["log record, 3 attributes"]["opentelemetry-sdk, LoggingHandler"] = lambda: standard.info(
        "user logged in", extra={"user": "bob", "n": 12, "ok": True}
    )
    calls["log record through logging"]["opentelemetry-sdk, LoggingHandler"] = lambda: standard.info(
        "user %s logged in", "bob"
    )


def ddtrace(calls: Calls) -> None:
    """ddtrace, a root span, its writer without an agent."""
    os.environ.setdefault("DD_TRACE_ENABLED", "true")
    os.environ.setdefault("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
    os.environ.setdefault("DD_REMOTE_CONFIGURATION_ENABLED", "false")
    os.environ.setdefault("DD_TRACE_STARTUP_LOGS", "false")
    logging.getLogger("ddtrace").setLevel(logging.CRITICAL)
    from ddtrace.trace import tracer

    def span() -> None:
        with tracer.trace("GET /cart/{id}") as span:
            span.set_tag("http.request.method", "GET")
            span.set_tag("http.route", "/cart/{id}")
            span.set_tag("http.status", 200)
            span.set_tag("peer", "db")
            span.set_tag("cached", True)

    calls["span, 5 attributes"]["ddtrace, root"] = span


def prometheus(calls: Calls) -> None:
    """prometheus_client, with labels and bound."""
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()
    labels = ["method", "route", "status"]
    counter, histogram = Counter("c", "c", labels, registry=registry), Histogram("h", "h", labels, registry=registry)
    bound = counter.labels("GET", "/cart", "200")
    calls["counter.add, literal of 3"]["prometheus_client"] = lambda: counter.labels(
        method="GET", route="/cart", status="200"
    ).inc()
    calls["histogram.record, literal of 3"]["prometheus_client"] = lambda: histogram.labels(
        method="GET", route="/cart", status="200"
    ).observe(12.5)
    calls["bound counter"]["prometheus_client"] = bound.inc


@contextmanager
def callers() -> Iterator[tuple[Calls, Any]]:
    """Yield calls by topic and library, and the service; peers that are not installed are omitted."""
    calls: Calls = {
        name: {}
        for name in (
            "span, 5 attributes",
            "counter.add, literal of 3",
            "histogram.record, literal of 3",
            "bound counter",
            "log record, 3 attributes",
            "log record through logging",
        )
    }
    with tempfile.TemporaryDirectory() as home:
        table = {"flush_on_sigterm": False, "exporter": "file"}
        with CloudRuntimesClient(app_id="bench", config={"capa": {"home": home}, "telemetry": table}) as client:
            ours(calls, client.telemetry)
            for module, add in (
                ("opentelemetry.sdk", opentelemetry),
                ("ddtrace", ddtrace),
                ("prometheus_client", prometheus),
            ):
                if importlib.util.find_spec(module.partition(".")[0]) and importlib.util.find_spec(module):
                    add(calls)
            yield calls, client.telemetry


def say(line: str) -> None:
    """Write a line of the report."""
    sys.stdout.write(line + "\n")


def _slice(call: Callable[[], Any], count: int) -> float:
    repeat = range(count)
    began = time.thread_time_ns()
    for _ in repeat:
        call()
    return (time.thread_time_ns() - began) / count


def _measure(calls: dict[str, Callable[[], Any]], rounds: int) -> None:
    counts = {who: max(20, int(3e6 / max(_slice(call, 50), 1))) for who, call in calls.items()}
    names = list(calls)
    samples: dict[str, list[float]] = {who: [] for who in names}
    for number in range(rounds):
        turn = number % len(names)
        for who in names[turn:] + names[:turn]:
            samples[who].append(_slice(calls[who], counts[who]))
    for who in names:
        ratio = statistics.median(other / mine for other, mine in zip(samples[who], samples["ours"], strict=True))
        say(f"  {who:36} {statistics.median(samples[who]):10,.0f} ns  min {min(samples[who]):10,.0f}  {ratio:6.1f}×")


def _encoding(rounds: int, telemetry: Any) -> None:
    """The SDK's encoder of finished spans, beside the end of ours: the clock, the encoding, and the copy into the buffer."""
    if importlib.util.find_spec("opentelemetry.exporter") is None:
        return
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider

    tracer, native = TracerProvider().get_tracer("bench"), telemetry.tracer("bench")
    batch = []
    for _ in range(512):
        span = tracer.start_span("GET /cart/{id}", attributes=ATTRIBUTES)
        span.end()
        batch.append(span)
    ours, theirs = [], []
    for _ in range(rounds):
        begun = [native.start_span("GET /cart/{id}") for _ in range(512)]
        for span in begun:
            for key, value in ATTRIBUTES.items():
                span.set_attribute(key, value)
        began = time.thread_time_ns()
        for span in begun:
            span.end()
        ours.append((time.thread_time_ns() - began) / 512)
        theirs.append(_slice(lambda: encode_spans(batch).SerializeToString(), 1) / 512)
    ratio = statistics.median(other / mine for other, mine in zip(theirs, ours, strict=True))
    say("OTLP encoding of a finished span")
    say(f"  {'ours':36} {statistics.median(ours):10,.0f} ns  min {min(ours):10,.0f}  {1:6.1f}×")
    say(f"  {'opentelemetry':36} {statistics.median(theirs):10,.0f} ns  min {min(theirs):10,.0f}  {ratio:6.1f}×")


def main() -> None:
    """Measure all, interleaved."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 51
    say(f"Python {sys.version.split()[0]}; kernels: {native_status().reason}; CPU time of the caller")
    with callers() as (cases, telemetry):
        for what, calls in cases.items():
            say(what)
            _measure(calls, rounds)
        if importlib.util.find_spec("opentelemetry") and importlib.util.find_spec("opentelemetry.sdk"):
            for what, calls in drop_in(telemetry).items():
                say(what)
                _measure(calls, rounds)
        _encoding(rounds, telemetry)


if __name__ == "__main__":
    main()
