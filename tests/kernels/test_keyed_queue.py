"""Ready events in the order of their keys, the same in both twins."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import groupby
from types import ModuleType
from typing import Any

import pytest

K, OTHER = "k", "other"


class Keys:
    """A queue, and events of one kernel for it."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.ready: deque[Any] = deque()
        self.queue = module.KeyedQueue(self.ready)

    def events(self, *keys: str | None) -> list[Any]:
        """Return an event of each key, all with the same marks."""
        records = [self._module.encode_record(b"1", "application/json", key=key) for key in keys]
        frame = self._module.Frame(self._module.build_frame("/s", "t", "top", records))
        out: list[Any] = []
        frame.deliver(0, range(len(records)), 0, self._module.Marks(len(records)), out)
        return list(self._module.receive_events(self._module.ReceivedEvent, out, 1, None, "bus", None, False))

    def add(self, *keys: str | None) -> list[Any]:
        """Queue an event of each key."""
        events = self.events(*keys)
        self.queue.add(events)
        return events

    def taken(self) -> list[Any]:
        """Take all that is ready."""
        return [self.ready.popleft() for _ in range(len(self.ready))]


@pytest.fixture
def keys(events: ModuleType) -> Keys:
    return Keys(events)


def test_one_of_a_key_is_ready(keys: Keys) -> None:
    first, second, other, keyless, third = keys.add(K, K, OTHER, None, K)
    assert (keys.taken(), keys.queue.waiting) == ([first, other, keyless], 2)
    assert keys.queue.release(first) is True
    assert keys.taken() == [second]
    assert keys.queue.release(first) is False  # it is no longer current
    assert keys.queue.release(keyless) is False
    assert keys.queue.release(second) is True
    assert (keys.taken(), keys.queue.waiting) == ([third], 0)
    assert keys.queue.release(third) is False
    assert keys.taken() == []
    (again,) = keys.add(K)
    assert keys.taken() == [again]


def test_a_kept_event_holds_back_its_key(keys: Keys) -> None:
    first, second, keyless = keys.add(K, K, None)
    keys.taken()
    assert keys.queue.keep(first) is True
    assert keys.queue.keep(second) is False
    assert keys.queue.keep(keyless) is True
    assert keys.queue.release(first) is False
    again, other = keys.events(K, None)
    assert keys.queue.replace(first, again) is True
    assert keys.queue.replace(first, again) is False
    assert keys.queue.replace(keyless, other) is True
    assert keys.taken() == [again, other]
    assert keys.queue.release(again) is True
    assert keys.taken() == [second]
    assert keys.queue.replace(keyless, None) is False
    assert keys.queue.replace(second, None) is False
    assert keys.queue.keep(second) is False


def test_an_event_that_is_given_up_frees_its_key(keys: Keys) -> None:
    first, second = keys.add(K, K)
    keys.taken()
    assert keys.queue.keep(first) is True
    assert keys.queue.replace(first, None) is True
    assert keys.taken() == [second]
    assert keys.queue.release(second) is False


@pytest.mark.parametrize("how", ["void", "leaving"])
def test_sweep(keys: Keys, how: str) -> None:
    handled, waiting = keys.add(K, K)
    keys.ready.popleft()
    ready, later = keys.add(OTHER, OTHER)
    kept, more = keys.add("kept", OTHER)
    setattr(handled._record.marks, how, True)
    setattr(ready._record.marks, how, True)
    assert set(map(id, keys.queue.sweep())) == {id(waiting), id(ready), id(later)}
    assert keys.queue.waiting == 0
    assert sorted(map(id, keys.taken())) == sorted([id(kept), id(more)])
    assert keys.queue.sweep() == []
    assert keys.queue.keep(handled) is True  # it is with a handler
    assert keys.queue.release(more) is False


def test_a_worker_releases_keys_and_stops_in_time(events: ModuleType, keys: Keys) -> None:
    seen: list[Any] = []
    worker = events.Worker(
        keys.ready, seen.append, (1,), None, typed=False, flush_at=9, wake=lambda: None, enter=None, keys=keys.queue
    )  # fmt: skip
    sent = keys.add(K, K, OTHER, K)
    keys.queue.until = time.monotonic() - 1
    assert worker.run(9) is None
    assert seen == []
    keys.queue.until = time.monotonic() + 60
    assert worker.run(9) is None
    assert seen == [sent[0], sent[2], sent[1], sent[3]]
    assert worker.take_done() == []
    assert keys.queue.handled == len(seen)
    assert keys.queue.take_done() == seen
    assert keys.queue.handled == 0
    keys.queue.until = float("inf")
    assert keys.queue.until == float("inf")


def test_threads_keep_the_order(events: ModuleType, keys: Keys) -> None:
    count, names = 200, [f"key {number}" for number in range(7)]
    lock, running, seen = threading.Lock(), set[str](), []
    faults: list[str] = []

    def handle(event: Any) -> None:
        key = event._record.key
        with lock:
            if key in running:
                faults.append(key)
            running.add(key)
            seen.append((key, event))
        with lock:
            running.remove(key)

    def work() -> None:
        worker = events.Worker(
            keys.ready, handle, (1,), None, typed=False, flush_at=10**6, wake=lambda: None, enter=None, keys=keys.queue
        )  # fmt: skip
        while len(seen) < count * len(names):
            worker.run(16)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    sent = [event for _ in range(count) for event in keys.add(*names)]
    done: list[Any] = []
    while any(thread.is_alive() for thread in threads):
        done += keys.queue.take_done()
    for thread in threads:
        thread.join()
    done += keys.queue.take_done()
    assert faults == []
    # at no moment is one taken whose predecessor is not
    for number, name in enumerate(names):
        assert [event for event in done if event._record.key == name] == sent[number :: len(names)]
    by_key = {
        key: [pair[1] for pair in group]
        for key, group in groupby(sorted(seen, key=lambda pair: pair[0]), lambda pair: pair[0])
    }
    for number, name in enumerate(names):
        assert by_key[name] == sent[number :: len(names)]


def test_open_positions(events: ModuleType) -> None:
    marks = events.Marks(10, bytes([0b10101010, 0b01]))
    assert marks.open(0, 10) == [0, 2, 4, 6, 9]
    assert (marks.open(3, 7), marks.open(5, 5)) == ([4, 6], [])
    for start, stop in ((-1, 3), (4, 3), (0, 11)):
        with pytest.raises(IndexError, match=f"positions {start} to {stop} of 10"):
            marks.open(start, stop)
