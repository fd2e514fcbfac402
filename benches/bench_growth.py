"""Growth: what a sent and stored event costs as there are more, larger ones, and more threads.

Each cell is one run by the wall clock, in a store of its own. The cost that does not grow with an event's size (a call, an id, a time) is most of a small one's, so sizes are compared as seconds of an event too.
"""

from __future__ import annotations

import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import CloudRuntimesClient

CELL_BYTES = 512 << 20
MOST = 10_000_000
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
            for _ in range(2000):
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
            assert stats.delivered == stats.accepted == share * threads + 2000
        shutil.rmtree(home)
        return taken, count, grown

    return run


def told(note: Any, what: str, cells: dict[str, Cell], judged: list[str]) -> None:
    """Note each cell (seconds, events, bytes grown) and how far the judged ones are from the best of them."""
    costs = {name: taken / count for name, (taken, count, _) in cells.items()}
    row = "; ".join(f"{name}: {costs[name] * 1e9:,.0f} ns, {cells[name][2] / 2**20:+.0f} MiB" for name in cells)
    worst = max(costs[name] for name in judged) / min(costs[name] for name in judged)
    note(f"{what}: {row}. From {judged[0]} on, worst over best: {worst:.2f} (goal: {ALLOWED})")


def plain_file(path: Path, size: int) -> float:
    """Seconds to write a file of so many bytes, a megabyte at a time, and to sync it every sixteen, as the store does."""
    megabyte = bytes(1 << 20)
    begin = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for number in range(size >> 20):
            file.write(megabyte)
            if number % 16 == 15:
                os.fdatasync(file)
    taken = time.perf_counter() - begin
    path.unlink()
    return taken


def bench_counts(benchmark: Any, note: Any, cell: Callable[[str, int, int], Cell], tmp_path: Path) -> None:
    """From one event to ten million of 361 bytes; few wait for the first commit, whatever they are.

    A plain file of the same bytes shows how much of the growth is the machine's: its disk, its memory for files.
    """
    value = "x" * 361
    cells: dict[str, Cell] = {}

    def run() -> None:
        count = 1
        while count <= MOST:
            cells[f"{count:,}"] = cell(value, count, 1)
            count *= 10

    benchmark.pedantic(run, rounds=1)
    judged = [name for name in cells if len(name) >= len("100,000")]
    told(note, "an event of 361 B, by their number", cells, judged)
    counts = {name: cells[name][1] for name in judged}
    plain = {name: plain_file(tmp_path / "plain", 361 * count) / count for name, count in counts.items()}
    row = "; ".join(f"{name}: {seconds * 1e9:,.0f} ns" for name, seconds in plain.items())
    note(f"a plain file of the same bytes, for each event: {row}")


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
    note(
        f"an event by its size, {CELL_BYTES >> 20} MiB each: {row}. "
        f"From 6,400 B on, worst over best of a byte: {max(large) / min(large):.2f} (goal: {ALLOWED})"
    )


def bench_threads(benchmark: Any, note: Any, cell: Callable[[str, int, int], Cell]) -> None:
    """From one thread to sixteen that share a publisher and a million events."""
    value = "x" * 361
    cells: dict[str, Cell] = {}

    def run() -> None:
        for threads in (1, 2, 4, 8, 16):
            cells[f"{threads} threads"] = cell(value, 1_000_000, threads)

    benchmark.pedantic(run, rounds=1)
    told(note, "an event of 361 B, by threads that send a million", cells, list(cells))
