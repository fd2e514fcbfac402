"""Spans and sampling of the telemetry kernel, each body on both twins; opentelemetry-proto, generated from the specification's own files, reads what they write."""

from __future__ import annotations

import contextvars
import random
import sys
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import Rounds
from tests.support.telemetry_kernel import buffer, drain, logs, spans, tracer

CLOCK = 1_700_000_000_123_456_789  # of the fixtures `kernel` and `twins`
WORDS = ["", "a", "GET /items", "é", "日本", "\ud800", "x\udfffy", "\x00", "z" * 127, "z" * 128, "long " * 4000, "🎈"]


# -- what is expected, in the terms of opentelemetry-proto -------------------


def escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def any_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if value is None:
        return AnyValue()
    result = AnyValue()
    if isinstance(value, (list, tuple)):
        result.array_value.values.extend(map(any_value, value))
        result.array_value.SetInParent()
        return result
    if isinstance(value, dict):
        result.kvlist_value.values.extend(pairs(value, nested=True))
        result.kvlist_value.SetInParent()
        return result
    return AnyValue(string_value=escaped(str(value)))


def pairs(attributes: dict[str, Any], nested: bool = False) -> list[KeyValue]:
    kept = {key: value for key, value in attributes.items() if nested or (key and value is not None)}
    return [KeyValue(key=escaped(key), value=any_value(value)) for key, value in kept.items()]


def same(actual: Message, expected: Message) -> None:
    # bytes, since NaN is not equal to itself
    assert actual.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


# -- random records ----------------------------------------------------------


def some_value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(12 if depth < 3 else 8)
    if kind < 2:
        return draw.choice(WORDS)
    if kind == 2:
        return draw.random() < 0.5
    if kind == 3:
        return draw.choice([0, 1, -1, 127, 128, 2**31, 2**63 - 1, -(2**63), 2**63, 10**30, draw.getrandbits(40)])
    if kind == 4:
        return draw.choice([0.0, -0.0, 1.5, float("nan"), float("inf"), draw.random() * 1e9])
    if kind == 5:
        return draw.randbytes(draw.choice([0, 1, 200]))
    if kind == 6:
        return None
    if kind == 7:
        return complex(draw.randrange(9), 1)  # no type of OTLP
    if kind < 10:
        items = [some_value(draw, depth + 1) for _ in range(draw.randrange(4))]
        return items if kind == 8 else tuple(items)
    return {draw.choice(WORDS): some_value(draw, depth + 1) for _ in range(draw.randrange(4))}


def some_attributes(draw: random.Random) -> dict[str, Any]:
    return {draw.choice(WORDS) + str(n % 3): some_value(draw) for n in range(draw.randrange(6))}


def record_span(kernel: ModuleType, into: Any, draw: random.Random) -> Span:
    """Record a random span; return the message that it must become."""
    parent = None
    expected = Span(flags=0x101)
    if draw.random() < 0.5:
        remote = draw.random() < 0.5
        state = draw.choice(["", "vendor=1"])
        parent = kernel.SpanContext(draw.randbytes(16).hex(), draw.randbytes(8).hex(), 1, state, remote)
        expected.parent_span_id = bytes.fromhex(parent.span_id)
        expected.trace_state = state
        expected.flags |= 0x200 if remote else 0
    name, kind = draw.choice(WORDS), draw.choice(["internal", "server", "client", "producer", "consumer"])
    first, later = some_attributes(draw), some_attributes(draw)
    with tracer(kernel, into).span(name, attributes=first, kind=kind, parent=parent) as span:
        for key, value in later.items():
            span.set_attribute(key, value)
        for _ in range(draw.choice([0, 0, 1, 3])):
            what, its = draw.choice(WORDS), some_attributes(draw)
            span.add_event(what, its)
            expected.events.add(time_unix_nano=CLOCK, name=escaped(what), attributes=pairs(its))
        for _ in range(draw.choice([0, 0, 1, 2])):
            linked, its = kernel.SpanContext(draw.randbytes(16).hex(), draw.randbytes(8).hex(), 1), some_attributes(
                draw
            )
            span.add_link(linked, its)
            expected.links.add(
                trace_id=bytes.fromhex(linked.trace_id),
                span_id=bytes.fromhex(linked.span_id),
                attributes=pairs(its),
                flags=0x101,
            )
        if draw.random() < 0.3:
            text = draw.choice(WORDS)
            span.set_status("error", text)
            expected.status.code = 2
            expected.status.message = escaped(text)
    expected.trace_id = bytes.fromhex(span.context.trace_id)
    expected.span_id = bytes.fromhex(span.context.span_id)
    expected.name = escaped(name)
    expected.kind = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}[kind]
    expected.start_time_unix_nano = expected.end_time_unix_nano = CLOCK
    expected.attributes.extend(pairs({**first, **later}))
    return expected


