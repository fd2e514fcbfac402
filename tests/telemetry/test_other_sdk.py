"""Another OpenTelemetry SDK in the process: traces go through its spans and ours, and one warning where they would be exported apart."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.telemetry.otlp_receiver import Receiver

SDK = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from cloud_runtimes import CloudRuntimesClient
URL = sys.argv[1]
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{URL}/v1/traces")))
trace.set_tracer_provider(provider)
theirs = trace.get_tracer("theirs")
def opened(**telemetry):
    return CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}, "telemetry": telemetry})
def hexadecimal(span):
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
"""
NESTED = """
ours = client.telemetry.tracer("ours")
with theirs.start_as_current_span("request"):
    with ours.span("place order") as order:
        assert trace.get_current_span().get_span_context().span_id == int(order.context.span_id, 16)
        client.state.save("s", "k", 1)
        with theirs.start_as_current_span("query"):
            with ours.span("parse"):
                pass
assert trace.get_current_span() is trace.INVALID_SPAN
client.close()
provider.shutdown()
"""
CHAIN = [("parse", "query"), ("place order", "request"), ("query", "place order"), ("request", None), ("state.save", "place order")]  # fmt: skip


def run(program: str, *args: str) -> list[str]:
    """Run a program; return the lines of its stderr, which warnings of ours go to."""
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def chain(spans: list[Any]) -> list[tuple[str, str | None]]:
    """Return each span's name and that of its parent, of spans that are one trace."""
    assert len({span.trace_id for span in spans}) == 1
    names = {span.span_id: span.name for span in spans}
    return sorted((span.name, names[span.parent_span_id] if span.parent_span_id else None) for span in spans)


@pytest.mark.process
def test_one_trace_through_both() -> None:
    with Receiver() as receiver:
        assert run(SDK + "client = opened(endpoint=URL, instrument=True)\n" + NESTED, receiver.url) == []
    assert chain(receiver.spans()) == CHAIN


@pytest.mark.process
def test_what_the_sdk_leaves_out_is_left_out() -> None:
    sampling = "from opentelemetry.sdk.trace.sampling import ALWAYS_OFF\ntheirs.sampler = ALWAYS_OFF\n"
    with Receiver() as receiver:
        run(SDK + sampling + "client = opened(endpoint=URL, instrument=True)\n" + NESTED, receiver.url)
    assert receiver.spans() == []


@pytest.mark.process
def test_events_carry_its_spans_without_telemetry_of_ours() -> None:
    program = """
client = opened()
with theirs.start_as_current_span("request") as request:
    client.pubsub.publish("bus", "topic", {})
with client.pubsub.subscribe("bus", "topic", start="earliest") as events:
    event = events.receive(timeout=60)
    assert event.traceparent == hexadecimal(request), event.traceparent
    event.ack()
client.close()
"""
    with Receiver() as receiver:
        assert run(SDK + program, receiver.url) == []


@pytest.mark.process
def test_contexts_of_its_own_are_told_of() -> None:
    other = """
import os
from opentelemetry import context
class Runtime(type(context._RUNTIME_CONTEXT)):
    def attach(self, context):
        return [super().attach(context)]
    def detach(self, token):
        super().detach(*token)
context._RUNTIME_CONTEXT = Runtime()
"""
    with Receiver() as receiver:
        program = SDK + other + "client = opened(endpoint=URL)\nclient.telemetry.tracer('t')\nclient.close()\n"
        (line,) = run(program, receiver.url)
    assert "OTEL_PYTHON_CONTEXT" in line
    assert "have different traces" in line


# -- provider = "global": records go through the SDK's providers

GLOBAL = """
import logging
from opentelemetry import _logs, metrics
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
_logs.set_logger_provider(LoggerProvider())
_logs.get_logger_provider().add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{URL}/v1/logs")))
reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{URL}/v1/metrics"), 3_600_000)
metrics.set_meter_provider(MeterProvider([reader]))
client = opened(provider="global", instrument=True)
telemetry = client.telemetry
"""


def attributes(record: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in record.attributes}


@pytest.mark.process
def test_one_trace_by_the_global_provider() -> None:
    with Receiver() as receiver:
        assert run(SDK + GLOBAL + NESTED, receiver.url) == []
    assert chain(receiver.spans()) == CHAIN
    assert not any("cloud-runtimes-python" in str(headers) for _, headers, _ in receiver.requests)


@pytest.mark.process
def test_what_a_span_is_told_by_the_global_provider() -> None:
    program = """
import asyncio
ours = telemetry.tracer("ours", "1.0", "https://opentelemetry.io/schemas/1.44.0")
try:
    with ours.span("first", kind="server", attributes={"a": 1}) as first:
        first.set_attributes({"b": "two"})
        first.add_event("packed", {"boxes": 1})
        raise ValueError("no")
except ValueError:
    pass
first.end()
headers = {}
async def main():
    async with ours.span("second", parent=first, links=[first, (first.context, {"why": "again"})]) as second:
        telemetry.inject(headers)
        second.update_name("renamed")
        second.set_status("ok")
        assert (second.name, second.is_recording, second.attributes) == ("renamed", True, {})
    assert headers["traceparent"] == second.context.traceparent
asyncio.run(main())
ours.start_span("third", parent=telemetry.extract(headers)).end()
for wrong in ({"kind": "x"}, {"parent": 1}, {"links": [1]}):
    try:
        ours.span("w", **wrong)
    except ValueError:
        continue
    raise AssertionError(wrong)
assert telemetry.flush(30)
assert telemetry.stats().spans.recorded == 0
client.close()
"""
    with Receiver() as receiver:
        assert run(SDK + GLOBAL + program, receiver.url) == []
    first, second, third = receiver.spans()
    assert (first.name, first.kind, attributes(first)) == ("first", 2, {"a": 1, "b": "two"})
    assert [event.name for event in first.events] == ["packed", "exception"]
    assert (first.status.code, first.status.message) == (2, "ValueError: no")
    assert (second.name, second.parent_span_id, second.status.code) == ("renamed", first.span_id, 1)
    assert [link.span_id for link in second.links] == [first.span_id] * 2
    assert (third.parent_span_id, third.trace_id) == (second.span_id, first.trace_id)
    assert b"1.0" in receiver.requests[0][2]


