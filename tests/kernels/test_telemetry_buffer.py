"""The buffer of the telemetry kernel, its log records, attributes around their limits, and `with` on spans."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from tests.kernels.test_telemetry import pairs
from tests.kernels.test_telemetry_api import bridged, tracer_of
from tests.support import Rounds
from tests.support.telemetry_kernel import buffer, drain, logs, spans, tracer
from tests.support.waiting import in_threads

# -- logs --------------------------------------------------------------------


def test_a_log_record_knows_the_span(kernel: ModuleType) -> None:
    into = buffer(kernel)
    logger = kernel.Logger(into, kernel.Limits(), 3, 9)
    with tracer(kernel, buffer(kernel)).span("s") as span:
        logger.info("inside", user="u")
    logger.debug("below the level")
    try:
        raise OSError("disk")
    except OSError:
        logger.exception("failed", disk=1)
    logger.log("critical", "at last")
    inside, failed, last = logs(drain(into))
    assert inside.trace_id.hex() == span.context.trace_id
    assert inside.span_id.hex() == span.context.span_id
    assert (inside.flags, inside.severity_number, inside.severity_text) == (1, 9, "INFO")
    assert (inside.body.string_value, inside.attributes[0].key) == ("inside", "user")
    assert [a.key for a in failed.attributes] == ["exception.type", "exception.message", "exception.stacktrace", "disk"]
    assert (failed.trace_id, failed.severity_number) == (b"", 17)
    assert (last.severity_number, last.severity_text) == (21, "FATAL")


# -- the buffer --------------------------------------------------------------


def test_every_drop_is_counted_by_cause(kernel: ModuleType) -> None:
    into = buffer(kernel, 1000, 400)
    assert not into.add(0, b"x" * 500)
    kept = sum(into.add(0, b"x" * 98, 2) for _ in range(20))
    assert kept == 10
    assert into.stats() == (41, 0, (20, 1, 0, 0, 0, 0, 0, 0), 20, 1000)
    chunks = into.take(1 << 20)
    assert [(chunk.scope, chunk.count, len(chunk.body)) for chunk in chunks] == [(0, 8, 400), (0, 8, 400)]
    assert into.stats() == (41, 0, (20, 1, 0, 0, 0, 0, 0, 0), 20, 1000)
    into.settle(8, 400, 3, kernel.CAUSES.index("rejected"))
    into.close()
    assert not into.add(0, b"y")
    assert into.stats() == (42, 5, (20, 1, 1, 0, 3, 0, 0, 0), 12, 600)


def test_scopes_have_chunks_of_their_own(kernel: ModuleType) -> None:
    into = buffer(kernel)
    for number in range(99, -1, -1):
        into.add(number % 7 * 5, bytes([number]))
    into.seal()
    chunks = into.take(1 << 20)
    assert [chunk.scope for chunk in chunks] == [0, 5, 10, 15, 20, 25, 30]
    assert chunks[0].body == b"".join(b"\x12\x01" + bytes([n]) for n in range(98, -1, -7))


def test_take_is_bounded_and_gives_at_least_one(kernel: ModuleType) -> None:
    into = buffer(kernel, 1 << 20, 100)
    for _ in range(4):
        into.add(0, b"x" * 88)
    into.seal()
    assert len(into.take(1)) == 1
    assert len(into.take(180)) == 2
    assert len(into.take(180)) == 1
    assert into.take(180) == []


def test_ready_is_called_for_the_first_record_and_a_full_chunk(kernel: ModuleType) -> None:
    calls: list[int] = []
    into = kernel.Buffer(buffer_bytes=1000, chunk_bytes=100, ready=lambda: calls.append(1))
    for expected in (1, 1, 2):
        into.add(0, b"x" * 48)
        assert len(calls) == expected


def test_settling_more_than_was_taken(kernel: ModuleType) -> None:
    from cloud_runtimes.errors import InvalidArgumentError

    into = buffer(kernel)
    into.add(0, b"x")
    with pytest.raises(InvalidArgumentError):
        into.settle(1, 3, 0, 0)


def test_a_child_begins_anew(kernel: ModuleType) -> None:
    into = buffer(kernel)
    into.add(0, b"x")
    into.close()
    into.reset()
    assert into.stats() == (0, 0, (0,) * 8, 0, 0)
    assert into.add(0, b"x")
    kernel._set_seed(1)
    first = tracer(kernel, into).start_span("s").context.trace_id
    kernel._set_seed(1)
    kernel.reseed()
    assert tracer(kernel, into).start_span("s").context.trace_id != first


def test_threads_that_end_one_span_record_it_once(kernel: ModuleType, rounds: Rounds) -> None:
    into = buffer(kernel)
    kernel_tracer = tracer(kernel, into)
    count = rounds(100, 5_000)
    for _ in range(count):
        span = kernel_tracer.start_span("s")
        ready = threading.Barrier(4)

        def end(span: Any = span, ready: threading.Barrier = ready) -> None:
            ready.wait()
            span.end()

        in_threads(*[end] * 4)
    assert len(spans(drain(into))) == count


def test_many_threads_lose_nothing(kernel: ModuleType, rounds: Rounds) -> None:
    into = buffer(kernel, 1 << 16, 1 << 12)
    each = rounds(2000, 50_000)
    taken: list[int] = []
    over = threading.Event()

    def emit(number: int) -> None:
        t = kernel.Tracer(kernel.Traces(into, kernel.Limits(), kernel.Sampler()), number)
        for _ in range(each):
            t.start_span("s").end()

    def take() -> None:
        while not over.is_set() or into.stats()[3]:
            into.seal()
            for chunk in into.take(1 << 14):
                taken.append(len(ScopeSpans.FromString(chunk.body).spans))
                assert taken[-1] == chunk.count
                into.settle(chunk.count, len(chunk.body), 0, 0)
            recorded, exported, dropped, buffered, _ = into.stats()
            assert recorded == exported + sum(dropped) + buffered

    threads = [threading.Thread(target=emit, args=(n,)) for n in range(4)]
    taker = threading.Thread(target=take)
    for thread in (*threads, taker):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    taker.join()
    recorded, exported, dropped, buffered, size = into.stats()
    assert (recorded, buffered, size) == (4 * each, 0, 0)
    assert exported == sum(taken) == recorded - sum(dropped)


# -- what leaves with an event or a call --------------------------------------


def test_what_leaves(kernel: ModuleType) -> None:
    ids = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    assert kernel.outgoing() == (None, False)
    for context in (
        kernel.SpanContext(*ids, 1),
        kernel.SpanContext(*ids, 255, "", True),
        kernel.SpanContext("0" * 31 + "1", "f" * 16),
    ):
        token = kernel.current.set(context)
        assert kernel.outgoing() == (context.traceparent, False)
        baggage = kernel.baggage.set({"a": "b"})
        assert kernel.outgoing() == (None, True)
        kernel.baggage.reset(baggage)
        kernel.current.reset(token)
    for strange in (kernel.SpanContext(*ids, 1, "a=b"), object()):
        token = kernel.current.set(strange)
        assert kernel.outgoing() == (None, True)
        kernel.current.reset(token)
    baggage = kernel.baggage.set({})
    assert kernel.outgoing() == (None, False)
    kernel.baggage.reset(baggage)


def test_a_span_leaves_by_its_own_header(kernel: ModuleType) -> None:
    buffer = kernel.Buffer(buffer_bytes=1 << 20, chunk_bytes=1 << 20, ready=lambda: None)
    for ratio, flags in ((1.0, "01"), (0.0, "00")):
        tracer = kernel.Tracer(kernel.Traces(buffer, kernel.Limits(), kernel.Sampler(ratio)), 0)
        with tracer.span("s") as span:
            assert kernel.outgoing() == (span.context.traceparent, False)
            assert span.context.traceparent[-2:] == flags
    assert kernel.outgoing() == (None, False)


# -- attributes around the limits of what is written in one go, however they are given, and the counts of references; each body on both twins

VALUES: list[Any] = [True, False, 0, 1, -1, 127, 128, 2**30 - 1, 2**30, -(2**30), 2**63 - 1, -(2**63), 2**63, 0.0, -1.5]


def cut(value: Any, limit: int) -> Any:
    """Return the part of a value that is written. A number that does not fit in 64 bits becomes text."""
    if value == 2**63:
        value = str(value)
    return value[:limit] if isinstance(value, str) and limit >= 0 else value


@pytest.mark.parametrize("limit", [-1, 0, 5, 300])
def test_every_length_of_key_and_value(kernel: ModuleType, limit: int) -> None:
    """From one byte for a length to two, of the key, the value, and both together."""
    into, expected = buffer(kernel), []
    kernel_tracer = tracer(kernel, into, (128, limit))
    for size in [*range(1, 6), *range(15, 19), *range(31, 34), *range(50, 60), *range(95, 131), 255, 256]:
        texts = ["v" * more for more in (0, 1, 16, 33, 52, 56, 112 - min(size, 112), 113)]
        for value in [*VALUES, *texts, "é" * 60]:
            attributes = {"k" * size: value, "ключ" * size: value}
            with kernel_tracer.span("one by one") as span:
                for key, each in attributes.items():
                    span.set_attribute(key, each)
            kernel_tracer.start_span("at once", attributes=attributes).end()
            expected += [pairs({key: cut(each, limit) for key, each in attributes.items()})] * 2
    for read, wanted in zip(spans(drain(into)), expected, strict=True):
        assert [each.SerializeToString() for each in read.attributes] == [each.SerializeToString() for each in wanted]


def test_by_position_and_by_name(kernel: ModuleType) -> None:
    into = buffer(kernel)
    with tracer(kernel, into).span("s") as span:
        assert span.set_attribute("a", 1) is None
        assert span.set_attribute("b", value=2) is None
        assert span.set_attribute(value=3, key="c") is None
        assert type(span).set_attribute(span, "d", 4) is None
        span.set_attribute(*("e", 5))
        setting = span.set_attribute
        setting("f", 6)
        for wrong in [(), ("g",), ("g", 1, 2)]:
            with pytest.raises(TypeError):
                span.set_attribute(*wrong)
        for named in [{"key": "g"}, {"value": 1}, {"key": "g", "value": 1, "other": 2}]:
            with pytest.raises(TypeError):
                span.set_attribute(**named)
        with pytest.raises(TypeError):
            span.set_attribute("g", 1, key="h")
        with pytest.raises((TypeError, AttributeError)):
            type(span).set_attribute(object(), "g", 1)
    assert {each.key: each.value.int_value for each in spans(drain(into))[0].attributes} == dict(
        zip("abcdef", range(1, 7), strict=True)
    )


def test_equal_keys_of_one_length(kernel: ModuleType) -> None:
    """Keys of one length are told apart by their text, in each kind of string that there is."""
    into = buffer(kernel)
    kinds = ["ab", "ac", "é1", "é2", "ж1", "ж2", "🎈1"]
    with tracer(kernel, into).span("s") as span:
        for number, key in enumerate(kinds * 2):
            span.set_attribute("".join(list(key)), number)
        assert span.attributes == {key: number + len(kinds) for number, key in enumerate(kinds)}
    assert [each.key for each in spans(drain(into))[0].attributes] == kinds


def test_spans_that_end_while_an_exception_is_on_its_way(kernel: ModuleType) -> None:
    """The exception is what it was, and the attributes are gone with their span."""
    into = buffer(kernel)
    kernel_tracer = tracer(kernel, into)
    key, value = "key of a span".upper(), "value of a span".upper()
    before = sys.getrefcount(key), sys.getrefcount(value)

    def fail() -> None:
        span = kernel_tracer.start_span("never ended")
        span.set_attribute(key, value)
        raise LookupError(span.name)

    for _ in range(3):
        with pytest.raises(LookupError, match="never ended"):
            fail()
    assert (sys.getrefcount(key), sys.getrefcount(value)) == before
    assert drain(into) == b""


# -- `with` on spans: the two methods behind it, however they are looked up and called, each body on both twins

Entered = tuple[Callable[[], Any], Any, ModuleType]


@pytest.fixture(params=["a span", "a scope of the API"])
def entered(kernel: ModuleType, request: pytest.FixtureRequest) -> Iterator[Entered]:
    """Return a function that opens a span to enter, its buffer, and the kernel."""
    into = buffer(kernel)
    api = request.param == "a scope of the API"
    with bridged(kernel) if api else nullcontext():
        kernel_tracer = tracer_of(kernel, into) if api else tracer(kernel, into)
        start = kernel_tracer.start_as_current_span if api else kernel_tracer.span
        yield lambda: start("s"), into, kernel


def test_called_by_hand(entered: Entered) -> None:
    make, into, kernel = entered
    one = make()
    enter, leave = one.__enter__, one.__exit__
    span = enter()
    assert kernel.current_span() is getattr(span, "native", span)
    with pytest.raises(TypeError):
        leave()
    with pytest.raises(TypeError):
        enter(None)
    nothing = (None, None, None)
    assert leave(*nothing) is None
    assert kernel.current_span() is None
    leave(*nothing)  # once more changes nothing
    assert len(spans(drain(into))) == 1


def test_looked_up_in_the_class(entered: Entered) -> None:
    make, into, kernel = entered
    one = make()
    type(one).__enter__(one)
    assert kernel.current_span() is not None
    type(one).__exit__(one, None, None, None)
    with ExitStack() as stack:
        stack.enter_context(make())
        stack.push(make().__exit__)
        assert kernel.current_span() is not None
    assert kernel.current_span() is None
    assert len(spans(drain(into))) >= 2


def test_the_method_keeps_what_it_is_of(entered: Entered) -> None:
    make, into, _ = entered
    gone = None
    leave = make().__exit__
    for _ in range(100):  # others come and go meanwhile
        with make() as span:
            gone = weakref.ref(span)
    leave(None, None, None)
    del span, leave
    gc.collect()
    assert gone is not None
    assert gone() is None
    assert len(spans(drain(into))) in (100, 101)


def test_nothing_stays_behind(entered: Entered) -> None:
    make, into, _ = entered
    name = f"value {id(into)}"
    before = sys.getrefcount(name)
    held = [make() for _ in range(100)]
    for one in held:
        with one as span:
            span.set_attribute("k", name)
    del held, one, span
    gc.collect()
    assert sys.getrefcount(name) == before


def test_what_is_raised_goes_on(entered: Entered) -> None:
    make, into, kernel = entered
    with pytest.raises(ValueError, match="no"), make():
        raise ValueError("no")
    with pytest.raises(KeyboardInterrupt), make():
        raise KeyboardInterrupt
    assert kernel.current_span() is None
    assert [len(each.events) for each in spans(drain(into))] == [1, 0]