def record_log(kernel: ModuleType, into: Any, draw: random.Random) -> LogRecord:
    severity, body, attributes = draw.randrange(1, 25), some_value(draw), some_attributes(draw)
    expected = LogRecord(
        time_unix_nano=draw.choice([CLOCK, 5]),
        observed_time_unix_nano=CLOCK,
        severity_number=severity,  # type: ignore[arg-type]
        severity_text=escaped(draw.choice(WORDS)),
        body=any_value(body),
        attributes=pairs(attributes),
    )
    logger = kernel.Logger(into, kernel.Limits(), 0)
    text = draw.choice(WORDS)
    expected.severity_text = escaped(text)
    logger.emit(expected.time_unix_nano, severity, text, body, attributes)
    return expected


@pytest.mark.promise("F4")
def test_random_records_are_read_back(kernel: ModuleType, rounds: Rounds, subtests: pytest.Subtests) -> None:
    for kind in ("span", "log"):
        with subtests.test(kind=kind):
            draw = random.Random(7)
            for _ in range(rounds(20, 1000)):
                into = buffer(kernel)
                if kind == "span":
                    expected: list[Any] = [record_span(kernel, into, draw) for _ in range(100)]
                    exported: list[Any] = spans(drain(into))
                else:
                    expected = [record_log(kernel, into, draw) for _ in range(100)]
                    exported = logs(drain(into))
                assert len(exported) == len(expected)
                for one, other in zip(exported, expected, strict=True):
                    same(one, other)


@pytest.mark.native_only
def test_the_twins_write_equal_bytes(
    twins: tuple[ModuleType, ModuleType], rounds: Rounds, subtests: pytest.Subtests
) -> None:
    for record in (record_span, record_log):
        with subtests.test(record=record):
            for seed in range(rounds(20, 1000)):
                bodies = []
                for kernel in twins:
                    kernel._set_seed(seed)
                    into, draw = buffer(kernel), random.Random(seed)
                    for _ in range(100):
                        record(kernel, into, draw)
                    bodies.append(drain(into))
                assert bodies[0] == bodies[1]


# -- spans -------------------------------------------------------------------


def test_a_parent_comes_from_the_context(kernel: ModuleType) -> None:
    into = buffer(kernel)
    t = tracer(kernel, into)
    with t.span("outer") as outer, t.span("inner") as inner, t.start_span("loose") as loose:
        assert kernel.current_span() is inner
        other = contextvars.Context().run(t.start_span, "alone")
        other.end()
    assert kernel.current_span() is None
    by_name = {span.name: span for span in spans(drain(into))}
    assert by_name["inner"].parent_span_id == by_name["outer"].span_id
    assert by_name["loose"].parent_span_id == by_name["inner"].span_id
    assert by_name["alone"].parent_span_id == b""
    assert len({span.trace_id for span in by_name.values()}) == 2
    assert outer.context.trace_id == loose.context.trace_id


async def _inside(t: Any) -> None:
    async with t.span("outer"), t.span("inner"):
        pass


