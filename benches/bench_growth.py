"""Growth: what a sent and stored event costs as there are more, larger ones, and more threads.

Each cell is one run by the wall clock, in a store of its own that has taken 40 MB before. The cost that does not grow with an event's size (a call, an id, a time) is most of a small one's, so sizes are compared as seconds of an event too.
"""

from __future__ import annotations

import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benches.bounded import bounded
from cloud_runtimes import CloudRuntimesClient
from cloud_runtimes._native import events

CELL_BYTES = 512 << 20
WARM_BYTES = 40_000_000
MEMORY = 1 << 30
ALLOWED = 1.3
"""How much more than in the best cell a byte may cost."""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


Cell = tuple[float, int, int]
"""Seconds to the last on the disk, events, bytes by which memory grew."""


@pytest.fixture
def cell(tmp_path: Path) -> Callable[[str, int, int], Cell]:
    """Send so many events of a value from so many threads."""

    def run(value: str, count: int, threads: int) -> Cell:
        home = tmp_path / "home"
        with CloudRuntimesClient(config={"capa": {"home": str(home)}}, app_id="bench") as client:
            publisher = client.pubsub.publisher("bus", "t", content_type="text/plain")
            warm = WARM_BYTES // len(value)
            for _ in range(warm):
                publisher.send(value)
            publisher.flush()
            before = resident()
            share = count // threads

            def work() -> None:
                send = publisher.send
                for _ in range(share):
                    send(value)

            begin = time.perf_counter()
            if threads == 1:
                work()
            else:
                workers = [threading.Thread(target=work) for _ in range(threads)]
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
            publisher.flush()
            taken = time.perf_counter() - begin
            grown = resident() - before
            stats = publisher.stats()
            assert stats.delivered == stats.accepted == share * threads + warm
        shutil.rmtree(home)
        return taken, count, grown

    return run


def stored_size(size: int) -> int:
    """Return the bytes of an event's record."""
    return len(events.encode_record(b"x" * size, "text/plain"))


def summary(note: Any, what: str, cells: dict[str, Cell], *judged: list[str]) -> None:
    """Note each cell (seconds, events, bytes grown), and how far the judged ones are from the best of them."""
    costs = {name: taken / count for name, (taken, count, _) in cells.items()}
    row = "; ".join(f"{name}: {costs[name] * 1e9:,.0f} ns, {cells[name][2] / 2**20:+.0f} MiB" for name in cells)
    worst = "; ".join(
        f"from {names[0]} on {max(costs[name] for name in names) / min(costs[name] for name in names):.2f}"
        for names in judged
    )
    note(f"{what}: {row}. Worst over best: {worst} (goal: {ALLOWED})")


def counted(cell: Callable[[str, int, int], Cell]) -> dict[str, Cell]:
    """From one event to ten million of 361 bytes; what takes no second is the median of five."""
    cells = {}
    for power in range(8):
        runs = sorted(cell("x" * 361, 10**power, 1) for _ in range(5 if power < 6 else 1))
        cells[f"{10**power:,}"] = runs[len(runs) // 2]
    return cells


def judged_of(cells: dict[str, Cell]) -> list[list[str]]:
    """Few events wait for the first commit, whatever they are; 10,000 fit into the write-ahead log and are copied from it into the database later, which is a third of what more of them cost."""
    return [[name for name in cells if len(name) >= len(first)] for first in ("10,000", "100,000")]


def bench_counts(benchmark: Any, note: Any, cell: Callable[[str, int, int], Cell]) -> None:
    """By number, with all the memory of the machine for files: a virtual one gets it from its host when it touches it first, which costs more than the writing."""
    cells: dict[str, Cell] = benchmark.pedantic(counted, args=(cell,), rounds=1)
    summary(note, "an event of 361 B, by their number", cells, *judged_of(cells))


def bench_counts_in_bounded_memory(benchmark: Any, note: Any, cell: Callable[[str, int, int], Cell]) -> None:
    """By number, in a gigabyte as of a container: memory for files does not grow with the store, so what grows is ours."""
    with bounded(MEMORY) as done:
        if not done:
            pytest.skip("no group with a limit of memory can be made here")
        cells: dict[str, Cell] = benchmark.pedantic(counted, args=(cell,), rounds=1)
    summary(note, f"the same in {MEMORY >> 30} GiB of memory, files' included", cells, *judged_of(cells))


def bench_sizes(benchmark: Any, note: Any, cell: Callable[[str, int, int], Cell]) -> None:
    """From 100 bytes to 64 KiB; a byte is compared from where bytes are what costs."""
    cells: dict[str, Cell] = {}
    costs: dict[int, float] = {}

    def run() -> None:
        size = 100
        while True:
            count = CELL_BYTES // size
            cells[f"{size:,} B"] = cell("x" * size, count, 1)
            costs[size] = cells[f"{size:,} B"][0] / count / size
            if size == 65536:
                return
            size = min(size * 4, 65536)

    benchmark.pedantic(run, rounds=1)
    row = "; ".join(
        f"{name}: {taken / count * 1e9:,.0f} ns, {taken / CELL_BYTES * 1e9:.2f} ns/B, {grown / 2**20:+.0f} MiB"
        for name, (taken, count, grown) in cells.items()
    )
    large = [each for size, each in costs.items() if size >= 6400]
    stored = [each * size / stored_size(size) for size, each in costs.items()]
    note(
        f"an event by its size, {CELL_BYTES >> 20} MiB each: {row}. "
        f"Worst over best of a byte that is stored (of 100 B {stored_size(100)}): {max(stored) / min(stored):.2f}; "
        f"of a byte of the event, from 6,400 B on: {max(large) / min(large):.2f} (goal: {ALLOWED})"
    )


def bench_threads(benchmark: Any, note: Any, cell: Callable[[str, int, int], Cell]) -> None:
    """From one thread to sixteen that share a publisher and a million events."""
    value = "x" * 361
    cells: dict[str, Cell] = {}

    def run() -> None:
        for threads in (1, 2, 4, 8, 16):
            cells[f"{threads} threads"] = cell(value, 1_000_000, threads)

    benchmark.pedantic(run, rounds=1)
    summary(note, "an event of 361 B, by threads that send a million", cells, list(cells))
