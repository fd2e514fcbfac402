"""Kernel objects shared by several threads: nothing is lost, nothing is reported twice, and no process dies.

On a free-threaded build, threads run inside a kernel at once. Elsewhere, the tests show the effect of a switch
between two calls.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes import codec
from cloud_runtimes.codec import msgpack
from cloud_runtimes.errors import PayloadError
from tests.kernels.test_telemetry import buffer, drain, spans, tracer
from tests.kernels.test_telemetry_metrics import attributes, collected
from tests.support import Rounds
from tests.support.waiting import in_threads, running

THREADS = 4


def at_once(*works: Callable[[], None]) -> None:
    """Run all in threads that start together; what one raises is raised here."""
    ready = threading.Barrier(len(works))
    raised: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        ready.wait()
        try:
            work()
        except BaseException as error:
            raised.append(error)

    in_threads(*[threading.Thread(target=run, args=(work,)) for work in works])
    for error in raised:
        raise error


@pytest.mark.promise("E5")
def test_the_lock_of_the_interpreter_stays_off() -> None:
    """Importing a kernel that is not made for it turns it on, with a warning."""
    if getattr(sys, "_is_gil_enabled", bool)() or not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("not on this Python")


SUBINTERPRETER = """
import importlib

from cloud_runtimes.codec import msgpack

for name in ("_interpreters", "_xxsubinterpreters"):
    try:
        interpreters = importlib.import_module(name)
        break
    except ImportError:
        pass
script = "from cloud_runtimes.codec import msgpack; assert msgpack.decode(msgpack.encode([1])) == [1]"
for _ in range(3):
    interpreter = interpreters.create()
    try:
        failure = interpreters.run_string(interpreter, script)
    except Exception as error:
        failure = error
    if failure is not None:
        print("refused" if "ImportError" in str(failure) or "ImportError" in repr(failure) else repr(failure))
    else:
        print("works")
    interpreters.destroy(interpreter)