def test_a_context_from_elsewhere(kernel: ModuleType) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    good = f"00-{trace}-{span}-01"
    context = kernel.remote_context(good, "a=b")
    assert (context.trace_id, context.span_id, context.trace_flags) == (trace, span, 1)
    assert (context.trace_state, context.is_remote, context.traceparent) == ("a=b", True, good)
    assert kernel.remote_context(f"00-{trace}-{span}-ff").trace_flags == 3
    assert kernel.remote_context(f"cc-{trace}-{span}-00-later\n").trace_id == trace
    wrong = [
        "", "00", good[:-1], good + "-", good + "x", good.upper(), good.replace("-", "_"), " " + good, good + "\n",
        f"ff-{trace}-{span}-01", f"0g-{trace}-{span}-01", f"00-{'0' * 32}-{span}-01", f"00-{trace}-{'0' * 16}-01",
        f"00-{trace}-{span}-0x", f"00-{trace[:-1]}é-{span}-01", f"00-{trace}\u0661{span}-01", f"cc-{trace}-{span}-01x",
    ]  # fmt: skip
    for text in wrong:
        assert kernel.remote_context(text) is None, text


def test_a_span_in_async_with(kernel: ModuleType) -> None:
    import asyncio

    into = buffer(kernel)
    asyncio.run(_inside(tracer(kernel, into)))
    inner, outer = spans(drain(into))
    assert inner.parent_span_id == outer.span_id


def test_an_exception_is_recorded_and_goes_on(kernel: ModuleType) -> None:
    into = buffer(kernel)
    with pytest.raises(ValueError, match="no"), tracer(kernel, into).span("s"):
        raise ValueError("no \ud800")
    with pytest.raises(KeyboardInterrupt), tracer(kernel, into).span("stopped"):
        raise KeyboardInterrupt
    failed, stopped = spans(drain(into))
    assert (failed.status.code, failed.status.message) == (2, "ValueError: no \\ud800")
    described = {each.key: each.value.string_value for each in failed.events[0].attributes}
    assert failed.events[0].name == "exception"
    assert (described["exception.type"], described["exception.message"]) == ("ValueError", "no \\ud800")
    assert "raise ValueError" in described["exception.stacktrace"]
    assert (stopped.status.code, len(stopped.events)) == (0, 0)


def test_a_status_is_final_once_ok(kernel: ModuleType) -> None:
    into = buffer(kernel)
    span = tracer(kernel, into).start_span("s")
    span.set_status("error", "first")
    span.set_status("unset")
    span.set_status("ok", "ignored")
    span.set_status("error", "too late")
    span.end()
    assert spans(drain(into))[0].status.SerializeToString() == b"\x18\x01"


def test_what_comes_after_the_end_is_ignored(kernel: ModuleType) -> None:
    into = buffer(kernel)
    span = tracer(kernel, into).start_span("s")
    span.end()
    span.set_attribute("k", 1)
    span.add_event("e")
    span.update_name("other")
    span.end()
    (exported,) = spans(drain(into))
    assert (exported.name, len(exported.attributes), len(exported.events)) == ("s", 0, 0)
    assert into.stats()[:2] == (1, 1)


def test_limits(kernel: ModuleType) -> None:
    into = buffer(kernel)
    span = tracer(kernel, into, (2, 3, 1, 1)).start_span("s", attributes={"a": "12345", "b": ["12345"], "c": 1})
    span.set_attribute("a", b"12345")
    span.set_attribute("d", 1)
    for _ in range(3):
        span.add_event("e", {"a": 1, "b": 2, "c": 3})
        span.add_link(span, {"a": 1, "b": 2, "c": 3})
    span.end()
    (exported,) = spans(drain(into))
    assert [(a.key, a.value) for a in exported.attributes] == [
        ("a", AnyValue(bytes_value=b"123")),
        ("b", any_value(["123"])),
    ]
    assert (exported.dropped_attributes_count, exported.dropped_events_count, exported.dropped_links_count) == (2, 2, 2)
    assert (exported.events[0].dropped_attributes_count, exported.links[0].dropped_attributes_count) == (1, 1)


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_values_that_cannot_be_written(kernel: ModuleType) -> None:
    into, written = buffer(kernel), buffer(kernel)
    circle: list[Any] = []
    circle.append(circle)
    tracer(kernel, into).start_span("s", attributes={"bad": Broken(), 5: "no text as key", "": 1, "good": circle}).end()
    kernel.Logger(written, kernel.Limits(), 0).info(Broken())
    body = drain(into)
    assert [each.key for each in spans(body)[0].attributes] == ["good"]
    assert spans(body)[0].dropped_attributes_count == 3
    assert b"<nested too deeply>" in body
    assert logs(drain(written))[0].body.string_value == "<str() of Broken failed>"


