"""OpenTelemetry beside ours: instrumentation packages, and current spans of events and calls."""

from __future__ import annotations

import logging
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import uvicorn
from opentelemetry import trace
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.instrumentation.urllib import URLLibInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cloud_runtimes.telemetry import TelemetryService
from tests.support import Make
from tests.telemetry.otlp_receiver import Receiver


def application(telemetry: TelemetryService) -> Starlette:
    tracer, logger = telemetry.tracer("shop"), telemetry.logger("shop")

    def cart(request: Request) -> PlainTextResponse:  # runs in a thread of the server's pool
        with tracer.span("look up", attributes={"cart": request.path_params["id"]}):
            with closing(sqlite3.connect(":memory:")) as database:
                cursor = database.cursor()
                cursor.execute("SELECT 1 + 1")
                (value,) = cursor.fetchone()
            logger.info("found")
        return PlainTextResponse(str(value))

    async def broken(request: Request) -> PlainTextResponse:
        raise RuntimeError("no cart")

    return Starlette(routes=[Route("/cart/{id}", cart), Route("/broken", broken)])


@contextmanager
def served(app: Any) -> Iterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def started(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        ready.set()

    server.startup = started  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def instrumented(telemetry: TelemetryService, app: Starlette) -> Iterator[None]:
    providers = {"tracer_provider": telemetry.tracer_provider(), "meter_provider": telemetry.meter_provider()}
    URLLibInstrumentor().instrument(**providers)
    SQLite3Instrumentor().instrument(tracer_provider=telemetry.tracer_provider())
    StarletteInstrumentor.instrument_app(app, **providers)  # type: ignore[arg-type]
    try:
        yield
    finally:
        StarletteInstrumentor.uninstrument_app(app)
        SQLite3Instrumentor().uninstrument()
        URLLibInstrumentor().uninstrument()


def scoped(receiver: Receiver) -> dict[str, list[Span]]:
    """Spans by the last word of their scope."""
    by_scope: dict[str, list[Span]] = {}
    for path, _, body in receiver.requests:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    by_scope.setdefault(scope.scope.name.rpartition(".")[2], []).extend(scope.spans)
    return by_scope


def test_a_request_through_client_server_and_database(client: Make) -> None:
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        app = application(telemetry)
        with instrumented(telemetry, app), served(app) as url:
            with telemetry.tracer("test").span("visit") as visit:
                for number in range(3):
                    with urllib.request.urlopen(f"{url}/cart/{number}") as answer:
                        assert answer.read() == b"2"
        assert telemetry.flush(60)
        by_scope = scoped(receiver)
        metrics = {metric.name: metric for metric in receiver.metrics()}
        logs = receiver.logs()
    every = [span for spans in by_scope.values() for span in spans]
    by_id = {span.span_id: span for span in every}
    assert {span.trace_id.hex() for span in every} == {visit.context.trace_id}
    assert len(by_id) == len(every)

    def above(span: Span) -> Span:
        return by_id[span.parent_span_id]

    assert [(span.kind, above(span).name) for span in by_scope["urllib"]] == [(Span.SPAN_KIND_CLIENT, "visit")] * 3
    servers = [span for span in by_scope["starlette"] if span.kind == Span.SPAN_KIND_SERVER]
    assert [span.name for span in servers] == ["GET /cart/{id}"] * 3
    assert {above(span).span_id for span in servers} == {span.span_id for span in by_scope["urllib"]}
    assert all(span.flags & 0x200 and above(span).kind == Span.SPAN_KIND_CLIENT for span in servers)
    assert {above(span).span_id for span in by_scope["shop"]} == {span.span_id for span in servers}
    assert [span.name for span in by_scope["sqlite3"]] == ["SELECT"] * 3
    assert {above(span).span_id for span in by_scope["sqlite3"]} == {span.span_id for span in by_scope["shop"]}
    statement = {each.key: each.value.string_value for each in by_scope["sqlite3"][0].attributes}
    assert "SELECT 1 + 1" in statement.values()
    # what the server sends are its own spans, below that of the request
    sending = [span for span in by_scope["starlette"] if span.kind == Span.SPAN_KIND_INTERNAL]
    assert sending
    assert {above(span).kind for span in sending} == {Span.SPAN_KIND_SERVER}
    assert {record.span_id for record in logs} == {span.span_id for span in by_scope["shop"]}
    durations = [metric for name, metric in metrics.items() if "duration" in name]
    assert {sum(point.count for point in metric.histogram.data_points) for metric in durations} == {3}
    assert len(durations) == 2  # of the client and of the server
    (active,) = (metric for name, metric in metrics.items() if "active" in name)
    assert [point.as_int for point in active.sum.data_points] == [0]


def test_a_failing_handler(client: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        app = application(telemetry)
        with instrumented(telemetry, app), served(app) as url:
            with pytest.raises(urllib.error.HTTPError, match="500") as raised:
                urllib.request.urlopen(f"{url}/broken")
            raised.value.close()
        assert telemetry.flush(60)
        by_scope = scoped(receiver)
    (server,) = (span for span in by_scope["starlette"] if span.kind == Span.SPAN_KIND_SERVER)
    assert (server.status.code, [event.name for event in server.events]) == (2, ["exception"])
    described = {each.key: each.value.string_value for each in server.events[0].attributes}
    assert (described["exception.type"], described["exception.message"]) == ("RuntimeError", "no cart")
    (caller,) = by_scope["urllib"]
    assert (caller.status.code, caller.span_id) == (2, server.parent_span_id)


def test_a_context_from_elsewhere(client: Make) -> None:
    """A request whose ``traceparent`` an outsider wrote, sampled and not."""
    with Receiver() as receiver:
        telemetry = client(endpoint=receiver.url).telemetry
        app = application(telemetry)
        with instrumented(telemetry, app), served(app) as url:
            URLLibInstrumentor().uninstrument()
            for trace_id, flags in (("a" * 32, "01"), ("c" * 32, "00")):
                headers = {"traceparent": f"00-{trace_id}-{'b' * 16}-{flags}", "tracestate": "v=1"}
                with urllib.request.urlopen(urllib.request.Request(f"{url}/cart/1", headers=headers)) as answer:
                    answer.read()
            URLLibInstrumentor().instrument(tracer_provider=telemetry.tracer_provider())
        assert telemetry.flush(60)
        by_scope = scoped(receiver)
    every = [span for spans in by_scope.values() for span in spans]
    assert {span.trace_id.hex() for span in every} == {"a" * 32}
    (server,) = (span for span in by_scope["starlette"] if span.kind == Span.SPAN_KIND_SERVER)
    assert (server.parent_span_id.hex(), server.trace_state, server.flags) == ("b" * 16, "v=1", 0x301)
    assert len(by_scope["sqlite3"]) == 1


# -- events and calls carry the current span of OpenTelemetry's API, and give it to their handlers


def test_events_and_calls(client: Make) -> None:
    with Receiver() as receiver:
        instance = client(endpoint=receiver.url, instrument=True)
        telemetry = instance.telemetry
        tracer = telemetry.tracer_provider().get_tracer("t")
        remote = NonRecordingSpan(SpanContext(0xABC, 0xDEF, True, TraceFlags(1)))
        stateful = NonRecordingSpan(SpanContext(0xABC, 0xDEE, True, TraceFlags(1), TraceState([("v", "1")])))

        def called(request: Any) -> str:
            with tracer.start_as_current_span("in the handler"):
                return "done"

        instance.rpc.register_method("work", called)
        with instance.pubsub.publisher("bus", "topic") as publisher:
            with trace.use_span(remote):  # by the API alone
                publisher.send({"n": 1})
            with trace.use_span(stateful):
                publisher.send({"n": 2})
            with tracer.start_as_current_span("root") as root:
                publisher.send({"n": 3})
                assert instance.rpc.invoke_method("shop", "work", {}) == "done"
            publisher.send({"n": 4})
            publisher.flush()
        parents = {}
        with instance.pubsub.subscribe("bus", "topic", start="earliest", group="g") as subscription:
            for _ in range(4):
                event = subscription.receive(timeout=60)
                assert event is not None
                parents[event.data["n"]] = event.traceparent
                event.ack()
        assert telemetry.flush(60)
        by_id = {span.span_id: span for span in receiver.spans()}
    own = root.get_span_context()
    assert parents[1] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert parents[2] == f"00-{0xABC:032x}-{0xDEE:016x}-01"
    assert parents[3] is not None
    assert parents[3].split("-")[1] == trace.format_trace_id(own.trace_id)
    (inner,) = (span for span in by_id.values() if span.name == "in the handler")
    assert inner.trace_id.hex() == trace.format_trace_id(own.trace_id)
    above = []
    while inner.parent_span_id:
        inner = by_id[inner.parent_span_id]
        above.append(inner.name)
    assert above[-1] == "root"
    assert len(above) > 1  # the spans of the call stand between
