"""The publisher's buffer: sequence, sealing, limits, accounting, and calls that come in the middle of a call."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from cloud_runtimes.errors import InvalidArgumentError, PayloadError, ResourceExhaustedError
from tests.support.alarms import alarms

HEADER = 8 + 2 + 2 + 2  # a frame of source "s", type "t", topic "o"
RECORD = 32  # one without key, trace context and payload


def make(batch: ModuleType, *, events: int = 10, size: int = 10_000, room: int = 100_000, ready: Any = None) -> Any:
    return batch.BatchBuffer(
        "s", "t", "o", batch_events=events, batch_bytes=size, buffer_bytes=room, ready=ready or (lambda: None)
    )


def sending(batch: ModuleType, buffer: Any) -> Any:
    """The call that puts bytes into a buffer: `Entry.offer`, as `Publisher.send` does."""

    def refuse(*args: Any, **options: Any) -> int:
        raise AssertionError("there is one way")

    entry = batch.Entry(None, refuse, lambda error: None, "application/octet-stream", "bytes")
    entry.aim(buffer, 1 << 20)
    return entry.offer


def drain(buffer: Any) -> list[Any]:
    chunks = []
    while batch := buffer.take(1 << 40):
        chunks += batch
        for chunk in batch:
            buffer.settle(chunk.count, len(chunk.body), 0)
    return chunks


def test_sequence_and_content(batch: ModuleType, events: ModuleType) -> None:
    buffer = make(batch, events=3)
    send = sending(batch, buffer)
    before = time.time_ns() // 1000
    numbers = [send(b"%d" % n, f"key{n}") for n in range(7)]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert (buffer.has_sealed, buffer.open_events) == (True, 1)
    assert buffer.seal() is True
    assert buffer.seal() is False
    chunks = buffer.take(1 << 40)
    assert [(chunk.first, chunk.count) for chunk in chunks] == [(1, 3), (4, 3), (7, 1)]
    records = [record for chunk in chunks for record in events.Frame(chunk.body)]
    assert [record.payload for record in records] == [b"%d" % n for n in range(7)]
    assert [record.key for record in records] == [f"key{n}" for n in range(7)]
    assert {(record.source, record.type, record.topic, record.content_type) for record in records} == {
        ("s", "t", "o", "application/octet-stream")
    }
    ids = [record.id for record in records]
    assert ids == sorted(set(ids))
    assert before <= records[0].time_us <= records[-1].time_us <= time.time_ns() // 1000
    assert (buffer.has_sealed, buffer.open_events) == (False, 0)
    assert buffer.take(1) == []


def test_appended_records_are_kept_byte_for_byte(batch: ModuleType, events: ModuleType) -> None:
    buffer = make(batch, events=2)
    records = [
        events.encode_record(b"x", "a/b", id="one", subject="s", expires=5, metadata={"a": "b"}),
        events.encode_record(b"y", None, extensions={"n": 1}),
    ]
    assert [buffer.append(record) for record in records] == [1, 2]
    assert buffer.take(1)[0].body == events.build_frame("s", "t", "o", records)
    for broken in (b"", records[0][:-1], records[0] + b"x"):
        with pytest.raises(PayloadError):
            buffer.append(broken)
    for other in (None, "x", bytearray(records[0])):
        with pytest.raises(TypeError):
            buffer.append(other)
    assert buffer.stats()[0] == 2


def test_sealed_at_batch_bytes(batch: ModuleType) -> None:
    limit = HEADER + 3 * (RECORD + 100)
    buffer = make(batch, events=1000, size=limit)
    send = sending(batch, buffer)
    for _ in range(2):
        send(bytes(100))
    assert not buffer.has_sealed
    send(bytes(100))
    assert buffer.has_sealed, "no further record can fit"
    send(bytes(100))
    send(bytes(233))
    buffer.seal()
    assert [(chunk.first, chunk.count) for chunk in drain(buffer)] == [(1, 3), (4, 1), (5, 1)]


def test_large_record_has_a_chunk_of_its_own(batch: ModuleType) -> None:
    buffer = make(batch, size=200)
    send = sending(batch, buffer)
    assert [send(bytes(size)) for size in (10, 5000, 10)] == [1, 2, 3]
    assert buffer.open_events == 1
    chunks = drain(buffer)
    assert [(chunk.first, chunk.count, len(chunk.body)) for chunk in chunks] == [
        (1, 1, HEADER + RECORD + 10),
        (2, 1, HEADER + RECORD + 5000),
    ]


def test_never_fits(batch: ModuleType) -> None:
    room = HEADER + RECORD + 100
    buffer = make(batch, room=room)
    send = sending(batch, buffer)
    with pytest.raises(ResourceExhaustedError, match=rf"{RECORD + 101} bytes.*buffer_bytes={room}"):
        send(bytes(101))
    assert send(bytes(100)) == 1
    assert send(bytes(100)) == 0
    assert buffer.stats() == (1, 0, 0, 0, 1, 1, room)


def test_full_then_settled(batch: ModuleType) -> None:
    buffer = make(batch, events=4, room=10 * (RECORD + 8) + 3 * HEADER)
    send = sending(batch, buffer)
    accepted = 0
    while send(bytes(8)):
        accepted += 1
    assert accepted == 10
    assert buffer.open_events == 0, "a full buffer seals what is open"
    buffer.drop()
    chunks = buffer.take(0)
    assert [chunk.count for chunk in chunks] == [4], "at least one, whatever the limit"
    assert send(b"") == 0, "taken is not free"
    buffer.settle(4, len(chunks[0].body), 1)
    assert buffer.stats() == (10, 3, 1, 1, 6, 3, 6 * (RECORD + 8) + 2 * HEADER)
    assert send(bytes(8)) == 11
    both = buffer.take(1 << 40)
    assert [chunk.first for chunk in both] == [5, 9]
    for chunk in both:
        buffer.settle(chunk.count, len(chunk.body), 0)
    buffer.seal()
    assert [chunk.first for chunk in drain(buffer)] == [11]
    assert buffer.stats() == (11, 10, 1, 1, 0, 4, 0)


def test_take_up_to_a_size(batch: ModuleType) -> None:
    buffer = make(batch, events=1)
    send = sending(batch, buffer)
    for _ in range(6):
        send(bytes(10))
    size = HEADER + RECORD + 10
    assert [len(buffer.take(limit)) for limit in (2 * size, 2 * size - 1, 10 * size, 10 * size)] == [2, 1, 3, 0]


def test_settle_no_more_than_taken(batch: ModuleType) -> None:
    buffer = make(batch, events=1)
    send = sending(batch, buffer)
    send(b"")
    (chunk,) = buffer.take(1)
    size = len(chunk.body)
    for wrong in ((2, size, 0), (1, size + 1, 0), (1, size, 2), (-1, size, 0), (1, -1, 0), (1, size, -1)):
        with pytest.raises(InvalidArgumentError, match="more than was taken"):
            buffer.settle(*wrong)
    buffer.settle(1, size, 1)
    assert buffer.stats() == (1, 0, 1, 0, 0, 1, 0)


def test_ready(batch: ModuleType) -> None:
    calls: list[tuple[int, bool]] = []
    buffer = make(batch, events=3, ready=lambda: calls.append((buffer.open_events, buffer.has_sealed)))
    send = sending(batch, buffer)
    for _ in range(3):
        send(b"")
    assert calls == [(1, False), (0, True)]
    send(b"")
    assert len(calls) == 2, "the sender knows of the sealed one"
    drain(buffer)
    send(b"")
    assert len(calls) == 2, "its linger began with the first"
    buffer.seal()
    drain(buffer)
    send(b"")
    assert calls[2:] == [(1, False)]


def test_ready_that_raises(batch: ModuleType) -> None:
    def ready() -> None:
        raise KeyError("no")

    buffer = make(batch, ready=ready)
    send = sending(batch, buffer)
    with pytest.raises(KeyError):
        send(b"")
    assert buffer.stats()[0] == 1


def test_constructor(batch: ModuleType) -> None:
    limits = {"batch_events": 1, "batch_bytes": 1, "buffer_bytes": 1}
    for name in limits:
        with pytest.raises(InvalidArgumentError, match="at least 1"):
            batch.BatchBuffer("s", "t", "o", **{**limits, name: 0}, ready=print)
    for header in (("", "t", "o"), ("s", "", "o"), ("s", "t", "\x00")):
        with pytest.raises(InvalidArgumentError):
            batch.BatchBuffer(*header, **limits, ready=print)


def test_threads_see_whole_snapshots(batch: ModuleType, events: ModuleType) -> None:
    each = 4000
    buffer = make(batch, events=50, size=4000, room=40_000)
    send = sending(batch, buffer)
    numbers: list[list[int]] = [[] for _ in range(4)]
    stop = threading.Event()
    bad: list[Any] = []
    chunks: list[Any] = []

    def produce(mine: list[int]) -> None:
        while len(mine) < each:
            if number := send(b"%d" % len(mine)):
                mine.append(number)
            else:
                buffer.drop()
                time.sleep(0.0002)

    def watch() -> None:
        while not stop.is_set():
            accepted, delivered, failed, _, buffered, _, size = buffer.stats()
            if accepted != delivered + failed + buffered or not 0 <= size <= 40_000 or buffered < 0:
                bad.append((accepted, delivered, failed, buffered, size))

    def deliver() -> None:
        while not stop.is_set() or buffer.has_sealed:
            for chunk in buffer.take(9000):
                chunks.append(chunk)
                buffer.settle(chunk.count, len(chunk.body), chunk.count // 7)

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        producers = [threading.Thread(target=produce, args=(mine,)) for mine in numbers]
        others = [threading.Thread(target=watch), threading.Thread(target=deliver)]
        for thread in producers + others:
            thread.start()
        for thread in producers:
            thread.join()
        buffer.seal()
        stop.set()
        for thread in others:
            thread.join()
    finally:
        sys.setswitchinterval(old)
    assert not bad
    assert sorted(number for mine in numbers for number in mine) == list(range(1, 4 * each + 1))
    assert [chunk.first for chunk in chunks] == [
        1 + sum(chunk.count for chunk in chunks[:at]) for at in range(len(chunks))
    ]
    stored = {}
    for chunk in chunks:
        for index, record in enumerate(events.Frame(chunk.body)):
            stored[chunk.first + index] = int(record.payload)
    for mine in numbers:
        assert [stored[number] for number in mine] == list(range(each))
    accepted, delivered, failed, _, buffered, _, size = buffer.stats()
    assert (accepted, delivered + failed, buffered, size) == (4 * each, 4 * each, 0, 0)


def check_all(buffer: Any, events: ModuleType, chunks: list[Any], numbers: list[int]) -> None:
    buffer.seal()
    chunks += drain(buffer)
    accepted, delivered, failed, _, buffered, batches, size = buffer.stats()
    assert (accepted, delivered, failed, buffered, batches, size) == (len(numbers), len(numbers), 0, 0, len(chunks), 0)
    assert sorted(numbers) == list(range(1, accepted + 1))
    assert sum(len(events.Frame(chunk.body)) for chunk in chunks) == accepted
    ids = [record.id for chunk in chunks for record in events.Frame(chunk.body)]
    assert len(set(ids)) == accepted


def test_signal_handler_appends(batch: ModuleType, events: ModuleType) -> None:
    buffer = make(batch, events=7, size=2000, room=50_000)
    send = sending(batch, buffer)
    numbers: list[int] = []
    chunks: list[Any] = []
    fired = [0]

    def handler() -> None:
        fired[0] += 1
        numbers.append(send(b"from the handler", "k"))
        accepted, delivered, failed, _, buffered, _, _ = buffer.stats()
        assert accepted == delivered + failed + buffered

    with alarms(handler, 0.0001):
        begun = time.monotonic()
        while time.monotonic() < begun + 1.0 or (fired[0] <= 200 and time.monotonic() < begun + 60):
            numbers.append(send(b"from the loop"))
            if buffer.stats()[4] > 200:
                chunks += drain(buffer)
                # looks for signals: CPython may not notice one that came while another thread ran
                signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert fired[0] > 200
    check_all(buffer, events, chunks, numbers)


def test_events_leave_nothing_to_the_collector(batch: ModuleType) -> None:
    buffer = make(batch, events=1000, size=1 << 20, room=1 << 24)
    send = sending(batch, buffer)

    def garbage() -> int:
        gc.collect()
        before = buffer.stats()[0]
        for number in range(before, before + 3000):
            assert send(b"payload") == number + 1
        drain(buffer)
        return gc.collect()

    gc.disable()
    try:
        assert min(garbage() for _ in range(3)) < 100  # other threads leave some
    finally:
        gc.enable()


def test_finalizer_appends(batch: ModuleType, events: ModuleType) -> None:
    buffer = make(batch, events=7, size=2000, room=500_000)  # without a GIL finalizers come late, and all at once
    send = sending(batch, buffer)
    numbers: list[int] = []
    chunks: list[Any] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            numbers.append(send(b"from __del__"))

    threshold = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        for _ in range(3000):
            Cycle()
            numbers.append(send(b"from the loop"))
            if buffer.stats()[4] > 200:
                chunks += drain(buffer)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    check_all(buffer, events, chunks, numbers)
    assert len(numbers) == 6000


@pytest.mark.native_only
@pytest.mark.process
def test_memory_is_bounded() -> None:
    """Blocks are reused, and blocks that wait hold what their frames need."""
    code = """
import resource
from cloud_runtimes._native import _batch
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
buffer = _batch.BatchBuffer("s", "t", "o", batch_events=1000, batch_bytes=1 << 20, buffer_bytes=8 << 20, ready=lambda: None)
entry = _batch.Entry(None, None, print, "application/octet-stream", "bytes")
entry.aim(buffer, 1 << 20)
send = entry.offer
def fill(linger):
    while send(bytes(500)):
        if linger:
            buffer.seal()
def drain():
    while found := buffer.take(1 << 20):
        for chunk in found:
            buffer.settle(chunk.count, len(chunk.body), 0)
for _ in range(3):
    fill(False); drain()
before = rss()
for linger in (False, True) * 10:
    fill(linger)
    assert rss() - before < 24 << 20, (rss() - before) >> 20
    drain()
assert rss() - before < 16 << 20, (rss() - before) >> 20
for _ in range(200_000):
    send(bytes(1000)) or drain()
assert rss() - before < 16 << 20, (rss() - before) >> 20
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
