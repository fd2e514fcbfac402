"""`with` on spans: the two methods behind it, however they are looked up and called, each body on both twins."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from types import ModuleType
from typing import Any

import pytest

from tests.kernels.test_telemetry import buffer, drain, spans, tracer
from tests.kernels.test_telemetry_api import bridged, tracer_of

Entered = tuple[Callable[[], Any], Any, ModuleType]


@pytest.fixture(params=["a span", "a scope of the API"])
def entered(kernel: ModuleType, request: pytest.FixtureRequest) -> Iterator[Entered]:
    """What makes one to enter, the buffer behind it, and the kernel."""
    into = buffer(kernel)
    api = request.param == "a scope of the API"
    with bridged(kernel) if api else nullcontext():
        made = tracer_of(kernel, into) if api else tracer(kernel, into)
        start = made.start_as_current_span if api else made.span
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
