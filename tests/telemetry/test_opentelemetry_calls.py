"""Events and calls carry the current span of OpenTelemetry's API, and give it to their handlers."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver


def test_events_and_calls(client: Make) -> None:
    with Receiver() as receiver:
        made = client(endpoint=receiver.url, instrument=True)
        telemetry = made.telemetry
        tracer = telemetry.tracer_provider().get_tracer("t")
        remote = NonRecordingSpan(SpanContext(0xABC, 0xDEF, True, TraceFlags(1)))
        stateful = NonRecordingSpan(SpanContext(0xABC, 0xDEE, True, TraceFlags(1), TraceState([("v", "1")])))

        def called(request: Any) -> str:
            with tracer.start_as_current_span("in the handler"):
                return "done"

        made.rpc.register_method("work", called)
        with made.pubsub.publisher("bus", "topic") as publisher:
            with trace.use_span(remote):  # by the API alone
                publisher.send({"n": 1})
            with trace.use_span(stateful):
                publisher.send({"n": 2})
            with tracer.start_as_current_span("root") as root:
                publisher.send({"n": 3})
                assert made.rpc.invoke_method("shop", "work", {}) == "done"
            publisher.send({"n": 4})
            publisher.flush()
        found = {}
        with made.pubsub.subscribe("bus", "topic", start="earliest", group="g") as subscription:
            for _ in range(4):
                event = subscription.receive(timeout=60)
                assert event is not None
                found[event.data["n"]] = event.traceparent
                event.ack()
        assert telemetry.flush(60)
        by_id = {span.span_id: span for span in receiver.spans()}
    own = root.get_span_context()
    assert found[1] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert found[2] == f"00-{0xABC:032x}-{0xDEE:016x}-01"
    assert found[3] is not None
    assert found[3].split("-")[1] == trace.format_trace_id(own.trace_id)
    (inner,) = (span for span in by_id.values() if span.name == "in the handler")
    assert inner.trace_id.hex() == trace.format_trace_id(own.trace_id)
    above = []
    while inner.parent_span_id:
        inner = by_id[inner.parent_span_id]
        above.append(inner.name)
    assert above[-1] == "root"
    assert len(above) > 1  # the spans of the call stand between
