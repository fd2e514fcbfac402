"""Attributes around the limits of what is written in one go, however they are given, and the counts of references; each body on both twins."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from tests.kernels.test_telemetry import buffer, drain, pairs, spans, tracer

VALUES: list[Any] = [True, False, 0, 1, -1, 127, 128, 2**30 - 1, 2**30, -(2**30), 2**63 - 1, -(2**63), 2**63, 0.0, -1.5]


def cut(value: Any, limit: int) -> Any:
    """What of a value is written: one that is no number of 64 bits is text."""
    if value == 2**63:
        value = str(value)
    return value[:limit] if isinstance(value, str) and limit >= 0 else value


@pytest.mark.parametrize("limit", [-1, 0, 5, 300])
def test_every_length_of_key_and_value(kernel: ModuleType, limit: int) -> None:
    """From one byte for a length to two, of the key, the value, and both together."""
    into, expected = buffer(kernel), []
    made = tracer(kernel, into, (128, limit))
    for size in [*range(1, 6), *range(15, 19), *range(31, 34), *range(50, 60), *range(95, 131), 255, 256]:
        texts = ["v" * more for more in (0, 1, 16, 33, 52, 56, 112 - min(size, 112), 113)]
        for value in [*VALUES, *texts, "é" * 60]:
            attributes = {"k" * size: value, "ключ" * size: value}
            with made.span("one by one") as span:
                for key, each in attributes.items():
                    span.set_attribute(key, each)
            made.start_span("at once", attributes=attributes).end()
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
    made = tracer(kernel, into)
    key, value = "key of a span".upper(), "value of a span".upper()
    before = sys.getrefcount(key), sys.getrefcount(value)

    def fail() -> None:
        span = made.start_span("never ended")
        span.set_attribute(key, value)
        raise LookupError(span.name)

    for _ in range(3):
        with pytest.raises(LookupError, match="never ended"):
            fail()
    assert (sys.getrefcount(key), sys.getrefcount(value)) == before
    assert drain(into) == b""
