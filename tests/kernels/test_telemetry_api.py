"""Spans of OpenTelemetry's API over the telemetry kernel, each body on both twins, and their bytes compared."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import weakref
from collections import UserString
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from benches.race import race, ratio
from cloud_runtimes.errors import InvalidArgumentError
from cloud_runtimes.telemetry._otel_spans import ApiTracer, Bridge
from tests.kernels.test_telemetry import CLOCK, buffer, drain, logs, spans, tracer

REMOTE = SpanContext(0xABC, 0xDEF, True, TraceFlags(1), TraceState([("vendor", "1")]))


@contextmanager
def bridged(kernel: ModuleType) -> Iterator[None]:
    kernel.bridge(Bridge(kernel))
    try:
        yield
    finally:
        kernel.bridge(None)


@pytest.fixture
def api(kernel: ModuleType) -> Iterator[ModuleType]:
    """A kernel with a bridge."""
    with bridged(kernel):
        yield kernel


def tracer_of(kernel: ModuleType, into: Any, limits: tuple[int, ...] = (), sampler: Any = None) -> Any:
    return ApiTracer(tracer(kernel, into, limits, sampler), Bridge(kernel))


class Broken:
    def __str__(self) -> str:
        raise ValueError("no text")


def program(kernel: ModuleType) -> tuple[bytes, bytes]:
    """Everything a span can be told; what was recorded."""
    kernel._set_seed(7)
    into, log_buffer = buffer(kernel), buffer(kernel)
    api = tracer_of(kernel, into, (8, 20, 3, 3))
    with api.start_as_current_span("a", kind=SpanKind.SERVER, attributes={"l": [1, (2.5, "x")], "b": Broken()}) as span:
        span.set_attribute("m", {"k": [True, None], 3: b"\x00"})
        span.set_attribute("broken", Broken())
        span.set_attributes({"a": 1, "o": {1}, "t": "y" * 50, "u": UserString("text"), "w": bytearray(b"w")})
        span.set_attributes({f"k{n}": n for n in range(9)})
        for n in range(5):
            span.add_event(
                f"e{n}", {"n": n, "r": range(n), "m": MappingProxyType({"b": Broken()})}, timestamp=n + 1 if n else None
            )
            span.add_link(REMOTE, {"n": n})
        span.add_link(trace.INVALID_SPAN_CONTEXT)
        with api.start_span("b", links=[Link(REMOTE), Link(span.get_span_context(), {"a": 1})], start_time=5) as child:
            child.set_status(Status(StatusCode.ERROR, "bad"))
            child.update_name("bb")
            child.end(end_time=9)
            child.set_attribute("late", 1)
        with pytest.raises(KeyError), api.start_as_current_span("c") as child:
            raise KeyError("k")
        with pytest.raises(KeyError), api.start_span("d", record_exception=False) as child:
            raise KeyError("k")
        with api.start_as_current_span("e", end_on_exit=False) as child:
            child.record_exception(ValueError("v"), {"exception.message": "other"}, timestamp=3, escaped=True)
            child.set_status(StatusCode.OK, "ignored")
            child.set_status(StatusCode.ERROR, "too late")
        child.end()
        api.start_span("root", context=otel_context.Context()).end()
        api.start_span("remote", context=trace.set_span_in_context(NonRecordingSpan(REMOTE))).end()
        with tracer(kernel, into).span("native"), api.start_as_current_span("under it"):
            pass
    logger = kernel.Logger(log_buffer, kernel.Limits(), 3)
    logger.record(0, 0, 0, "", None, None, b"", b"", 0, "")
    logger.record(1, 2, 17, "ERROR", {"b": 1}, {"a": 1, "broken": Broken()}, b"\x01" * 16, b"\x02" * 8, 3, "event")
    return drain(into), drain(log_buffer)


@pytest.mark.native_only
def test_both_twins_write_the_same(twins: tuple[ModuleType, ModuleType]) -> None:
    written = []
    for module in twins:
        with bridged(module):
            written.append(program(module))
    assert written[0] == written[1]
    assert len(spans(written[0][0])) == 9


def test_what_is_told_is_written(api: ModuleType) -> None:
    body, log_body = program(api)
    by_name = {span.name: span for span in spans(body)}
    assert list(by_name) == ["bb", "c", "d", "e", "root", "remote", "under it", "native", "a"]
    top = by_name["a"]
    assert (top.kind, len(top.events), top.dropped_events_count) == (2, 3, 2)
    assert (len(top.links), top.dropped_links_count) == (3, 2)
    assert (top.links[0].trace_id.hex(), top.links[0].trace_state, top.links[0].flags) == (
        f"{0xABC:032x}",
        "vendor=1",
        0x301,
    )
    assert [event.time_unix_nano for event in top.events] == [CLOCK, 2, 3]
    assert top.dropped_attributes_count > 0
    assert {each.key for each in top.attributes} >= {"l", "m", "a", "o", "t"}
    assert {each.parent_span_id for name, each in by_name.items() if name in ("bb", "c", "d", "e", "native")} == {
        top.span_id
    }
    assert (by_name["bb"].start_time_unix_nano, by_name["bb"].end_time_unix_nano) == (5, 9)
    assert (by_name["bb"].status.code, by_name["bb"].status.message, len(by_name["bb"].links)) == (2, "bad", 2)
    assert not any(each.key == "late" for each in by_name["bb"].attributes)
    assert (by_name["c"].status.message, [event.name for event in by_name["c"].events]) == (
        "KeyError: 'k'",
        ["exception"],
    )
    assert (by_name["d"].status.message, len(by_name["d"].events)) == ("KeyError: 'k'", 0)
    assert (by_name["e"].status.code, by_name["e"].status.message) == (1, "")
    recorded = {each.key: each.value.string_value for each in by_name["e"].events[0].attributes}
    assert (recorded["exception.message"], recorded["exception.escaped"]) == ("other", "True")
    assert by_name["root"].parent_span_id == b""
    assert by_name["root"].trace_id != top.trace_id
    remote = by_name["remote"]
    assert (remote.trace_id.hex(), remote.parent_span_id.hex()) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert (remote.trace_state, remote.flags) == ("vendor=1", 0x301)
    assert by_name["under it"].parent_span_id == by_name["native"].span_id
    bare, full = logs(log_body)
    assert (bare.time_unix_nano, bare.severity_number, bare.trace_id, bare.event_name) == (0, 0, b"", "")
    assert (full.event_name, full.flags, full.span_id, full.dropped_attributes_count) == ("event", 3, b"\x02" * 8, 1)
    assert (full.time_unix_nano, full.observed_time_unix_nano) == (1, 2)


def test_it_is_a_span_of_the_api(api: ModuleType) -> None:
    api_tracer = tracer_of(api, buffer(api))
    assert isinstance(api_tracer, trace.Tracer)
    with api_tracer.start_as_current_span("s", kind=SpanKind.CLIENT, attributes={"a": 1}) as span:
        assert isinstance(span, trace.Span)
        assert trace.get_current_span() is span
        context = span.get_span_context()
        assert context is span.get_span_context() is span.context
        assert (context.is_valid, context.is_remote, context.trace_flags.sampled) == (True, False, True)
        assert f"{context.trace_id:032x}" == span.native.context.trace_id
        assert f"{context.span_id:016x}" == span.native.context.span_id
        assert (span.name, span.kind, span.attributes, span.is_recording()) == ("s", SpanKind.CLIENT, {"a": 1}, True)
        assert "<ApiSpan 's'" in repr(span)
    assert not span.is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_native_span_is_seen_by_the_api(api: ModuleType) -> None:
    into = buffer(api)
    with tracer(api, into).span("native", kind="server") as native:
        seen = trace.get_current_span()
        assert isinstance(seen, trace.Span)
        assert seen.native is native
        assert seen.kind is SpanKind.SERVER
        seen.set_attribute("by", "api")
        with trace.use_span(seen, end_on_exit=False):
            assert api.current_span() is native
    assert trace.get_current_span() is trace.INVALID_SPAN
    (span,) = spans(drain(into))
    assert [each.key for each in span.attributes] == ["by"]


def test_other_values_of_the_context_stay(api: ModuleType) -> None:
    token = otel_context.attach(otel_context.set_value("mine", 1))
    try:
        with tracer(api, buffer(api)).span("native"), tracer_of(api, buffer(api)).start_as_current_span("s"):
            assert otel_context.get_value("mine") == 1
            assert type(otel_context.get_current()) is otel_context.Context
    finally:
        otel_context.detach(token)


def test_remote_contexts_are_the_current_one_in_both_apis(api: ModuleType) -> None:
    with trace.use_span(NonRecordingSpan(REMOTE)):
        current = api.current_span()
        assert (current.trace_id, current.is_remote, current.trace_state) == (f"{0xABC:032x}", True, "vendor=1")
        into = buffer(api)
        tracer(api, into).start_span("s").end()
        assert spans(drain(into))[0].trace_id == bytes.fromhex(current.trace_id)
    given = api.SpanContext("1" * 32, "2" * 16, 1, "a=b", True)
    token = api.current.set(given)
    try:
        assert api.current.get() is given
        seen = trace.get_current_span().get_span_context()
        assert (seen.trace_id, seen.is_remote, seen.trace_state.to_header()) == (int("1" * 32, 16), True, "a=b")
        nothing = api.current.set(None)
        assert (api.current.get(), trace.get_current_span()) == (None, trace.INVALID_SPAN)
        api.current.reset(nothing)
        assert api.current.get() is given
    finally:
        api.current.reset(token)
    assert api.current.get() is None


def test_what_is_no_span_in_the_context_is_none(api: ModuleType) -> None:
    for nothing in (object(), trace.INVALID_SPAN, None):
        token = otel_context.attach(trace.set_span_in_context(nothing))  # type: ignore[arg-type]
        try:
            assert api.current_span() is None
            assert tracer_of(api, buffer(api)).start_span("s").native.context.trace_id
        finally:
            otel_context.detach(token)


def test_spans_from_before_the_bridge_stay_parents(kernel: ModuleType) -> None:
    into = buffer(kernel)
    with tracer(kernel, into).span("early") as early:
        with bridged(kernel):
            with tracer_of(kernel, into).start_as_current_span("late"):
                pass
            assert kernel.current_span() is early
        with tracer(kernel, into).span("after"):
            pass
    assert kernel.current_span() is None
    late, after, top = spans(drain(into))
    assert late.parent_span_id == after.parent_span_id == top.span_id


def test_a_span_entered_before_the_bridge_leaves_after_it(kernel: ModuleType) -> None:
    span = tracer(kernel, buffer(kernel)).span("early")
    span.__enter__()
    with bridged(kernel):
        span.__exit__(None, None, None)
        assert kernel.current_span() is None


def test_tasks_and_threads_have_their_own(api: ModuleType) -> None:
    api_tracer = tracer_of(api, buffer(api))

    async def work(name: str) -> tuple[str, str]:
        with api_tracer.start_as_current_span(name):
            await asyncio.sleep(0)
            with api_tracer.start_as_current_span("inner") as inner:
                await asyncio.sleep(0)
                assert trace.get_current_span() is inner
            return name, trace.get_current_span().name  # type: ignore[attr-defined]

    async def main() -> list[tuple[str, str]]:
        return await asyncio.gather(*(work(str(n)) for n in range(5)))

    assert asyncio.run(main()) == [(str(n), str(n)) for n in range(5)]
    with api_tracer.start_as_current_span("here"):
        assert contextvars.Context().run(trace.get_current_span) is trace.INVALID_SPAN


def test_a_scope_left_in_another_context_still_ends(api: ModuleType) -> None:
    into = buffer(api)
    scope = tracer_of(api, into).start_as_current_span("s")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert [span.name for span in spans(drain(into))] == ["s"]


def test_a_scope_is_entered_once_at_a_time(api: ModuleType) -> None:
    into = buffer(api)
    scope = tracer_of(api, into).start_as_current_span("s")
    with scope:
        with pytest.raises(InvalidArgumentError, match="already"):
            scope.__enter__()
    with scope:
        pass
    scope.__exit__(None, None, None)
    assert len(spans(drain(into))) == 2


def test_decorators(api: ModuleType) -> None:
    into = buffer(api)
    api_tracer = tracer_of(api, into)

    @api_tracer.start_as_current_span("plain")
    def plain(value: int) -> int:
        """Documented."""
        assert trace.get_current_span().name == "plain"  # type: ignore[attr-defined]
        return plain(value - 1) if value else 0

    @api_tracer.start_as_current_span("async")
    async def later() -> str:
        await asyncio.sleep(0)
        return str(trace.get_current_span().name)  # type: ignore[attr-defined]

    assert (plain(2), plain.__doc__) == (0, "Documented.")
    assert asyncio.run(later()) == "async"
    assert [span.name for span in spans(drain(into))] == ["plain"] * 3 + ["async"]


def test_base_exceptions_are_no_errors_of_the_current_span(api: ModuleType) -> None:
    into = buffer(api)
    api_tracer = tracer_of(api, into)
    with pytest.raises(KeyboardInterrupt), api_tracer.start_as_current_span("current"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), api_tracer.start_span("span"):
        raise KeyboardInterrupt
    current, other = spans(drain(into))
    assert (current.status.code, len(current.events)) == (0, 0)
    assert (other.status.code, len(other.events)) == (2, 1)


def test_what_is_not_sampled_keeps_its_context(api: ModuleType) -> None:
    into = buffer(api)
    api_tracer = tracer_of(api, into, sampler=api.Sampler(0.0))
    with api_tracer.start_as_current_span("s") as span:
        assert not span.is_recording()
        span.add_link(REMOTE)
        span.record_exception(ValueError())
        context = span.get_span_context()
        assert (context.is_valid, context.trace_flags.sampled) == (True, False)
        child = api_tracer.start_span("child")
        assert child.get_span_context().trace_id == context.trace_id
    assert drain(into) == b""
    assert into.stats()[0] == 0


def test_wrong_arguments_are_refused(api: ModuleType, subtests: pytest.Subtests) -> None:
    for options in (
        {"name": 5},
        {"kind": "server"},
        {"kind": 1},
        {"attributes": [("a", 1)]},
        {"start_time": "now"},
        {"start_time": -1},
        {"start_time": 1 << 63},
        {"start_time": float("inf")},
    ):
        with subtests.test(options=options):
            api_tracer = tracer_of(api, buffer(api))
            with pytest.raises(InvalidArgumentError):
                api_tracer.start_span(**{"name": "s", **options})
            with pytest.raises(InvalidArgumentError):
                api_tracer.start_as_current_span(**{"name": "s", **options}).__enter__()
            assert trace.get_current_span() is trace.INVALID_SPAN


def test_wrong_calls_are_refused(api: ModuleType) -> None:
    span = tracer_of(api, buffer(api)).start_span("s")
    for call in (
        lambda: span.set_status("error"),
        lambda: span.set_status(None),
        lambda: span.update_name(5),
        lambda: span.add_event(5),
        lambda: span.add_event("e", timestamp="x"),
        lambda: span.record_exception("x"),
        lambda: span.set_attributes(5),
        lambda: span.end("now"),
    ):
        with pytest.raises(InvalidArgumentError):
            call()
    assert span.is_recording()


def test_without_a_bridge_there_is_no_such_current_span(kernel: ModuleType) -> None:
    kernel_tracer = tracer_of(kernel, buffer(kernel))
    with pytest.raises(InvalidArgumentError, match="bridge"):
        kernel_tracer.start_as_current_span("s").__enter__()


def test_spans_are_let_go(api: ModuleType) -> None:
    api_tracer = tracer_of(api, buffer(api))
    with api_tracer.start_as_current_span("s") as span:
        gone = weakref.ref(span)
    del span
    gc.collect()
    assert gone() is None


@pytest.mark.native_only
def test_speed_beside_the_sdk() -> None:
    """A floor far below the ratio that `benches/bench_telemetry.py` shows."""
    kernel = importlib.import_module("cloud_runtimes._native._telemetry")
    into = kernel.Buffer(buffer_bytes=1, chunk_bytes=1, ready=lambda: None)  # encoded, then dropped: nobody takes it
    provider = TracerProvider()

    def spans_of(tracer: Any) -> Any:
        def call() -> None:
            with tracer.start_as_current_span("GET /cart/{id}") as span:
                for key in ("a", "b", "c", "d", "e"):
                    span.set_attribute(key, "value")

        return call

    with bridged(kernel):
        calls = {"ours": spans_of(tracer_of(kernel, into)), "theirs": spans_of(provider.get_tracer("t"))}
        speedup = 0.0
        for _ in range(3):  # a machine that is busy at the wrong moment is no regression
            times = race(calls, 15)
            speedup = max(speedup, ratio(times["ours"], times["theirs"]))
            if speedup >= 5:
                break
    provider.shutdown()
    assert speedup >= 5, f"{speedup:.1f} times as fast"