def test_attributes_set_one_by_one(kernel: ModuleType, rounds: Rounds) -> None:
    """In any order, number and kind, set again or not, they are what a dict of them would be, and nothing is kept of what was replaced."""
    draw = random.Random(7)
    names = [f"{'n' * draw.randrange(1, 4)}{number % 7}" for number in range(12)] + ["", "é", "\ud800"]
    for limit in (128, 8, 3, 0):
        into = buffer(kernel)
        kernel_tracer = tracer(kernel, into, (limit,))
        for _ in range(rounds(300, 10_000)):
            expected: dict[str, Any] = {}
            dropped = 0
            span = kernel_tracer.start_span("s")
            for _ in range(draw.randrange(14)):
                # another object of the same text now and then
                key = draw.choice(names)
                key = "".join(list(key)) if draw.random() < 0.5 else key
                value = (
                    some_value(draw) if draw.random() < 0.1 else draw.choice(["text", 7, True, 2.5, "x" * 300, 10**30])
                )
                span.set_attribute(key, value)
                if key in expected or len(expected) < limit:
                    expected[key] = value
                else:
                    dropped += 1
                assert span.attributes == expected or "nan" in repr(expected)
            span.end()
            (read,) = spans(drain(into))
            wanted = pairs(expected)
            assert [each.SerializeToString() for each in read.attributes] == [
                each.SerializeToString() for each in wanted
            ]
            assert read.dropped_attributes_count == dropped + sum(
                not key for key in expected if expected[key] is not None
            )


def test_attributes_are_let_go(kernel: ModuleType) -> None:
    """Of a span that has gone, of a value that was replaced, and of many that became a dict."""
    kernel_tracer = tracer(kernel, buffer(kernel))
    keys, values = [f"key {n}" for n in range(12)], [f"value {n}" for n in range(13)]
    before = [sys.getrefcount(each) for each in (*keys, *values)]
    for count in (3, 8, 12):
        span = kernel_tracer.start_span("s")
        for number in range(count):
            span.set_attribute(keys[number], values[number])
        span.set_attribute(keys[1], values[12])
        assert span.attributes[keys[1]] is values[12]
        span.end()
        del span
    assert [sys.getrefcount(each) for each in (*keys, *values)] == before


def test_an_integer_of_too_many_digits(kernel: ModuleType) -> None:
    into = buffer(kernel)
    tracer(kernel, into).start_span("s", attributes={"before": 1, "huge": 10**5000, "after": "x"}).end()
    (exported,) = spans(drain(into))
    assert ([each.key for each in exported.attributes], exported.dropped_attributes_count) == (["before", "after"], 1)


class Interrupting:
    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_an_interrupted_record_is_counted(kernel: ModuleType) -> None:
    into = buffer(kernel)
    span = tracer(kernel, into).start_span("s", attributes={"a": Interrupting()})
    with pytest.raises(KeyboardInterrupt):
        span.end()
    assert into.stats() == (1, 0, (0, 0, 0, 1, 0, 0, 0, 0), 0, 0)


