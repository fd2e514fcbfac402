"""Telemetry under load, the endpoint in another process: nothing is lost at speed, nobody who records waits for an endpoint that fails, and memory is bounded.

In the short form limits of time are those of a busy machine; at full length they are those that are promised.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_runtimes import native_status
from tests.support import PEM, Figure, Rounds
from tests.telemetry import telemetry_load

pytestmark = [pytest.mark.process, pytest.mark.native_only]


class Other:
    """A process of ``telemetry_load.py``; it ends when its stdin does."""

    def __init__(self, *words: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, telemetry_load.__file__, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first, self.process.communicate()[1]
        self.url: str = json.loads(first)["url"]

    def rest(self) -> Any:
        """End it; returns what it says at last."""
        out, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors
        return json.loads(out) if out else None


@pytest.fixture
def other() -> Iterator[Callable[..., Other]]:
    """Start endpoints; they are killed if a test fails."""
    processes: list[Other] = []

    def start(*words: Any) -> Other:
        processes.append(Other(*words))
        return processes[-1]

    yield start
    for each in processes:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def run(*words: Any) -> Any:
    done = subprocess.run(
        [sys.executable, telemetry_load.__file__, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def full(rounds: Rounds) -> bool:
    return bool(rounds(0, 1))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.timing
def test_nothing_is_dropped(
    scheme: str, other: Callable[..., Other], tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    certificate = (PEM,) if scheme == "https" else ()
    sink = other("sink", *certificate)
    rate = rounds(50_000, 300_000)
    result = run("delivered", sink.url, tmp_path, rate, rounds(1, 10), *certificate)
    got = sink.rest()
    figure(
        f"spans over {scheme}, the main thread spinning",
        f"{result['recorded']:,} recorded, {result['rate']:,.0f} a second, {got['spans']:,} received, {result['dropped']:,} dropped",
    )
    assert result["flushed"]
    assert result["dropped"] == 0
    assert result["recorded"] == result["exported"] == got["spans"] == got["distinct"]
    if full(rounds):
        assert result["rate"] > 0.99 * rate


@pytest.mark.promise("F1", figure="endpoint: ")
@pytest.mark.parametrize("kind", ["refused", "black hole", "503", "400", "slow"])
def test_an_endpoint_that_fails(
    kind: str, other: Callable[..., Other], tmp_path: Path, rounds: Rounds, figure: Figure
) -> None:
    endpoint = other("bad", kind)
    if kind == "refused":
        endpoint.rest()
    rate, seconds = 50_000, rounds(1, 60)
    result = run("refused", endpoint.url, tmp_path, rate, seconds)
    figure(
        f"endpoint: {kind}, {seconds} s at {rate:,} records a second",
        f"a span p50 {result['p50'][0] / 1000:.1f}, p99 {result['p99'][0] / 1000:.1f} µs; a log record p50 "
        f"{result['p50'][1] / 1000:.1f}, p99 {result['p99'][1] / 1000:.1f} µs; memory {result['grown'] / 2**20:+.1f} MiB "
        f"(buffers {result['limit'] >> 20}); flush(0.5) {result['flushed']} after {result['waited']:.2f} s",
    )
    assert result["exact"]
    assert result["recorded"] >= 0.99 * rate * seconds
    assert not result["flushed"]
    assert result["grown"] <= result["limit"] + (10 << 20)
    if full(rounds):
        assert max(result["p99"]) <= 5_000
        assert result["waited"] <= 0.7
    else:
        assert max(result["p50"]) <= 50_000
        assert result["waited"] <= 5


@pytest.mark.soak
def test_what_a_busy_loop_loses(other: Callable[..., Other], tmp_path: Path, figure: Figure) -> None:
    sink = other("sink")
    result = run("spinning", sink.url, tmp_path, 100_000, 20)
    sink.rest()
    figure(
        "a loop in Python beside 100,000 spans a second of another thread",
        f"keeps {result['share']:.0%} of its rate, with {result['rate']:,.0f} a second",
    )
    assert result["share"] > 0.8


@pytest.mark.promise("C4")
@pytest.mark.parametrize(("kind", "limit"), [("span", 256), ("log", 160)])
def test_memory_of_a_record(kind: str, limit: int, rounds: Rounds, figure: Figure) -> None:
    if not native_status().native:
        pytest.skip("the compiled kernels are not in use")
    result = run("buffered", kind, rounds(100_000, 1_000_000))
    figure(f"memory of a buffered {kind}", f"{result['bytes']:.0f} B")
    assert 0 < result["bytes"] <= limit