@pytest.mark.process
def test_metrics_and_logs_by_the_global_provider() -> None:
    program = """
meter = telemetry.meter("ours", "1.0")
assert meter is telemetry.meter("ours", "1.0")
orders = meter.counter("orders", "{order}", "How many.")
assert orders is meter.counter("orders", "{order}", "How many.")
orders.add(2, {"kind": "new"})
orders.bind({"kind": "new"}).add()
meter.up_down_counter("open").add(-1)
meter.gauge("heat").set(20.5)
meter.histogram("time", "s", bounds=(1, 2)).record(1.5)
meter.observable_gauge("seen", lambda: [(3, {"k": "v"})])
with telemetry.tracer("ours").span("charge"):
    telemetry.logger("ours").info("charged", amount=12.5)
    logging.getLogger("app").addHandler(telemetry.logging_handler())
    logging.getLogger("app").warning("stock is low")
assert telemetry.flush(30)
client.close()
"""
    with Receiver() as receiver:
        assert run(SDK + GLOBAL + program, receiver.url) == []
    found = {metric.name: metric for metric in receiver.metrics()}
    (orders,) = found["orders"].sum.data_points
    assert (orders.as_int, attributes(orders), found["orders"].unit) == (3, {"kind": "new"}, "{order}")
    assert found["open"].sum.data_points[0].as_int == -1
    assert found["heat"].gauge.data_points[0].as_double == 20.5
    assert found["time"].histogram.data_points[0].explicit_bounds == [1, 2]
    assert found["seen"].gauge.data_points[0].as_int == 3
    (span,) = receiver.spans()
    logs = receiver.logs()
    assert [log.body.string_value for log in logs] == ["charged", "stock is low"]
    assert [log.severity_number for log in logs] == [9, 13]
    assert {log.span_id for log in logs} == {span.span_id}
    assert attributes(logs[0]) == {"amount": 12.5}


@pytest.mark.process
def test_the_global_provider_cannot_be_ours_as_well() -> None:
    program = """
from cloud_runtimes import CloudRuntimesClient, telemetry
client = CloudRuntimesClient(app_id="shop", config={"telemetry": {"provider": "global"}})
with client.telemetry.tracer("t").span("nobody records") as span:
    assert span.context.traceparent.endswith("-00")
try:
    telemetry.install(client)
except ValueError as error:
    assert "leave provider out" in str(error)
else:
    raise AssertionError
client.close()
"""
    assert run(program) == []


# -- exported apart: one warning, and nothing is imported to find it

BEFORE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""
METRICS = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
"""
CALL = """
import sys
from cloud_runtimes import CloudRuntimesClient
client = CloudRuntimesClient(app_id="shop", config={"capa": {"home": ":memory:"}, "telemetry": {"instrument": True}})
for number in range(3):
    client.state.save("s", "k", number)
"""
CLOSE = """
assert client.telemetry.flush(10)
client.close()
"""
INSTALL = """
from cloud_runtimes.telemetry import install
install().close()
"""
NOTHING = "assert 'opentelemetry' not in sys.modules\n"
NO_OP = "from opentelemetry import trace\ntrace.set_tracer_provider(trace.NoOpTracerProvider())\n"


def warnings_of(*parts: str) -> list[str]:
    return run(textwrap.dedent("".join(parts)))


@pytest.mark.process
@pytest.mark.parametrize(
    "parts",
    [(BEFORE, CALL, CALL, CLOSE), (METRICS, CALL, CLOSE), (CALL, BEFORE, CLOSE)],
    ids=["before", "metrics alone", "after the first call"],
)
def test_another_sdk_is_told_of_once(parts: tuple[str, ...]) -> None:
    (line,) = warnings_of(*parts)
    assert "OpenTelemetry's global provider is opentelemetry.sdk." in line
    assert 'provider = "global"' in line


@pytest.mark.process
@pytest.mark.parametrize(
    "parts",
    [(CALL, NOTHING, CLOSE, NOTHING), ("import os\nos.environ['OTEL_PYTHON_TRACER_PROVIDER'] = 'sdk_tracer_provider'\nimport opentelemetry.trace\n", CALL, CLOSE),
     (INSTALL, CALL, CLOSE), (NO_OP, CALL, CLOSE)],
    ids=["none", "the API alone", "ours", "one that does nothing"],
)  # fmt: skip
def test_without_another_nothing_is_said(parts: tuple[str, ...]) -> None:
    assert warnings_of(*parts) == []