assert msgpack.decode(msgpack.encode([1])) == [1]
print("ended")
"""


@pytest.mark.promise("E4")
@pytest.mark.process
def test_a_subinterpreter() -> None:
    """A kernel loads into one interpreter of a process; another has the fallback, or is refused where kernels are required."""
    done = subprocess.run([sys.executable, "-c", SUBINTERPRETER], capture_output=True, text=True, timeout=60)
    lines = done.stdout.split()
    assert (done.returncode, lines[3:]) == (0, ["ended"]), done.stdout + done.stderr
    assert set(lines[:3]) <= {"works", "refused"}, done.stdout


@pytest.mark.promise("E5")
def test_one_span(kernel: ModuleType, rounds: Rounds) -> None:
    into = buffer(kernel)
    kernel_tracer = tracer(kernel, into, (1000, -1, 1000, 1000))
    for _ in range(rounds(40, 2_000)):
        span = kernel_tracer.start_span("s")

        def use(number: int, span: Any = span) -> None:
            for i in range(12):
                span.set_attribute(f"{number}.{i}", i)
                span.add_event("e", {"thread": number})
                span.add_link(span.context)
                span.update_name(f"name {number} {i}")
                span.set_status("error", f"why {number} {i}")
                assert span.name.startswith("name ")
                assert span.context is span.context
                assert len(span.attributes) > i

        at_once(*(lambda n=n: use(n) for n in range(THREADS)))  # type: ignore[misc]
        span.end()
        (exported,) = spans(drain(into))
        assert sorted(each.key for each in exported.attributes) == sorted(
            f"{n}.{i}" for n in range(THREADS) for i in range(12)
        )
        assert (len(exported.events), len(exported.links)) == (THREADS * 12, THREADS * 12)
        assert exported.name.startswith("name ")
        assert exported.status.message.startswith("why ")


def test_a_span_that_ends_while_others_write(kernel: ModuleType, rounds: Rounds) -> None:
    into = buffer(kernel)
    kernel_tracer = tracer(kernel, into)
    count = rounds(60, 3_000)
    for _ in range(count):
        span = kernel_tracer.start_span("s")

        def use(number: int, span: Any = span) -> None:
            for i in range(20):
                span.set_attribute(f"{number}.{i}", "x" * i)
                span.add_event("e")
                span.update_name(f"name {number} {i}")
                if i == 10:
                    span.end()

        at_once(*(lambda n=n: use(n) for n in range(THREADS)))  # type: ignore[misc]
    exported = spans(drain(into))
    assert len(exported) == count
    assert all(each.name == "s" or each.name.startswith("name ") for each in exported)


def test_instruments(kernel: ModuleType, rounds: Rounds) -> None:
    """The sum of all collections is what was added, whatever was added while one was made."""
    counter = kernel.Counter(buffer(kernel), "requests", delta=True)
    bound = counter.bind({"way": "bound"})
    each = rounds(1_000, 50_000)
    totals: dict[Any, int] = {}
    over = threading.Event()

    def add(number: int) -> None:
        for i in range(each):
            counter.add(1, {"thread": number, "n": i % 7})
            counter.add()
            bound.add(2)

    def collect() -> None:
        while True:
            last = over.is_set()
            for point in collected(counter)[1]:
                key = tuple(sorted(attributes(point).items()))
                totals[key] = totals.get(key, 0) + point.as_int
            if last:
                return

    with running(collect):
        at_once(*(lambda n=n: add(n) for n in range(THREADS)))  # type: ignore[misc]
        over.set()
    assert totals[()] == THREADS * each
    assert totals[("way", "bound"),] == 2 * THREADS * each
    assert sum(totals.values()) == 4 * THREADS * each


def test_histograms(kernel: ModuleType, rounds: Rounds) -> None:
    histogram = kernel.Histogram(buffer(kernel), "latency")
    each = rounds(1_000, 50_000)
    at_once(*(lambda n=n: [histogram.record(1.5**n + i) for i in range(each)] for n in range(THREADS)))  # type: ignore[misc]
    (point,) = collected(histogram)[1]
    assert point.count == THREADS * each
    assert sum(point.positive.bucket_counts) == THREADS * each


@pytest.mark.promise("E5")
def test_a_buffer_of_events(batch: ModuleType, events: ModuleType, rounds: Rounds) -> None:
    """Every event comes out once, in the order of its number, while others are sealed and taken."""
    each = rounds(1_000, 50_000)
    into = batch.BatchBuffer(
        "source", "type", "topic", batch_events=50, batch_bytes=1 << 14, buffer_bytes=1 << 30, ready=lambda: None
    )
    numbers: list[list[int]] = [[] for _ in range(THREADS)]
    bodies: list[tuple[int, bytes]] = []
    over = threading.Event()

    def send(number: int) -> None:
        for i in range(each):
            record = events.encode_record(json.dumps([number, i]).encode(), "application/json")
            numbers[number].append(into.append(record))

    def take() -> None:
        while not over.is_set() or into.stats()[4]:
            into.seal()
            for chunk in into.take(1 << 15):
                bodies.append((chunk.first, chunk.body))
                into.settle(chunk.count, len(chunk.body), 0)

    with running(take):
        at_once(*(lambda n=n: send(n) for n in range(THREADS)))  # type: ignore[misc]
        over.set()
    assert sorted(n for mine in numbers for n in mine) == list(range(1, THREADS * each + 1))
    assert all(mine == sorted(mine) for mine in numbers)
    payloads: dict[int, list[int]] = {}
    expected = 1
    for first, body in bodies:
        frame = events.Frame(body)
        assert first == expected
        expected += len(frame)
        for i in range(len(frame)):
            payloads[first + i] = json.loads(frame[i].payload)
    assert [payloads[number] for mine in numbers for number in mine] == [
        [n, i] for n in range(THREADS) for i in range(each)
    ]


@dataclass(slots=True)
class Pair:
    first: Any
    second: Any


@pytest.mark.parametrize("encode", [msgpack.encode, codec.json.encode], ids=["msgpack", "json"])
def test_a_value_that_others_change(encode: Callable[[Any], bytes], rounds: Rounds) -> None:
    """It is written as it was at some moment, or refused."""
    pair = Pair([1], "é")
    value: dict[str, Any] = {"list": [1, "two", 3.0], "map": {"a": [None]}, "pair": pair}
    over = threading.Event()

    def change() -> None:
        i = 0
        while not over.is_set():
            i += 1
            value[f"clé {i % 50}"] = ["é" * (i % 30), {"n": i}]
            pair.first, pair.second = [i, f"{i} é"], {"é" * (i % 30): pair.first}
            value["list"].append(i)
            value["map"].pop(str(i - 1), None)
            value["map"][str(i)] = 1.5
            if i % 20 == 0:
                value["list"].clear()
                for number in range(50):
                    value.pop(f"clé {number}", None)

    def write() -> None:
        for _ in range(rounds(500, 20_000)):
            try:
                assert encode(value)
            except PayloadError as error:
                assert "changed" in str(error)  # noqa: PT017

    changing = threading.Thread(target=change)
    changing.start()
    try:
        at_once(*[write] * (THREADS - 1))
    finally:
        over.set()
        changing.join()
