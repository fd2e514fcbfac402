"""UUIDv7: layout, order under any clock and any number of threads, fork."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
import uuid
from types import ModuleType

import pytest

from tests.support.forked import Forked
from tests.support.waiting import in_threads


def test_layout(events: ModuleType) -> None:
    before = time.time_ns() // 1_000_000
    raw = events.uuid7()
    parsed = uuid.UUID(bytes=raw)
    assert type(raw) is bytes
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert events.uuid7_text(raw) == str(parsed)
    assert before <= int.from_bytes(raw[:6], "big") <= time.time_ns() // 1_000_000 + 1


def test_text_needs_16_bytes(events: ModuleType) -> None:
    assert events.uuid7_text(bytearray(16)) == "00000000-0000-0000-0000-000000000000"
    for size in (0, 15, 17):
        with pytest.raises(ValueError, match="16 bytes"):
            events.uuid7_text(bytes(size))


@pytest.mark.parametrize("step", [0, -1000, 1], ids=["stands", "goes back", "goes on"])
def test_increases_whatever_the_clock_does(events: ModuleType, step: int) -> None:
    base = time.time_ns() // 1_000_000 + 60_000
    readings = iter(base + step * count for count in range(5001))
    events._set_clock(lambda: next(readings))
    drawn = [events.uuid7() for _ in range(5000)]
    assert all(first < second for first, second in itertools.pairwise(drawn))
    if step == 1:
        assert int.from_bytes(drawn[-1][:6], "big") == base + 4999
        starts = [raw[6] & 15 for raw in drawn]
        assert max(starts) < 8, "the counter starts below 2**41"
    events.reseed()


def test_counter_counts_within_a_millisecond(events: ModuleType) -> None:
    moment = time.time_ns() // 1_000_000 + 120_000
    events._set_clock(lambda: moment)

    def counter(raw: bytes) -> int:
        return (raw[6] & 15) << 38 | raw[7] << 30 | (raw[8] & 63) << 24 | int.from_bytes(raw[9:12], "big")

    drawn = [events.uuid7() for _ in range(100)]
    counters = [counter(raw) for raw in drawn]
    assert counters == list(range(counters[0], counters[0] + 100))
    assert len({raw[12:] for raw in drawn}) > 95


def test_clock_out_of_range_is_held(events: ModuleType) -> None:
    events._set_clock(lambda: -5)
    first = events.uuid7()
    assert first < events.uuid7()


def test_threads(events: ModuleType) -> None:
    drawn: list[list[bytes]] = [[] for _ in range(4)]
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_threads(
            *[
                threading.Thread(target=lambda mine=mine: mine.extend(events.uuid7() for _ in range(5000)))
                for mine in drawn
            ]
        )
    finally:
        sys.setswitchinterval(old)
    for mine in drawn:
        assert mine == sorted(mine)
    assert len({raw for mine in drawn for raw in mine}) == 20_000


@pytest.mark.native_only
def test_both_kernels_share_one_sequence(both: tuple[ModuleType, ModuleType]) -> None:
    from cloud_runtimes._native import _batch

    events = both[0]
    buffer = _batch.BatchBuffer(
        "s", "t", "", batch_events=1, batch_bytes=1000, buffer_bytes=100_000, ready=lambda: None
    )
    entry = _batch.Entry(None, print, print, "text/plain", "text")
    entry.aim(buffer, 1000)
    drawn = []
    for _ in range(50):
        drawn.append(events.uuid7_text(events.uuid7()))
        entry.offer("")
        drawn.append(events.Frame(buffer.take(1)[0].body)[0].id)
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 100


@pytest.mark.process
def test_forked_child_draws_anew(events: ModuleType) -> None:
    events.uuid7()

    def body() -> list[str]:
        events.reseed()
        return [events.uuid7().hex() for _ in range(100)]

    child = Forked(body)
    mine = {events.uuid7() for _ in range(100)}
    theirs = [bytes.fromhex(each) for each in child.result()]
    assert len(theirs) == 100
    assert theirs == sorted(theirs)
    assert not mine.intersection(theirs)
    assert len({raw[12:] for raw in mine}.intersection(raw[12:] for raw in theirs)) < 5


FORKED = """
import os
from cloud_runtimes._core import fork
from cloud_runtimes._native import events

class Member:
    def forked(self):
        os.write(writer, events.uuid7())
        os._exit(0)

member = Member()
fork.register(member)
events.uuid7()
reader, writer = os.pipe()
os.waitpid(os.fork(), 0)
assert os.read(reader, 16)[12:] != events.uuid7()[12:]
"""


@pytest.mark.process
def test_what_is_called_in_a_forked_child_draws_anew() -> None:
    """Where the kernels are loaded after what calls it, too."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
