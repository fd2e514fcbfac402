"""Worker of a subscription: events from a deque to a handler, the same in both twins."""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.codec.json import decode
from cloud_runtimes.errors import PayloadError

DATA, CONTEXT, CLIENT = range(3)
HEADER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Bench:
    """Events of one kernel, and a worker for them."""

    def __init__(
        self, module: ModuleType, handler: Callable[..., Any], takes: tuple[int, ...] = (DATA,), **how: Any
    ) -> None:
        self._module = module
        self.ready: deque[Any] = deque()
        self.woken = self.left = 0
        self.entered: list[Any] = []
        options = {"typed": False, "flush_at": 100, "wake": self._wake, "enter": self._enter, **how}
        self.worker = module.Worker(self.ready, handler, takes, "client", **options)

    def _wake(self) -> None:
        self.woken += 1

    def _enter(self, event: Any) -> Bench:
        self.entered.append(event)
        return self

    def leave(self) -> None:
        """Leave the context of an event."""
        self.left += 1

    def add(self, *payloads: bytes, type: Any = None, **fields: Any) -> list[Any]:
        """Add events; return them."""
        records = [self._module.encode_record(payload, "application/json", **fields) for payload in payloads]
        frame = self._module.Frame(self._module.build_frame("/s", "t", "top", records))
        out: list[Any] = []
        frame.deliver(0, range(len(records)), 0, self._module.Marks(len(records)), out)
        events = self._module.receive_events(self._module.ReceivedEvent, out, 1, None, "bus", type, False)
        self.ready.extend(events)
        return list(events)


@pytest.fixture
def module(events: ModuleType) -> ModuleType:
    """The kernel, which decodes JSON as the service has it do."""
    events.receive_as(events.ReceivedEvent, decode, lambda event: decode(event._record.payload, type=event._type))
    return events


@pytest.fixture(autouse=True)
def _as_before(module: ModuleType) -> Any:
    yield
    from cloud_runtimes._native import events
    from cloud_runtimes.pubsub import types

    events.receive_as(types.Event, decode, types._data_of)


def test_handles_in_order_until_a_limit(module: ModuleType) -> None:
    seen: list[Any] = []
    bench = Bench(module, seen.append)
    events = bench.add(b"1", b'"a"', b"[2]")
    assert bench.worker.run(2) is None
    assert (seen, bench.worker.waiting, bench.worker.event) == ([1, "a"], 2, None)
    assert bench.worker.run(9) is None
    assert bench.worker.take_done() == events
    assert bench.worker.take_done() == []
    assert seen[2] == [2]


def test_arguments_by_their_roles(module: ModuleType) -> None:
    seen: list[Any] = []
    bench = Bench(module, lambda *arguments: seen.append(arguments), (CLIENT, CONTEXT, DATA))
    (event,) = bench.add(b"5")
    bench.worker.run(1)
    assert seen == [("client", event, 5)]
    (other,) = bench.add(b"6")
    assert bench.worker.next() is other
    assert bench.worker.arguments() == ["client", other, 6]


def test_a_failure_leaves_the_event_with_its_error(module: ModuleType) -> None:
    errors = [ValueError("a"), KeyboardInterrupt(), SystemExit(3)]
    pending = iter(errors)

    def fail(data: Any) -> None:
        raise next(pending)

    bench = Bench(module, fail)
    events = bench.add(b"1", b"2", b"3")
    for event, error in zip(events, errors, strict=True):
        assert bench.worker.run(9) is event
        assert (bench.worker.event, bench.worker.error, bench.worker.misfit) == (event, error, False)
        bench.worker.leave()
        assert (bench.worker.event, bench.worker.error) == (None, None)
    assert bench.worker.waiting == 0


def test_data_that_does_not_fit_reaches_no_handler(module: ModuleType) -> None:
    bench = Bench(module, lambda data: pytest.fail(str(data)), typed=True)
    (event,) = bench.add(b'"x"', type=int)
    for take in (lambda: bench.worker.run(1), bench.worker.next):
        assert take() is event
        assert bench.worker.misfit
        with pytest.raises(PayloadError, match="expected int, got str"):
            raise bench.worker.error
        bench.ready.append(event)


def test_data_is_decoded_once(module: ModuleType) -> None:
    bench = Bench(module, lambda *_: None, (CONTEXT,), typed=True)
    (event,) = bench.add(b"[1]", type=list[int])
    bench.worker.run(1)
    assert event._decoded
    assert event.data is event.data