def test_a_value_that_changes_its_span_while_it_is_written(kernel: ModuleType) -> None:
    into = buffer(kernel)

    class Late:
        def __str__(self) -> str:
            span.set_attribute("late", 1)
            with t.span("within"):
                pass
            return "late"

    t = tracer(kernel, into)
    span = t.start_span("s", attributes={f"k{n}": Late() for n in range(20)})
    span.end()
    exported = spans(drain(into))
    assert [each.name for each in exported] == ["within"] * 20 + ["s"]
    assert len(exported[-1].attributes) == 20


def test_wrong_arguments(kernel: ModuleType, subtests: pytest.Subtests) -> None:
    for wrong in (
        lambda t: t.span(5),
        lambda t: t.span("s", kind="other"),
        lambda t: t.span("s", attributes=[1]),
        lambda t: t.span("s", parent="00-1"),
        lambda t: t.span("s", links=["x"]),
        lambda t: t.span("s").set_status("bad"),
        lambda t: t.span("s").set_status("error", 5),
        lambda t: t.span("s").add_event(5),
        lambda t: t.span("s").add_link("x"),
        lambda t: t.span("s").record_exception("x"),
        lambda t: t.span("s").update_name(None),
    ):
        with subtests.test(wrong=wrong):
            from cloud_runtimes.errors import InvalidArgumentError

            with pytest.raises(InvalidArgumentError):
                wrong(tracer(kernel, buffer(kernel)))


def test_a_context_has_valid_ids(kernel: ModuleType, subtests: pytest.Subtests) -> None:
    for ids in (("0" * 32, "1" * 16), ("A" * 32, "1" * 16), ("1" * 31, "1" * 16), ("1" * 32, "0" * 16), (5, "1" * 16)):
        with subtests.test(ids=ids):
            from cloud_runtimes.errors import InvalidArgumentError

            with pytest.raises(InvalidArgumentError):
                kernel.SpanContext(*ids)
            assert kernel.SpanContext("1" * 32, "2" * 16, 1).traceparent == f"00-{'1' * 32}-{'2' * 16}-01"


# -- sampling ----------------------------------------------------------------


def test_a_ratio_of_trace_ids(kernel: ModuleType) -> None:
    into = buffer(kernel)
    kernel._set_seed(42)
    t = tracer(kernel, into, (), kernel.Sampler(0.25))
    for _ in range(4000):
        with t.span("root") as root, t.span("child") as child:
            assert root.is_recording == child.is_recording == root.context.is_sampled
    exported = spans(drain(into))
    assert 800 < len(exported) / 2 < 1200
    assert all(int.from_bytes(each.trace_id[8:], "big") < 2**62 for each in exported)


def test_a_parent_decides(kernel: ModuleType) -> None:
    into = buffer(kernel)
    off, on = (kernel.SpanContext("1" * 32, "2" * 16, flag) for flag in (0, 1))
    never = tracer(kernel, into, (), kernel.Sampler(0.0))
    assert never.start_span("s", parent=on).is_recording
    assert not never.start_span("s").is_recording
    assert not tracer(kernel, into).start_span("s", parent=off).is_recording
    assert tracer(kernel, into, (), kernel.Sampler(1.0, 0.0, False)).start_span("s", parent=off).is_recording


def test_a_rate(kernel: ModuleType) -> None:
    now = [CLOCK]
    kernel._set_clock(lambda: now[0])
    t = tracer(kernel, buffer(kernel), (), kernel.Sampler(1.0, 10.0))
    assert sum(t.start_span("s").is_recording for _ in range(100)) == 10
    now[0] += 350_000_000
    assert sum(t.start_span("s").is_recording for _ in range(100)) == 3
    now[0] += 3600 * 10**9
    assert sum(t.start_span("s").is_recording for _ in range(100)) == 10


def test_the_sampler_can_be_replaced(kernel: ModuleType) -> None:
    traces = kernel.Traces(buffer(kernel), kernel.Limits(), kernel.Sampler(0.0))
    t = kernel.Tracer(traces, 0)
    assert not t.start_span("s").is_recording
    traces.sampler = kernel.Sampler()
    assert t.start_span("s").is_recording