def test_an_event_is_handled_in_its_context(module: ModuleType) -> None:
    seen: list[Any] = []

    def handle(data: Any) -> None:
        seen.append((data, len(bench.entered), bench.left))
        if data == 3:
            raise ValueError

    bench = Bench(module, handle)
    (first,) = bench.add(b"1", traceparent=HEADER)
    bench.add(b"2")
    (third,) = bench.add(b"3", traceparent=HEADER)
    assert bench.worker.run(9) is third
    assert seen == [(1, 1, 0), (2, 1, 1), (3, 2, 1)]
    assert (bench.entered, bench.left) == ([first, third], 2)


def test_stops_between_events(module: ModuleType) -> None:
    def stop(data: Any) -> None:
        bench.worker.stopped = True

    bench = Bench(module, stop)
    bench.add(b"1", b"2")
    assert bench.worker.run(9) is None
    assert (bench.worker.waiting, len(bench.ready), bench.worker.next()) == (1, 1, None)


def test_wakes_once_as_many_are_handled(module: ModuleType) -> None:
    bench = Bench(module, lambda data: None, flush_at=2)
    bench.add(*[b"1"] * 5)
    bench.worker.run(9)
    assert bench.woken == 1
    bench.worker.take_done()
    bench.add(b"1", b"1")
    bench.worker.run(9)
    assert bench.woken == 2


def test_tells_how_long_an_event_is_held(module: ModuleType) -> None:
    bench = Bench(module, lambda data: None)
    bench.add(b"1")
    bench.worker.next()
    time.sleep(0.01)
    assert 0.01 <= bench.worker.held() < 10


def test_workers_share_events(module: ModuleType) -> None:
    count, seen, done = 2000, [], []  # type: ignore[var-annotated]
    bench = Bench(module, seen.append)
    workers = [
        bench.worker,
        *(
            module.Worker(bench.ready, seen.append, (DATA,), None, typed=False, flush_at=10**6, wake=print, enter=print)
            for _ in range(3)
        ),
    ]
    bench.add(*[b"%d" % number for number in range(count)])

    def work(worker: Any) -> None:
        while bench.ready:
            worker.run(7)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for worker in workers:
            done += worker.take_done()
    for worker in workers:
        done += worker.take_done()
    assert sorted(seen) == list(range(count))
    assert len(done) == len({id(event) for event in done}) == count


def test_how_long_it_has_had_events(module: ModuleType) -> None:
    asked: list[float] = []
    bench = Bench(module, lambda data: (time.sleep(0.02), asked.append(bench.worker.busy), data / data))
    worker = bench.worker
    assert worker.busy == 0
    bench.add(b"1", b"2", b"0")
    event = worker.run(9)
    assert (event.data, type(worker.error)) == (0, ZeroDivisionError)
    assert 0.02 <= asked[0] < asked[1] < asked[2] <= worker.busy, "the current event counts"
    worker.leave()
    busy = worker.busy
    assert worker.run(9) is None
    time.sleep(0.02)
    assert worker.busy == busy, "without an event time does not count"
    bench.add(b"1", b"2")
    for done in (worker.finish, worker.leave):
        assert worker.next() is not None
        time.sleep(0.01)
        done()
        assert worker.busy >= busy + 0.01
        busy = worker.busy
        time.sleep(0.01)
        assert worker.busy == busy


def test_an_event_that_was_answered_meanwhile_is_told(module: ModuleType) -> None:
    late: list[Any] = []

    def handle(data: int) -> None:
        if data == 2:
            bench.worker.event._settlement = "retry"

    bench = Bench(module, handle, late=late.append)
    events = bench.add(b"1", b"2", b"3")
    assert bench.worker.run(10) is None
    assert late == [events[1]]
    assert bench.worker.take_done() == events


def test_hand_out(module: ModuleType) -> None:
    bench = Bench(module, print)
    events = bench.add(b"1", b'"x"', b"3", type=int)
    assert module.hand_out(events, False) == []
    assert not any(event._decoded for event in events)
    ((event, error),) = module.hand_out(events, True)
    assert event is events[1]
    assert isinstance(error, PayloadError)
    assert [each.data for each in (events[0], events[2])] == [1, 3]
    with pytest.raises((TypeError, AttributeError)):
        module.hand_out([object()], True)
    assert gc.isenabled()
    gc.disable()
    try:
        module.hand_out(bench.add(b"1"), True)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_garbage_collector_sees_events_that_others_have(module: ModuleType) -> None:
    seen: list[bool] = []
    bench = Bench(module, lambda event: seen.append(gc.is_tracked(event)), (CONTEXT,))
    waiting = bench.add(b"1", b"2")
    before = module.__name__.endswith("_py")  # the compiled twin alone keeps them from it
    assert [gc.is_tracked(event) for event in waiting] == [before, before]
    bench.worker.run(1)
    assert seen == [True]
    assert gc.is_tracked(waiting[1]) is before
    module.hand_out(waiting[1:], False)
    assert gc.is_tracked(waiting[1])
